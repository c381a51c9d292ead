package telemetry

import (
	"net/http"
	"runtime"
	"strconv"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/millrace-ai/millrace/engine"
	"github.com/millrace-ai/millrace/engine/page"
)

// Metrics are TGI's, by name, label and bucket, and those of addOurs, which TGI
// does not have and which are named as Prometheus asks for. They have a registry
// of their own. It is an engine.Observer. All are there from the start, except
// the three whose buckets depend on the model's limits: those come with the
// model.
type Metrics struct {
	registry *prometheus.Registry
	handler  http.Handler

	requests, success prometheus.Counter
	failure           *prometheus.CounterVec // by err
	answers           *prometheus.CounterVec // by route, method and code

	duration, validation, queue, inference, perToken prometheus.Observer
	inputLength, maxNewTokens, generatedTokens       prometheus.Observer // nil without a model
	ttft, interToken                                 prometheus.Observer
	skipped                                          prometheus.Summary

	nextSize       prometheus.Observer
	concat         prometheus.Counter // reason chunking: the only way here
	concatDuration prometheus.Observer
	steps          [2]stepMetrics // by engine.Method

	once  sync.Once // guards what comes with the model
	stats func() engine.Stats
	each  func() []engine.Stats // of replicas, nil: there is one
	mu    sync.Mutex            // guards both
}

// stepMetrics are those with a method label.
type stepMetrics struct {
	count, success, failure              prometheus.Counter
	inference, forward, decode, deciding prometheus.Observer
}

// failureLabels are the values of tgi_request_failure's label.
var failureLabels = []string{"overloaded", "validation", "template", "generation", "incomplete", "timeout", "dropped"}

// NewMetrics returns metrics that no request has touched.
func NewMetrics() *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry()}
	m.handler = promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})

	m.requests = m.counter("tgi_request_count", "Total number of requests", nil)
	m.success = m.counter("tgi_request_success", "Number of successful requests", nil)
	m.failure = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "tgi_request_failure", Help: "Number of failed requests by cause",
	}, []string{"err"})
	m.registry.MustRegister(m.failure)
	for _, label := range failureLabels {
		m.failure.WithLabelValues(label)
	}

	buckets := durationBuckets()
	m.duration = m.histogram("tgi_request_duration", "Request duration", buckets, nil)
	m.validation = m.histogram("tgi_request_validation_duration", "Request validation duration", buckets, nil)
	m.queue = m.histogram("tgi_request_queue_duration", "Request queue duration", buckets, nil)
	m.inference = m.histogram("tgi_request_inference_duration", "Request inference duration", buckets, nil)
	m.perToken = m.histogram("tgi_request_mean_time_per_token_duration", "Mean time per token per request", buckets, nil)
	m.skipped = prometheus.NewSummary(prometheus.SummaryOpts{
		Name: "tgi_request_skipped_tokens", Help: "Speculated tokens per request",
		Objectives: map[float64]float64{0: 0, 0.5: 0.01, 0.9: 0.01, 0.95: 0.005, 0.99: 0.001, 0.999: 0.0001, 1: 0},
	})
	m.registry.MustRegister(m.skipped)

	m.gauge("tgi_queue_size", "Current queue size", func(s engine.Stats) int { return s.Waiting + s.Preempted })
	m.gauge("tgi_batch_current_size", "Current batch size", func(s engine.Stats) int { return s.Running })
	m.gauge("tgi_batch_current_max_tokens", "Maximum tokens for the current batch", func(s engine.Stats) int { return s.MaxTokens })
	m.gauge("tgi_batch_max_total_tokens", "Maximum tokens that all sequences may hold together", func(s engine.Stats) int { return s.PagesTotal * page.Tokens })
	m.nextSize = m.histogram("tgi_batch_next_size", "Batch size of the next batch", prometheus.LinearBuckets(1, 1, 1024), nil)
	m.concat = m.counter("tgi_batch_concat", "Batches that joined a running one", prometheus.Labels{"reason": "chunking"})
	m.counter("tgi_batch_concat", "Batches that joined a running one", prometheus.Labels{"reason": "backpressure"})
	m.counter("tgi_batch_concat", "Batches that joined a running one", prometheus.Labels{"reason": "wait_exceeded"})
	m.concatDuration = m.histogram("tgi_batch_concat_duration", "Time spent joining batches", buckets, prometheus.Labels{"method": "decode"})
	for method := range m.steps {
		l := prometheus.Labels{"method": engine.Method(method).String()}
		m.steps[method] = stepMetrics{
			count:     m.counter("tgi_batch_inference_count", "Inference calls per method (prefill or decode)", l),
			success:   m.counter("tgi_batch_inference_success", "Number of successful inference calls per method (prefill or decode)", l),
			failure:   m.counter("tgi_batch_inference_failure", "Number of failed inference calls per method (prefill or decode)", l),
			inference: m.histogram("tgi_batch_inference_duration", "Batch inference duration", buckets, l),
			forward:   m.histogram("tgi_batch_forward_duration", "Batch forward duration per method (prefill or decode)", buckets, l),
			decode:    m.histogram("tgi_batch_decode_duration", "Time spent decoding a batch per method (prefill or decode)", buckets, l),
			deciding:  m.histogram("tgi_batch_filter_duration", "Time spent filtering batches and sending generated tokens per method (prefill or decode)", buckets, l),
		}
	}
	m.addOurs(buckets)
	return m
}

