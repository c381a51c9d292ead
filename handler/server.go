package handler

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace-ai/millrace/engine"
	"github.com/millrace-ai/millrace/engine/adapter"
	"github.com/millrace-ai/millrace/engine/grammar"
	"github.com/millrace-ai/millrace/engine/token"
	"github.com/millrace-ai/millrace/handler/chat"
	"github.com/millrace-ai/millrace/handler/imagefetch"
	"github.com/millrace-ai/millrace/handler/telemetry"
	"github.com/millrace-ai/millrace/internal/web"
)

// Generator is what the routes need from the engine; *engine.Engine is one.
type Generator interface {
	SubmitN(ctx context.Context, req *engine.Request, seeds []uint64) ([]*engine.Stream, error)
	Limits() engine.Limits
	Stats() engine.Stats
	// Stalled returns how long the current step has been running, 0 if none
	// is. It never waits.
	Stalled() time.Duration
}

// Model is what a Server serves once it is ready.
type Model struct {
	Generator Generator
	Tokenizer *token.Tokenizer // encodes prompts, and tells the text of tokens
	Template  *chat.Template   // nil: none
	// Compiler returns the compiler of grammars, which it makes when it is
	// first called; nil: there are no grammars.
	Compiler func() (*grammar.Compiler, error)
	// RequestMemory is how many bytes all requests together may hold: bodies,
	// prompts, answers, and what tokenizing takes; 0: 256 MiB.
	RequestMemory int64
	// Revision is the commit of the hub that the model is, "" if that is unknown.
	Revision string
	// Hardware is the GPU or instruction set that computes, and what of it is not
	// used, for /info and the metrics.
	Hardware string
	// Sampling is what requests of the OpenAI routes get for fields that they
	// leave out.
	Sampling SamplingDefaults
	// Replicas returns the numbers of each engine that the Generator is made of; nil: it
	// is one.
	Replicas func() []engine.Stats
	// Adapters are those that requests may name; nil: none, nor can any be loaded.
	Adapters *adapter.Manager
	// Vision is how it reads images; nil: it reads none.
	Vision *Vision
}

// model is a Model in use.
type model struct {
	gen      Generator
	tok      *token.Tokenizer
	template *chat.Template // without any, its Render says so
	compiler func() (*grammar.Compiler, error)
	limits   engine.Limits
	revision string
	hardware string
	sampling SamplingDefaults
	vision   *Vision

	adapters  *adapter.Manager // knows none if they are not supported
	adaptable bool
}

// Server answers HTTP requests. Make one with New, give it its model with
// SetReady. It is an http.Handler.
type Server struct {
	opt      Options
	metrics  *telemetry.Metrics
	reporter telemetry.Reporter
	routes   http.Handler

	bodyPatience  time.Duration // for a whole body to arrive
	writePatience time.Duration // for a client to take what is written

	computeType []string      // the header's value
	servedAs    []byte        // the members of OpenAI answers that name the model and this program
	document    func() []byte // the OpenAPI document, made when first asked for

	model    atomic.Pointer[model]  // nil: not ready
	pending  atomic.Pointer[string] // why it is not
	draining atomic.Bool
	leaving  atomic.Bool  // to be drained soon
	permits  atomic.Int64 // generations in progress
	memory   memory       // what requests hold
	images   *imagefetch.Fetcher
	sizes    sizes        // of images
	requests atomic.Int64 // that the engine was given
}

// New returns a Server that is not ready.
func New(opt Options) *Server {
	opt = opt.withDefaults()
	s := &Server{
		opt:           opt,
		metrics:       telemetry.NewMetrics(),
		bodyPatience:  web.BodyPatience,
		writePatience: web.WritePatience,
		computeType:   []string{opt.ComputeType},
		servedAs:      appendServedAs(nil, opt.ModelID, &opt),
	}
	s.images = newImageFetcher(&opt)
	s.reporter = telemetry.Reporter{Metrics: s.metrics, Logger: opt.Logger, Tracer: opt.Tracer, ModelID: opt.ModelID, Namespace: opt.MetricNamespace}
	s.metrics.Total("millrace_log_lines_dropped_total", "Lines of the log that were dropped because nothing read them", func(engine.Stats) int64 { return opt.LogLinesDropped() })
	s.addState()
	s.observeAdapters()
	s.document = sync.OnceValue(func() []byte { return newDocument(&opt) })
	s.memory.setSize(defaultRequestMemory, opt.ValidationWorkers)
	s.memory.observe(s.metrics)
	s.SetPending("starting")
	s.routes = s.newRoutes()
	return s
}

