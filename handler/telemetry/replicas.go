package telemetry

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/millrace-ai/millrace/engine"
)

// replicaMetrics collects what is told of each replica, where there are several. How many
// there are is known with the model.
type replicaMetrics struct{ stats func() []engine.Stats }

// replicaSeries are its metrics.
var replicaSeries = []struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(*engine.Stats) int64
}{
	{replicaDesc("millrace_replica_running", "Sequences that run on a replica"), prometheus.GaugeValue, func(s *engine.Stats) int64 { return int64(s.Running) }},
	{replicaDesc("millrace_replica_waiting", "Sequences that wait for a replica"), prometheus.GaugeValue, func(s *engine.Stats) int64 { return int64(s.Waiting + s.Preempted) }},
	{replicaDesc("millrace_replica_kv_pages_used", "Pages of a replica's key-value cache that running sequences hold"), prometheus.GaugeValue, func(s *engine.Stats) int64 { return int64(s.PagesUsed) }},
	{replicaDesc("millrace_replica_prompt_tokens_total", "Tokens of the prompts that a replica has admitted"), prometheus.CounterValue, func(s *engine.Stats) int64 { return s.PromptTokens }},
	{replicaDesc("millrace_replica_cache_hit_tokens_total", "Prompt tokens found in a replica's prefix cache"), prometheus.CounterValue, func(s *engine.Stats) int64 { return s.CachedTokens }},
	{replicaDesc("millrace_replica_generated_tokens_total", "Tokens that a replica has generated"), prometheus.CounterValue, func(s *engine.Stats) int64 { return s.GeneratedTokens }},
}

func replicaDesc(name, help string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, []string{"replica"}, nil)
}

// Describe implements prometheus.Collector.
func (replicaMetrics) Describe(out chan<- *prometheus.Desc) {
	for _, s := range replicaSeries {
		out <- s.desc
	}
}

// Collect implements prometheus.Collector.
func (m replicaMetrics) Collect(out chan<- prometheus.Metric) {
	for i, stats := range m.stats() {
		for _, s := range replicaSeries {
			out <- prometheus.MustNewConstMetric(s.desc, s.kind, float64(s.value(&stats)), strconv.Itoa(i))
		}
	}
}
