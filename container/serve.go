package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"github.com/millrace-ai/millrace/container/config"
	"github.com/millrace-ai/millrace/container/source"
	"github.com/millrace-ai/millrace/engine"
	"github.com/millrace-ai/millrace/engine/adapter"
	"github.com/millrace-ai/millrace/handler"
)

// lastWrites is what connections get, after their requests have ended, to take
// the last bytes.
const lastWrites = 3 * time.Second

// server is one serving process, from its configuration to its exit.
type server struct {
	cfg     *config.Serve
	log     *slog.Logger
	place   string // of the model
	model   *model // nil until it is open
	sizing  *sizing
	tracing *tracing
	api     *handler.Server
	phases  phases
	signals chan os.Signal // that end the server
	weigh   bool           // what tells the weights from others is wanted, for prefix files
	memory  int64          // bytes that the platform says this process may have, 0 if it says nothing
	refused error          // why this machine cannot serve, which the port then tells
	warms   bool           // whatever a first request would make or read is to be there before
}

// front is where a server's requests come from: a port, or Lambda.
type front interface {
	// Serve hands requests to the API until Shutdown, which is not an error, or
	// until it fails.
	Serve() error
	// Ready says that the model is there from now on.
	Ready()
	// Shutdown lets no request in any more and returns once all answers are
	// written, or with ctx's error.
	Shutdown(ctx context.Context) error
}

// serveCommand is the command that serves a model, the default.
type serveCommand struct{ config.Serve }

// Run serves: in Lambda as a function, everywhere else on a port.
func (c *serveCommand) Run(ctx *kong.Context, loader *config.Loader) error {
	reportFaults()
	settings, notes, err := loader.Finish(ctx, &c.Serve)
	if err != nil {
		return usageError{err}
	}
	if os.Getenv(runtimeAPI) != "" {
		return serveLambda(&c.Serve, settings, notes)
	}
	return serve(&c.Serve, settings, notes)
}

// parseServe is the configuration of serve with these flags in an environment.
func parseServe(args, environ []string) (*config.Serve, []config.Setting, []string, error) {
	c, loader := &cli{}, config.NewLoader(environ, modelFolders)
	loader.Terminal = isTerminal(os.Stderr)
	parser, err := newParser(c, loader, false)
	if err != nil {
		return nil, nil, nil, err
	}
	ctx, err := parser.Parse(append([]string{"serve"}, args...))
	if err != nil {
		return nil, nil, nil, err
	}
	settings, notes, err := loader.Finish(ctx, &c.Serve.Serve)
	return &c.Serve.Serve, settings, notes, err
}

// endSignals returns the channel of the signals that end a server.
func endSignals() chan os.Signal {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	return signals
}

// serve serves on a port until a signal ends it, which is not an error.
//
// What can be wrong about the command line and the model is found out before
// the port opens, from the files' headers; the port opens before the weights
// are read, so that health checks get an answer meanwhile. A model in S3, in
// an archive or of the Hugging Face hub is opened after that, too: how long that
// takes is not up to this machine.
func serve(cfg *config.Serve, settings []config.Setting, notes []string) error {
	s, err := newServer(cfg, settings, notes, endSignals())
	if errors.Is(err, errEnded) {
		return nil
	}
	if err != nil {
		return usageError{err}
	}
	defer s.tracing.stop()
	p, err := listen(cfg, s.log, s.hosted())
	if err != nil {
		return usageError{err}
	}
	defer p.Close()
	s.log.Info("listening", "url", p.url(), "address", p.listener.Addr().String(), "model", s.name())
	if loud := isTerminal(os.Stderr) && !cfg.JSONOutput; loud {
		p.ready = func() {
			say(fmt.Sprintf("\n  Chat:  %[1]s/playground\n  API:   %[1]s/v1  (described at %[1]s/docs)\n  Stop:  Ctrl-C\n\n", p.url()))
		}
	}
	return s.run(p)
}

// errEnded is that a signal has ended the server, of which the log tells.
var errEnded = errors.New("ended by a signal")

