package main

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/millrace-ai/millrace/container/lambda"
	"github.com/millrace-ai/millrace/container/lambda/emulator"
	"github.com/millrace-ai/millrace/handler"
)

// lambdaLocal is the command that is Lambda on this machine.
type lambdaLocal struct {
	Image string   `name:"image" placeholder:"IMAGE" help:"Run this image by docker as Lambda does. Default: this program, as a child process."`
	Args  []string `arg:"" optional:"" placeholder:"ARGS" help:"After --: flags of serve for the function; with --image, the command of the image."`

	Port        int           `name:"port" env:"-" default:"9090" help:"Port of 127.0.0.1 for the function URL and the invoke APIs, 0 for a free one."`
	Function    string        `name:"function" default:"millrace" help:"Name of the function."`
	Timeout     time.Duration `name:"timeout" default:"30s" help:"An event must be answered."`
	InitTimeout time.Duration `name:"init-timeout" placeholder:"10s" help:"The function must ask for its first event, or starts again during the event. Default: 10s; with --concurrency or --snap-start, 130s or --timeout if that is longer."`
	Memory      int           `name:"memory" default:"4096" placeholder:"MB" help:"Memory of the function, which an image is held to; 1769 MB buy a core."`
	Concurrency int           `name:"concurrency" default:"1" help:"Events that the function takes at once; more than one as on managed instances, where it is not frozen between events."`
	URLMode     string        `name:"url-mode" enum:"buffered,stream" default:"buffered" help:"Invoke mode of the function URL: buffered is AWS's default; stream is RESPONSE_STREAM, and sets LAMBDA_INVOKE_MODE=stream for the function unless --env does."`
	SnapStart   bool          `name:"snap-start" help:"Restore the function from a snapshot that is taken before its first event, as SnapStart does. Where criu works, each restoration is a copy of the same snapshot; else the process is stopped and goes on, and the next one is initialized again."`
	Env         []string      `name:"env" env:"-" sep:"none" placeholder:"K=V" help:"Variable for the function; may be given several times."`
}

// The bounds of what Lambda lets a function have.
const (
	leastFunctionMB = 128
	mostFunctionMB  = 32 << 10 // on managed instances
	mostTimeout     = 90 * time.Minute
	mostConcurrency = 1600
)

func (l *lambdaLocal) check() error {
	switch {
	case l.Port < 0 || l.Port > 65535:
		return fmt.Errorf("--port=%d: expected 0 to 65535", l.Port)
	case l.Memory < leastFunctionMB || l.Memory > mostFunctionMB:
		return fmt.Errorf("--memory=%d: expected %d to %d, in MB", l.Memory, leastFunctionMB, mostFunctionMB)
	case l.Concurrency < 1 || l.Concurrency > mostConcurrency:
		return fmt.Errorf("--concurrency=%d: expected 1 to %d", l.Concurrency, mostConcurrency)
	case l.SnapStart && l.Concurrency > 1:
		return fmt.Errorf("--snap-start, --concurrency=%d: Lambda takes no snapshots on managed instances", l.Concurrency)
	case l.Timeout < time.Second || l.Timeout > mostTimeout:
		return fmt.Errorf("--timeout=%s: expected 1s to %s", l.Timeout, mostTimeout)
	case l.InitTimeout < 0:
		return fmt.Errorf("--init-timeout=%s: expected a time", l.InitTimeout)
	case l.Function == "" || strings.ContainsAny(l.Function, ":/ "):
		return fmt.Errorf("--function=%q: expected a name", l.Function)
	}
	return nil
}

// initTimeout is Lambda's unless given.
func (l *lambdaLocal) initTimeout() time.Duration {
	def := 10 * time.Second
	if l.Concurrency > 1 || l.SnapStart {
		def = max(130*time.Second, l.Timeout)
	}
	return cmp.Or(l.InitTimeout, def)
}

// Run serves the function until ctx ends.
func (l *lambdaLocal) Run(ctx context.Context) error {
	if err := l.check(); err != nil {
		return usageError{fmt.Errorf("lambda local: %w", err)}
	}
	launcher, err := l.launcher()
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(l.Port)))
	if err != nil {
		return usageError{fmt.Errorf("lambda local: %w", err)}
	}
	region := cmp.Or(os.Getenv("AWS_REGION"), "us-east-1")
	function := emulator.New(emulator.Options{
		Function: l.Function, Region: region, MemoryMB: l.Memory,
		Timeout: l.Timeout, InitTimeout: l.initTimeout(), Concurrency: l.Concurrency,
		StreamURL: l.URLMode == "stream", SnapStart: l.SnapStart, Launcher: launcher, Log: os.Stderr,
	})
	defer function.Close()
	if l.SnapStart {
		if err := function.Publish(); err != nil {
			return usageError{fmt.Errorf("lambda local: no version can be published: %w", err)}
		}
	}
	server := &http.Server{Handler: handler.AnswerEarly(function), ReadHeaderTimeout: 10 * time.Second}
	broken := make(chan error, 1)
	go func() { broken <- server.Serve(listener) }()
	defer server.Close()
	l.announce("http://"+listener.Addr().String(), region)
	select {
	case err := <-broken:
		return fmt.Errorf("lambda local: %w", err)
	case <-ctx.Done():
		return nil
	}
}

func (l *lambdaLocal) launcher() (emulator.Launcher, error) {
	if l.Image != "" {
		return &emulator.Docker{Image: l.Image, Args: l.Args, Env: l.variables(), MemoryMB: l.Memory}, nil
	}
	path, err := os.Executable()
	if err != nil {
		return nil, err
	}
	// Not what a Lambda function around this very command would have.
	env := slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "AWS_LAMBDA_") })
	criu := ""
	if l.SnapStart {
		criu = emulator.FindCRIU()
	}
	return &emulator.Process{CRIU: criu, Path: path, Args: append([]string{"lambda"}, l.Args...), Env: append(env, l.variables()...)}, nil
}

// variables are the function's own. A URL that streams needs a function that
// does: the Terraform module sets both as well.
func (l *lambdaLocal) variables() []string {
	if l.URLMode != "stream" {
		return l.Env
	}
	return append([]string{"LAMBDA_INVOKE_MODE=" + string(lambda.Stream)}, l.Env...)
}

// announce says how to call the function, in one line that scripts may read.
func (l *lambdaLocal) announce(url, region string) {
	path := "generate"
	if l.URLMode == "stream" {
		path = "generate_stream"
	}
	fmt.Printf("function %[1]s: export AWS_ENDPOINT_URL_LAMBDA=%[2]s AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local AWS_REGION=%[3]s AWS_DEFAULT_REGION=%[3]s; "+
		"echo '{\"inputs\": \"Hello\"}' | aws lambda invoke --function-name %[1]s --payload fileb:///dev/stdin /dev/stdout; "+ // by either version of the CLI
		"curl -N %[2]s/%[4]s -H 'Content-Type: application/json' -d '{\"inputs\": \"Hello\"}'\n", l.Function, url, region, path)
}
