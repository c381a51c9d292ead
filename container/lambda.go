package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"github.com/millrace-ai/millrace/container/config"
	"github.com/millrace-ai/millrace/container/lambda"
	"github.com/millrace-ai/millrace/container/source"
)

// lambdaCommand are the commands about Lambda.
type lambdaCommand struct {
	Run    lambdaRun    `cmd:"" default:"withargs" help:"Serve as a Lambda function; serve does so by itself where AWS_LAMBDA_RUNTIME_API is set."`
	Deploy lambdaDeploy `cmd:"" help:"Make a function of an image and a model, or change it."`
	Invoke lambdaInvoke `cmd:"" help:"Call a function and print the text."`
	Status lambdaStatus `cmd:"" help:"Show a function, its version, its URL and its failures."`
	Delete lambdaDelete `cmd:"" help:"Delete a function and what was deployed for it; files in S3 stay."`
	Local  lambdaLocal  `cmd:"" help:"Try the function on this machine: a function URL and Lambda's invoke APIs."`
}

// lambdaRun is the command that serves as a function.
type lambdaRun struct{ config.Serve }

// Run serves until Lambda ends the process.
func (c *lambdaRun) Run(ctx *kong.Context, loader *config.Loader) error {
	reportFaults()
	settings, notes, err := loader.Finish(ctx, &c.Serve)
	if err != nil {
		return usageError{err}
	}
	return serveLambda(&c.Serve, settings, notes)
}

// runtimeAPI is the variable with the address of the Lambda Runtime API: where
// it is set, this process is a function.
const runtimeAPI = "AWS_LAMBDA_RUNTIME_API"

// function is what Lambda says about the function that this process is.
type function struct {
	api            string
	initialization string // on-demand, provisioned-concurrency, lambda-managed-instances, snap-start
	memoryMB       int    // 0: unknown
	concurrency    int    // events at once
}

// functionOf reads Lambda's variables.
func functionOf(getenv func(string) string) (f function, err error) {
	f = function{api: getenv(runtimeAPI), initialization: getenv("AWS_LAMBDA_INITIALIZATION_TYPE"), concurrency: 1}
	if f.api == "" {
		return f, fmt.Errorf("%s is not set: this is not a Lambda function; `millrace lambda local` makes one here", runtimeAPI)
	}
	whole := func(name string, n *int) {
		if text := getenv(name); text != "" && err == nil {
			if *n, err = strconv.Atoi(text); err != nil || *n < 1 {
				err = fmt.Errorf("%s=%q: expected a whole number of at least 1", name, text)
			}
		}
	}
	whole("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", &f.memoryMB)
	whole("AWS_LAMBDA_MAX_CONCURRENCY", &f.concurrency)
	return f, err
}

// initLimit is how long after its start the process asks for its first event,
// loaded or not, 0 for no limit. Lambda starts an initialization of more than
// another 10 s; one ahead of any event may take as long as an event, and one on a
// managed instance 130 s. Asking before the model is loaded would then let
// events in, or have the process frozen half-way. A snapshot must have the model.
func (f *function) initLimit() time.Duration {
	switch f.initialization {
	case "provisioned-concurrency", "snap-start":
		return 0
	case "lambda-managed-instances":
		return 2 * time.Minute
	}
	return 8500 * time.Millisecond
}

// choicesOfRequest is how many answers one request may compute together.
const choicesOfRequest = 4