// newServer checks what can be checked at once and makes the API, which has no
// model yet. It returns errEnded if a signal comes first.
func newServer(cfg *config.Serve, settings []config.Setting, notes []string, signals chan os.Signal) (*server, error) {
	s := &server{cfg: cfg, log: newLogger(cfg), signals: signals}
	slog.SetDefault(s.log)
	for _, note := range notes {
		s.log.Warn(note)
	}
	if cfg.Env {
		logSettings(s.log, "configuration", settings)
	}
	if ofFile := slices.DeleteFunc(slices.Clone(settings), func(s config.Setting) bool { return !strings.HasPrefix(s.From, "file ") }); len(ofFile) > 0 {
		logSettings(s.log, "settings of the config file", ofFile)
	}

	var err error
	if s.refused = checkDevice(cfg); s.refused != nil && !cfg.OnSageMaker {
		return nil, s.refused
	}
	if s.place, err = locateModel(cfg.ModelID); err != nil {
		return nil, err
	}
	if cfg.Revision != "" {
		if s.place, err = source.AtRevision(s.place, cfg.Revision); err != nil {
			return nil, fmt.Errorf("--revision: %w", err)
		}
	}
	if s.refused == nil && !arrivesSlowly(s.place) {
		opened := make(chan error, 1)
		go func() { opened <- s.openModel(context.Background()) }()
		select {
		case err := <-opened:
			if err != nil {
				return nil, err
			}
		case sig := <-s.signals: // a folder may be far away, too
			s.log.Info("ending while opening the model", "signal", sig.String())
			return nil, errEnded
		}
	}
	if s.tracing, err = startTracing(cfg, s.log); err != nil {
		return nil, err
	}
	repetition, err := handler.ParseRepetition(cfg.RepetitionDetection)
	if err != nil {
		return nil, fmt.Errorf("--repetition-detection: %w", err)
	}
	var reasoningBudget *int32
	if n := int32(cfg.ReasoningBudget); n >= 0 {
		reasoningBudget = &n
	}
	images, err := newImageFetcher(cfg)
	if err != nil {
		return nil, err
	}
	s.api = handler.New(handler.Options{
		ImageFetcher:           images,
		MaxImages:              cfg.MaxImages,
		MaxImageBytes:          cfg.MaxImageFetchSize,
		ModelID:                s.name(),
		AnyModel:               cfg.AnyModel,
		ModelAlias:             s.place,
		Version:                version,
		SHA:                    revision(),
		PipelineTag:            pipelineTag(s.place),
		DockerLabel:            dockerLabel,
		Device:                 deviceName(cfg),
		ComputeType:            computeType(cfg),
		APIKey:                 cfg.APIKey,
		CORSOrigins:            cfg.CORSAllowOrigin,
		PayloadLimit:           cfg.PayloadLimit,
		MaxConcurrentRequests:  cfg.MaxConcurrentRequests,
		MaxBestOf:              cfg.MaxBestOf,
		MaxStopSequences:       cfg.MaxStopSequences,
		MaxTopNTokens:          cfg.MaxTopNTokens,
		MaxClientBatchSize:     cfg.MaxClientBatchSize,
		ValidationWorkers:      cfg.ValidationWorkers,
		DiscardPrompt:          !cfg.ReturnFullText,
		DisableGrammar:         cfg.DisableGrammarSupport,
		OpenObjects:            cfg.OpenObjects,
		AdapterUpdates:         s.cfg.AllowRuntimeLoraUpdating,
		DefaultMaxTokens:       cfg.DefaultMaxTokens,
		Speculate:              cfg.Speculate > 0,
		Repetition:             repetition,
		ReasoningInText:        cfg.ReasoningFormat == "none",
		ReasoningBudget:        reasoningBudget,
		ReasoningBudgetMessage: "\n\n" + cfg.ReasoningBudgetMessage + "\n",
		ToolCallObject:         cfg.ToolCallFormat == "tgi",
		ErrorObject:            cfg.ErrorFormat == "openai",
		MetricNamespace:        cfg.EMFNamespace,
		Logger:                 s.log,
		LogLinesDropped:        stderr.Dropped,
		Tracer:                 s.tracing.tracer,
	})
	switch { // before the port opens, which can be asked at once
	case s.refused != nil:
		s.api.SetPending(s.refused.Error())
	case s.model == nil:
		s.api.SetPending("opening " + modelName(s.place))
	}
	return s, nil
}

// name is what answers call the model.
func (s *server) name() string { return cmp.Or(s.cfg.ServedModelName, modelName(s.place)) }

// openModel opens the model and fits the flags to it.
func (s *server) openModel(ctx context.Context) error {
	free, _, err := availableMemory(os.DirFS("/"), s.memory, 0)
	if err != nil {
		return err
	}
	place := s.place
	if source.IsHub(place) {
		if place, err = s.download(ctx); err != nil {
			return err
		}
		s.phases.mark("download")
	}
	if s.model, err = openModel(ctx, source.Open, place, s.cfg, free); err != nil {
		return err
	}
	s.phases.mark("open")
	s.model.plan.SetCacheFormat(cacheFormats[s.cfg.KVCacheDtype])
	s.sizing, err = newSizing(s.cfg, s.model.plan)
	return err
}

