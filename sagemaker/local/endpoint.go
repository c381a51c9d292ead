package local

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"

	"github.com/google/uuid"
)

// phase is where an endpoint is in its life.
type phase int

const (
	creating phase = iota
	inService
	deleting
)

// Endpoint is an emulated endpoint. Its methods may be called at the same time.
type Endpoint struct {
	cfg     Config
	metrics metrics
	queue   queue // of asynchronous requests

	mu        sync.Mutex
	phase     phase
	instances []*instance // by number less one; nil before the first start
	sessions  map[string]stickiness
	refused   map[string]string // adapter → why the container does not serve it
	rng       *rand.Rand
	streams   uint64
	stopped   []Stopped // instances that have ended, in order
}

// New returns an endpoint that serves once Run has started its instances.
func New(cfg Config) (*Endpoint, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	e := &Endpoint{
		cfg:       cfg,
		instances: make([]*instance, cfg.Instances),
		sessions:  map[string]stickiness{},
		refused:   map[string]string{},
		rng:       rand.New(rand.NewPCG(cfg.Seed, 1)),
	}
	return e, e.queue.open(e)
}

// Handler serves the runtime API, GET /metrics, and GET /ping, which is 200
// while the endpoint is in service.
func (e *Endpoint) Handler() http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("POST /endpoints/{endpoint}/invocations", e.invoke)
	m.HandleFunc("POST /endpoints/{endpoint}/invocations-response-stream", e.invokeStream)
	m.HandleFunc("POST /endpoints/{endpoint}/async-invocations", e.invokeAsync)
	m.HandleFunc("POST /endpoints/{endpoint}/openai/v1/chat/completions", e.chat)
	m.HandleFunc("POST /endpoints/{endpoint}/inference-components/{component}/openai/v1/chat/completions", e.chat)
	m.HandleFunc("GET /metrics", e.writeMetrics)
	m.HandleFunc("GET /ping", func(w http.ResponseWriter, _ *http.Request) {
		if !e.inService() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	m.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		f := &fault{kind: "UnknownOperationException", status: http.StatusNotFound,
			message: fmt.Sprintf("%s %s is no operation of the SageMaker runtime API.", r.Method, r.URL.Path)}
		f.write(w)
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Amzn-RequestId", uuid.NewString())
		m.ServeHTTP(w, r)
	})
}

func (e *Endpoint) inService() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.phase == inService
}

// Run starts the instances, calls ready once all are in service, keeps them
// alive until ctx ends, and stops them. It returns once all have ended.
//
// An error says why the endpoint did not come into service.
func (e *Endpoint) Run(ctx context.Context, ready func()) (*Summary, error) {
	// Callers hear that the endpoint is being deleted before its instances stop.
	keeping, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() {
		e.setPhase(deleting)
		cancel()
	})()
	var keepers sync.WaitGroup
	started := make(chan error, e.cfg.Instances)
	for number := 1; number <= e.cfg.Instances; number++ {
		keepers.Go(func() { e.keep(keeping, number, started) })
	}
	var failure error
	for range e.cfg.Instances {
		if err := <-started; err != nil && failure == nil {
			failure = err
			cancel()
		}
	}
	if failure == nil {
		e.setPhase(inService)
		ready()
		keepers.Go(func() { e.queue.serve(keeping) })
		<-keeping.Done()
	}
	e.setPhase(deleting)
	keepers.Wait()
	if failure != nil && !errors.Is(failure, context.Canceled) {
		return nil, failure
	}
	return e.summary(), nil
}

func (e *Endpoint) setPhase(p phase) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.phase = p
}

// Kill ends all containers at once, for an operator who does not want to wait
// until Run has stopped them in order.
func (e *Endpoint) Kill() {
	e.mu.Lock()
	instances := slices.Clone(e.instances)
	e.mu.Unlock()
	for _, in := range instances {
		if in != nil {
			in.container.Kill()
		}
	}
}

// checkComponent refuses a call for an inference component that the endpoint
// does not have, or that could not be created.
func (e *Endpoint) checkComponent(name string) *fault {
	_, adapter := e.cfg.Adapters[name]
	switch {
	case name == "" && e.cfg.Component != "":
		f := invalid("Inference Component Name header is required for endpoints to which you plan to deploy inference components. " +
			"Please include Inference Component Name header or consider using SageMaker models.")
		f.code = "INFERENCE_COMPONENT_NAME_MISSING"
		return f
	case name == "" || name == e.cfg.Component:
		return nil
	case adapter:
		e.mu.Lock()
		defer e.mu.Unlock()
		if why, bad := e.refused[name]; bad {
			return invalid("Inference Component %s is not in service. Its creation failed: %s", name, why)
		}
		return nil
	case e.cfg.Component == "" && len(e.cfg.Adapters) == 0:
		return invalid("Endpoint %s does not host inference components. Please remove the Inference Component Name header and try again.", e.cfg.Name)
	}
	return invalid("Inference Component %s of account %s not found.", name, e.cfg.Account)
}

// who is the name of the container in messages to the caller.
func (c *call) who() string {
	if c.component != "" {
		return c.component
	}
	return "primary"
}
