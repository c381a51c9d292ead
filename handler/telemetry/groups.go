package telemetry

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/millrace-ai/millrace/engine"
)

// groupMetrics collects what is told of each group of caches. Which groups there
// are is known with the model.
type groupMetrics struct{ stats func() engine.Stats }

// groupSeries are its metrics.
var groupSeries = []struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(engine.CacheStats) int64
}{
	{groupDesc("millrace_kv_group_pages_used", "Pages of a group of caches that running sequences hold"), prometheus.GaugeValue, func(s engine.CacheStats) int64 { return int64(s.Used) }},
	{groupDesc("millrace_kv_group_pages_cached", "Pages of a group of caches that a prompt may find, held or not"), prometheus.GaugeValue, func(s engine.CacheStats) int64 { return int64(s.Cached) }},
	{groupDesc("millrace_kv_group_page_queries_total", "Pages of a group of caches that prompts looked for"), prometheus.CounterValue, func(s engine.CacheStats) int64 { return s.Queries }},
	{groupDesc("millrace_kv_group_page_hits_total", "Pages of a group of caches that prompts went on from"), prometheus.CounterValue, func(s engine.CacheStats) int64 { return s.Hits }},
	{groupDesc("millrace_kv_group_page_evictions_total", "Cached pages of a group of caches whose place was needed"), prometheus.CounterValue, func(s engine.CacheStats) int64 { return s.Evicted }},
}

func groupDesc(name, help string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, []string{"group", "window"}, nil)
}

// Describe implements prometheus.Collector.
func (groupMetrics) Describe(out chan<- *prometheus.Desc) {
	for _, s := range groupSeries {
		out <- s.desc
	}
}

// Collect implements prometheus.Collector.
func (m groupMetrics) Collect(out chan<- prometheus.Metric) {
	for i, g := range m.stats().Groups {
		for _, s := range groupSeries {
			out <- prometheus.MustNewConstMetric(s.desc, s.kind, float64(s.value(g)), strconv.Itoa(i), strconv.Itoa(g.Window))
		}
	}
}
