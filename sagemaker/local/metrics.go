package local

import (
	"fmt"
	"net/http"
	"sync/atomic"
)

// metrics count what CloudWatch would show in the namespace AWS/SageMaker.
type metrics struct {
	invocations     atomic.Int64
	concurrent      atomic.Int64
	errors4XX       atomic.Int64
	errors5XX       atomic.Int64
	modelErrors     atomic.Int64
	midStreamErrors atomic.Int64
}

func (m *metrics) enter() {
	m.invocations.Add(1)
	m.concurrent.Add(1)
}

func (m *metrics) leave()          { m.concurrent.Add(-1) }
func (m *metrics) midStreamError() { m.midStreamErrors.Add(1) }

func (m *metrics) fault(f *fault) {
	switch {
	case f.model:
		m.modelErrors.Add(1)
	case f.status >= 500:
		m.errors5XX.Add(1)
	default:
		m.errors4XX.Add(1)
	}
}

// writeMetrics is GET /metrics: CloudWatch's metrics under their own names, in
// Prometheus' text format, and how busy each instance is.
func (e *Endpoint) writeMetrics(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	labels := fmt.Sprintf("EndpointName=%q,VariantName=%q", e.cfg.Name, e.cfg.Variant)
	for _, m := range []struct {
		name, kind string
		value      int64
	}{
		{"ConcurrentRequestsPerModel", "gauge", e.metrics.concurrent.Load()},
		{"ApproximateBacklogSize", "gauge", e.queue.backlog.Load()},
		{"Invocations", "counter", e.metrics.invocations.Load()},
		{"Invocation4XXErrors", "counter", e.metrics.errors4XX.Load()},
		{"Invocation5XXErrors", "counter", e.metrics.errors5XX.Load()},
		{"InvocationModelErrors", "counter", e.metrics.modelErrors.Load()},
		{"MidStreamErrors", "counter", e.metrics.midStreamErrors.Load()},
	} {
		fmt.Fprintf(w, "# TYPE %s %s\n%[1]s{%[3]s} %d\n", m.name, m.kind, labels, m.value)
	}
	fmt.Fprintf(w, "# TYPE OutstandingRequests gauge\n")
	e.fleet.mu.Lock()
	defer e.fleet.mu.Unlock()
	for _, in := range e.fleet.instances {
		if in != nil {
			fmt.Fprintf(w, "OutstandingRequests{%s,Instance=\"%d\",State=%q} %d\n", labels, in.number, in.state, in.outstanding)
		}
	}
}