// addState adds to the metrics what the Server is and what it is doing.
func (s *Server) addState() {
	s.metrics.Info("millrace_build_info", "Version and commit of Millrace, and what computes", map[string]string{
		"version": s.opt.Version, "commit": s.opt.SHA, "device": s.opt.Device,
	})
	gauge := func(name, help string, is func() bool) {
		s.metrics.Gauge(name, help, func() float64 {
			if is() {
				return 1
			}
			return 0
		})
	}
	gauge("millrace_ready", "1 while the model is loaded and requests are accepted, else 0", func() bool {
		_, err := s.ready()
		return err == nil
	})
	gauge("millrace_draining", "1 once the server has been told to end, else 0", s.draining.Load)
}

// Metrics returns the Server's metrics, which also observe the engine.
func (s *Server) Metrics() *telemetry.Metrics { return s.metrics }

// SetPending says what a Server that is not ready waits for, as health checks
// and refused clients are told: "loading weights".
func (s *Server) SetPending(reason string) { s.pending.Store(&reason) }

// SetReady makes the Server serve m.
func (s *Server) SetReady(m Model) {
	limits := m.Generator.Limits()
	s.metrics.SetModel(s.opt.ModelID, m.Revision, m.Hardware, limits, m.Generator.Stats, m.Replicas)
	if m.Template == nil {
		m.Template = new(chat.Template)
	}
	if m.RequestMemory > 0 {
		s.memory.setSize(m.RequestMemory, s.opt.ValidationWorkers)
	}
	adaptable := m.Adapters != nil
	if !adaptable {
		m.Adapters = adapter.NewManager(adapter.Options{})
	}
	s.model.Store(&model{adapters: m.Adapters, adaptable: adaptable, gen: m.Generator, tok: m.Tokenizer, template: m.Template, compiler: m.Compiler, limits: limits, revision: m.Revision, hardware: m.Hardware, sampling: m.Sampling, vision: m.Vision})
}

// Leave makes /ping and /health fail, so that load balancers look for another
// server. Work is still accepted.
func (s *Server) Leave() { s.leaving.Store(true) }

// Drain refuses all work that comes from now on and makes /ping and /health
// fail; what runs goes on. Waiting for it is http.Server.Shutdown's.
func (s *Server) Drain() { s.draining.Store(true) }

// ready returns the model, or why there is none to use.
func (s *Server) ready() (*model, error) {
	m := s.model.Load()
	switch {
	case s.draining.Load():
		return nil, unavailable("The server is shutting down")
	case m == nil:
		return nil, unavailable("The model is not ready: %s", *s.pending.Load())
	}
	return m, nil
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.setHeaders(w.Header(), r)
	s.routes.ServeHTTP(w, r)
}

// NewHTTPServer returns an http.Server for h on addr: HTTP/1.1 and HTTP/2,
// also in clear with prior knowledge, and limits on what a slow client can
// hold. An answer may take as long as it needs: Server moves the deadline for
// writing along.
func NewHTTPServer(addr string, h http.Handler) *http.Server {
	srv := &http.Server{
		Addr:                         addr,
		Handler:                      AnswerEarly(h),
		ConnContext:                  withConn,
		ReadHeaderTimeout:            10 * time.Second,
		ReadTimeout:                  web.BodyPatience, // for a body that no handler gets to see; AnswerEarly lifts it
		WriteTimeout:                 web.WritePatience,
		IdleTimeout:                  3 * time.Minute,
		MaxHeaderBytes:               64 << 10,
		DisableGeneralOptionsHandler: true, // OPTIONS * is answered as other preflights are
		Protocols:                    new(http.Protocols),
	}
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetHTTP2(true)
	srv.Protocols.SetUnencryptedHTTP2(true)
	return srv
}