// run is the life of a server behind a front: load, serve, drain. It ends with
// a signal or with what fails.
func (s *server) run(f front) error {
	broken := make(chan error, 1)
	go func() { broken <- f.Serve() }()
	if s.refused != nil {
		return s.refuse(broken)
	}

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	loading := make(chan error, 1)
	var loaded *loadedModel
	go func() {
		var err error
		loaded, err = s.load(ctx)
		loading <- err
	}()
	select {
	case err := <-loading:
		if err != nil {
			return usageError{err}
		}
	case err := <-broken:
		return err
	case sig := <-s.signals:
		s.log.Info("ending while loading", "signal", sig.String())
		return nil
	}
	defer loaded.close()

	adapters, err := s.newAdapters(loaded)
	if err != nil {
		return usageError{err}
	}
	running := make(chan error, 1)
	go func() { running <- loaded.engine.Run(ctx) }()
	defer func() { // the engine uses the backends, whatever ends the server
		cancel()
		loaded.engine.Drain(ctx) //nolint:errcheck // it is that of ctx
	}()
	preloaded := make(chan error, 1)
	go func() { preloaded <- preload(ctx, adapters) }()
	select {
	case err = <-preloaded:
	case err = <-broken:
	case sig := <-s.signals:
		s.log.Info("ending while loading adapters", "signal", sig.String())
		err = errEnded
	}
	if err != nil {
		cancel()
		if stopped := <-running; stopped != nil {
			err = errors.Join(err, stopped)
		}
		if errors.Is(err, errEnded) {
			return nil
		}
		return usageError{err}
	}
	if s.warms {
		if err = s.warm(ctx, loaded); err != nil {
			return err
		}
	}
	s.api.SetReady(s.ready(loaded, adapters))
	s.phases.mark("ready")
	s.log.Info("ready", loaded.describe()...)
	if s.warms {
		debug.FreeOSMemory() // a snapshot is of what is left
	} else {
		go debug.FreeOSMemory() // what the weights came through
	}
	f.Ready()

	select {
	case err := <-running:
		s.log.Error("the engine has failed", "err", err)
		s.api.Drain()
		s.drainOthers(loaded.engine)
		s.shutdown(f)
		return fmt.Errorf("the engine has failed: %w", err)
	case err := <-broken:
		return err
	case sig := <-s.signals:
		go s.exitOnSecond()
		if s.drain(f, sig, loaded.engine) {
			loaded.compiler.close()
		}
		return nil
	}
}

// refuse answers every request with why this machine cannot serve, until a signal comes.
// On SageMaker a container that ends at once is started again and again, and nobody who
// asks the endpoint learns why.
func (s *server) refuse(broken <-chan error) error {
	s.log.Error("no model is served", "err", s.refused)
	select {
	case err := <-broken:
		return err
	case <-s.signals:
		return usageError{s.refused}
	}
}

// ready is what the API needs of a model to serve it.
func (s *server) ready(l *loadedModel, adapters *adapter.Manager) handler.Model {
	return handler.Model{
		Generator: l.engine,
		Tokenizer: l.tokenizer,
		Template:  l.template,
		Compiler:  l.compiler.get,
		Revision:  modelRevision(s.model.place),
		Hardware:  l.hardware(),
		Replicas:  l.stats(),
		Adapters:  adapters,

		RequestMemory: l.request,
		Sampling:      l.sampling,
		Vision:        l.handlerVision(s.model.seeing),
	}
}

// drain ends the server in order: health checks fail, after a delay no request
// is accepted, running ones go on for a while, then end with an error, and the
// front closes. It reports whether no request is left.
func (s *server) drain(f front, sig os.Signal, e *engine.Replicas) (idle bool) {
	start := time.Now()
	if delay := time.Duration(s.cfg.ShutdownDelay) * time.Second; delay > 0 && os.Getenv(runtimeAPI) == "" {
		s.api.Leave()
		s.log.Info("health checks fail from now on, requests are still accepted", "signal", sig.String(), "seconds", delay.Seconds())
		time.Sleep(delay)
	}
	s.api.Drain()
	s.log.Info("draining", "signal", sig.String(), "running", e.Stats().Running, "timeout_seconds", s.cfg.Drain().Seconds())
	if e.Stats().Running > 0 {
		s.log.Info("a second signal ends the server at once")
	}
	ctx, cancel := context.WithTimeout(context.Background(), s.cfg.Drain())
	defer cancel()
	err := e.Drain(ctx)
	idle = s.shutdown(f)
	s.log.Info("ended", "complete", err == nil, "seconds", time.Since(start).Seconds())
	return idle
}

// shutdown gives the answers being written a moment, and reports whether all
// were written.
func (s *server) shutdown(f front) bool {
	ctx, cancel := context.WithTimeout(context.Background(), lastWrites)
	defer cancel()
	err := f.Shutdown(ctx)
	if err != nil && !errors.Is(err, context.DeadlineExceeded) {
		s.log.Warn("closing connections", "err", err)
	}
	return err == nil
}

// exitOnSecond ends the process at once at a second signal. One right
// after the first does not count: timeout(1) sends it to the process and to
// its group.
func (s *server) exitOnSecond() {
	for first := time.Now(); ; {
		if sig := <-s.signals; time.Since(first) > 100*time.Millisecond {
			s.log.Warn("ended at once by a second signal", "signal", sig.String())
			exit(1)
		}
	}
}
