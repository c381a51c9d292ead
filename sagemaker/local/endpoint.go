package local

import (
	"context"
	"fmt"
	"net/http"
	"sync/atomic"

	"github.com/google/uuid"
)

// Endpoint is an emulated endpoint. Its methods may be called at the same time.
type Endpoint struct {
	cfg     Config
	fleet   *fleet
	metrics metrics
	queue   queue // of asynchronous requests

	streams atomic.Uint64 // begun so far
}

// New returns an endpoint that serves once Run has started its instances.
func New(cfg Config) (*Endpoint, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	e := &Endpoint{cfg: cfg}
	e.fleet = newFleet(&e.cfg)
	return e, e.queue.open(e)
}

// Handler serves the runtime API, for whose bidirectional streams the server
// should speak HTTP/2 as well, GET /metrics, and GET /ping, which is 200
// while the endpoint is in service.
func (e *Endpoint) Handler() http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("POST /endpoints/{endpoint}/invocations", e.invoke)
	m.HandleFunc("POST /endpoints/{endpoint}/invocations-response-stream", e.invokeStream)
	m.HandleFunc("POST /endpoints/{endpoint}/invocations-bidirectional-stream", e.invokeDuplex)
	m.HandleFunc("POST /endpoints/{endpoint}/async-invocations", e.invokeAsync)
	m.HandleFunc("POST /endpoints/{endpoint}/openai/v1/chat/completions", e.chat)
	m.HandleFunc("POST /endpoints/{endpoint}/inference-components/{component}/openai/v1/chat/completions", e.chat)
	m.HandleFunc("GET /metrics", e.writeMetrics)
	m.HandleFunc("GET /ping", func(w http.ResponseWriter, _ *http.Request) {
		if !e.fleet.inService() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	m.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		f := &fault{kind: "UnknownOperationException", status: http.StatusNotFound,
			message: fmt.Sprintf("%s %s is not an operation of the SageMaker runtime API.", r.Method, r.URL.Path)}
		f.write(w)
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Amzn-RequestId", uuid.NewString())
		m.ServeHTTP(w, r)
	})
}

// Run starts the instances, calls ready once all are in service, keeps them
// alive until ctx ends, and stops them. It returns once all have ended.
//
// An error says why the endpoint did not come into service.
func (e *Endpoint) Run(ctx context.Context, ready func()) (*Summary, error) {
	err := e.fleet.run(ctx, func(ctx context.Context) {
		ready()
		e.queue.serve(ctx)
	})
	if err != nil {
		return nil, err
	}
	return e.fleet.summary(), nil
}

// Kill ends all containers at once, for an operator who does not want to wait
// until Run has stopped them in order.
func (e *Endpoint) Kill() { e.fleet.kill() }