// fit settles what the configuration leaves open for a function: it has as
// many requests and cores as Lambda gives it, and logs at the level of its settings.
func (f *function) fit(cfg *config.Serve, settings []config.Setting, getenv func(string) string) {
	given := func(flag string) bool {
		return slices.ContainsFunc(settings, func(s config.Setting) bool { return s.Flag == flag && s.From != "default" })
	}
	if cfg.MaxBatchSize == 0 {
		cfg.MaxBatchSize = min(defaultSlots, f.concurrency*choicesOfRequest)
	}
	if !given("max-concurrent-requests") {
		cfg.MaxConcurrentRequests = max(cfg.MaxConcurrentRequests, f.concurrency*choicesOfRequest)
	}
	if cfg.Threads == 0 && f.memoryMB > 0 {
		// More threads than that share of the visible cores would be stopped
		// in turn, each while the others wait for it.
		cfg.Threads = min(runtime.NumCPU(), (f.memoryMB+lambda.MegabytesPerCPU-1)/lambda.MegabytesPerCPU)
	}
	if level := strings.ToLower(getenv("AWS_LAMBDA_LOG_LEVEL")); level != "" && !given("log-level") {
		if level == "fatal" {
			level = "error"
		}
		cfg.LogLevel = level
	}
}

// startedError is the end of a function that Lambda knows about already.
type startedError struct{ err error }

func (e startedError) Error() string { return e.err.Error() }
func (e startedError) Unwrap() error { return e.err }

// serveLambda serves as a function: requests come from Lambda instead of a
// port, and the life of the server is the same.
func serveLambda(cfg *config.Serve, settings []config.Setting, notes []string) error {
	f, err := functionOf(os.Getenv)
	if err != nil {
		return usageError{err}
	}
	f.fit(cfg, settings, os.Getenv)
	s, err := newServer(cfg, settings, notes, endSignals())
	if errors.Is(err, errEnded) {
		return nil
	}
	if err != nil {
		return usageError{err}
	}
	defer s.tracing.stop()
	s.memory = int64(f.memoryMB) << 20
	s.warms = f.initialization == "snap-start"
	opt := lambda.Options{
		API:         f.api,
		Handler:     s.hosted(),
		Mode:        lambda.Mode(cfg.LambdaInvokeMode),
		Concurrency: f.concurrency,
		Logger:      s.log,
		Idle: func() {
			s.tracing.flush()
			stderr.flush(idleLines)
		},
		SnapStart:      f.initialization == "snap-start",
		BeforeSnapshot: s.beforeSnapshot,
		AfterRestore:   s.afterRestore,
		Phase: func(name string) {
			s.phases.mark(name)
			switch name {
			case lambda.PhaseAnswered:
				s.log.Info("cold start", s.phases.list()...)
			case lambda.PhaseRestored:
				s.log.Info("restored from a snapshot", s.phases.list()...)
			case lambda.PhaseNext: // the process is frozen until there is an event
				stderr.flush(idleLines)
			}
		},
	}
	if cfg.QueueOutput != "" {
		output, err := source.Deliver(context.Background(), cfg.QueueOutput, s.log)
		if err != nil {
			return usageError{err}
		}
		opt.Deliver = func(ctx context.Context, id string, status int, answer []byte) error {
			if status >= http.StatusBadRequest {
				id = "failed/" + id
			}
			return output.Put(ctx, id+".json", answer)
		}
	}
	if limit := f.initLimit(); limit > 0 {
		opt.InitUntil = processStart.Add(limit)
	}
	r := lambda.New(opt)
	s.log.Info("serving as a Lambda function", "model", modelName(s.place), "initialization", f.initialization, "concurrency", f.concurrency)
	if err = s.run(r); err == nil {
		return nil
	}
	var unloaded usageError
	if errors.As(err, &unloaded) {
		ctx, cancel := context.WithTimeout(context.Background(), lastWrites)
		defer cancel()
		if told := r.Fail(ctx, "Runtime.ModelNotLoaded", err); told != nil {
			s.log.Error("Lambda is not told that the model did not load", "err", told)
		}
	}
	return startedError{err}
}

// tellLambda says why a function did not start, if this process is one.
func tellLambda(err error) {
	api := os.Getenv(runtimeAPI)
	var started startedError
	if api == "" || errors.As(err, &started) {
		return
	}
	if told := lambda.FailInit(api, "Runtime.ConfigInvalid", err); told != nil {
		fmt.Fprintln(stderr, "millrace: Lambda is not told of this:", told)
	}
}