// addOurs adds what TGI does not measure.
func (m *Metrics) addOurs(buckets []float64) {
	m.answers = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "millrace_http_requests_total", Help: "Answered HTTP requests; code 499: the client left, a failed stream has the code of its error",
	}, []string{"route", "method", "code"})
	m.registry.MustRegister(m.answers)
	m.ttft = m.histogram("millrace_time_to_first_token_seconds", "Time from a request's arrival to its first token", buckets, nil)
	m.interToken = m.histogram("millrace_inter_token_latency_seconds", "Time between two tokens of a sequence, as they are computed", buckets, nil)
	m.Total("millrace_prompt_tokens_total", "Tokens of the prompts of all admitted sequences", func(s engine.Stats) int64 { return s.PromptTokens })
	m.Total("millrace_cache_hit_tokens_total", "Prompt tokens found in the prefix cache", func(s engine.Stats) int64 { return s.CachedTokens })
	m.Total("millrace_generated_tokens_total", "Tokens generated", func(s engine.Stats) int64 { return s.GeneratedTokens })
	m.Total("millrace_images_encoded_total", "Images that the vision tower has read", func(s engine.Stats) int64 { return s.ImagesEncoded })
	m.Total("millrace_images_cached_total", "Images of requests whose rows or pages were there already", func(s engine.Stats) int64 { return s.ImagesCached })
	m.Total("millrace_drafted_tokens_total", "Tokens of drafts, with --speculate", func(s engine.Stats) int64 { return s.DraftedTokens })
	m.Total("millrace_accepted_tokens_total", "Tokens of drafts that were generated", func(s engine.Stats) int64 { return s.AcceptedTokens })
	m.Total("millrace_preemptions_total", "Sequences that lost their pages to others and were computed again", func(s engine.Stats) int64 { return s.Preemptions })
	m.gauge("millrace_slots", "Sequences that may run at once; tgi_batch_current_size run", func(s engine.Stats) int { return s.Slots })
	m.gauge("millrace_kv_pages", "Pages of the key-value cache", func(s engine.Stats) int { return s.PagesTotal })
	m.gauge("millrace_kv_pages_used", "Pages of the key-value cache that running sequences hold", func(s engine.Stats) int { return s.PagesUsed })
	m.gauge("millrace_kv_pages_cached", "Pages of the key-value cache that a prompt may find, held or not", func(s engine.Stats) int { return s.PagesCached })
	m.gauge("millrace_states", "States of recurrent layers, 0 for a model without any", func(s engine.Stats) int { return s.StatesTotal })
	m.gauge("millrace_states_used", "States that running sequences hold", func(s engine.Stats) int { return s.States.Used })
	m.gauge("millrace_state_snapshots", "Snapshots of states that a prompt may go on from", func(s engine.Stats) int { return s.States.Cached })
	m.Total("millrace_state_snapshot_queries_total", "Prompts that looked for a snapshot", func(s engine.Stats) int64 { return s.States.Queries })
	m.Total("millrace_state_snapshot_hits_total", "Prompts that found one", func(s engine.Stats) int64 { return s.States.Hits })
	m.Total("millrace_state_snapshot_evictions_total", "Snapshots whose place was needed", func(s engine.Stats) int64 { return s.States.Evicted })
	m.registry.MustRegister(groupMetrics{m.engineStats}, replicaMetrics{m.replicaStats})
	m.Gauge("millrace_kv_usage_ratio", "Part of the key-value cache that running sequences hold, 0 to 1", func() float64 {
		s := m.engineStats()
		return float64(s.PagesUsed) / float64(max(1, s.PagesTotal))
	})
	m.Gauge("go_goroutines", "Goroutines of the process", func() float64 { return float64(runtime.NumGoroutine()) })
	m.registry.MustRegister(collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
}

// durationBuckets are seconds from 0.15 ms to 146 s, each half again the last.
func durationBuckets() []float64 {
	buckets, v := make([]float64, 35), 0.0001
	for i := range buckets {
		v *= 1.5
		buckets[i] = v
	}
	return buckets
}

func (m *Metrics) counter(name, help string, labels prometheus.Labels) prometheus.Counter {
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help, ConstLabels: labels})
	m.registry.MustRegister(c)
	return c
}

func (m *Metrics) histogram(name, help string, buckets []float64, labels prometheus.Labels) prometheus.Histogram {
	h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets, ConstLabels: labels})
	m.registry.MustRegister(h)
	return h
}

// ServeHTTP answers with the metrics in Prometheus' form.
func (m *Metrics) ServeHTTP(w http.ResponseWriter, r *http.Request) { m.handler.ServeHTTP(w, r) }

// engineStats returns the engine's numbers, zeros as long as there is none.
func (m *Metrics) engineStats() engine.Stats {
	m.mu.Lock()
	stats := m.stats
	m.mu.Unlock()
	if stats == nil {
		return engine.Stats{}
	}
	return stats()
}

// replicaStats returns the numbers of each replica, none if there is one engine.
func (m *Metrics) replicaStats() []engine.Stats {
	m.mu.Lock()
	each := m.each
	m.mu.Unlock()
	if each == nil {
		return nil
	}
	return each()
}

// Gauge exports a number that goes up and down.
func (m *Metrics) Gauge(name, help string, value func() float64) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value))
}

// Info exports facts as the labels of a gauge that is always 1.
func (m *Metrics) Info(name, help string, facts map[string]string) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: facts}, func() float64 { return 1 }))
}

// gauge exports a number of the engine's that goes up and down.
func (m *Metrics) gauge(name, help string, value func(engine.Stats) int) {
	m.Gauge(name, help, func() float64 { return float64(value(m.engineStats())) })
}

// Total exports a number of the engine's that only grows.
func (m *Metrics) Total(name, help string, value func(engine.Stats) int64) {
	m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, func() float64 {
		return float64(value(m.engineStats()))
	}))
}

// SetModel adds what depends on the model. It must be called before requests
// are accepted. each returns the numbers of each replica, of which stats has the sums; nil:
// there is one engine.
func (m *Metrics) SetModel(name, revision, hardware string, limits engine.Limits, stats func() engine.Stats, each func() []engine.Stats) {
	m.mu.Lock()
	m.stats, m.each = stats, each
	m.mu.Unlock()
	m.once.Do(func() {
		input := hundredths(limits.MaxInput)
		total := hundredths(limits.MaxTotal)
		m.inputLength = m.histogram("tgi_request_input_length", "Input token length per request", input, nil)
		m.maxNewTokens = m.histogram("tgi_request_max_new_tokens", "Maximum new tokens per request", total, nil)
		m.generatedTokens = m.histogram("tgi_request_generated_tokens", "Generated tokens per request", total, nil)
		m.Info("millrace_model_info", "Name and revision of the model, and the hardware that computes", map[string]string{"model": name, "revision": revision, "hardware": hardware})
	})
}

// hundredths are 100 buckets that reach limit.
func hundredths(limit int) []float64 {
	buckets := make([]float64, 100)
	for i := range buckets {
		buckets[i] = float64(limit) / 100 * float64(i+1)
	}
	return buckets
}

// Expect makes the counter of a route's good answers appear before the first,
// so that the first is an increase.
func (m *Metrics) Expect(route, method string) { m.answers.WithLabelValues(route, method, "200") }

// Answered counts an answer by its route, which must be one of a few.
func (m *Metrics) Answered(route, method string, status int) {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodOptions, http.MethodPut, http.MethodDelete:
	default:
		method = "other"
	}
	code := "200"
	if status != http.StatusOK {
		code = strconv.Itoa(status)
	}
	m.answers.WithLabelValues(route, method, code).Inc()
}

// Received counts a request that asks for generation.
func (m *Metrics) Received() { m.requests.Inc() }

// Accepted records a valid request.
func (m *Metrics) Accepted(req *engine.Request) {
	m.inputLength.Observe(float64(len(req.Tokens)))
	m.maxNewTokens.Observe(float64(req.MaxNewTokens))
}

// Finished records a complete generation.
func (m *Metrics) Finished(t *Timing) {
	m.success.Inc()
	m.duration.Observe(t.Total.Seconds())
	m.validation.Observe(t.Validation.Seconds())
	m.queue.Observe(t.Queue.Seconds())
	m.inference.Observe(t.Inference.Seconds())
	m.perToken.Observe(t.PerToken.Seconds())
	m.generatedTokens.Observe(float64(t.Tokens))
}

// Failed records a request that did not succeed; label "" is not counted.
func (m *Metrics) Failed(label string) {
	if label != "" {
		m.failure.WithLabelValues(label).Inc()
	}
}

// Step implements engine.Observer. What TGI spends on concatenating and
// filtering batches is here the choice of the next step.
func (m *Metrics) Step(i engine.StepInfo) {
	s := &m.steps[i.Method]
	s.count.Inc()
	if i.Err != nil {
		s.failure.Inc()
		return
	}
	s.success.Inc()
	s.inference.Observe((i.Plan + i.Forward + i.Apply).Seconds())
	s.forward.Observe(i.Forward.Seconds())
	s.decode.Observe(i.Apply.Seconds())
	s.deciding.Observe(i.Plan.Seconds())
	// A sequence that computes a token does so in every step, and Forward lasts
	// from the results of one step to those of the next. The step that was
	// launched before a sequence's end was known counts for it as well.
	for range i.Decodes {
		m.interToken.Observe(i.Forward.Seconds())
	}
	for _, accepted := range i.Accepted {
		m.skipped.Observe(float64(accepted))
		for range accepted { // it came with the token before it
			m.interToken.Observe(0)
		}
	}
	if i.Admitted > 0 {
		m.nextSize.Observe(float64(i.Admitted))
		if i.Decodes > 0 {
			m.concat.Inc()
			m.concatDuration.Observe(i.Plan.Seconds())
		}
	}
}
