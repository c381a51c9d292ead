package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/millrace-ai/millrace/container/source"
	"github.com/millrace-ai/millrace/handler"
	"github.com/millrace-ai/millrace/sagemaker/local"
)

// sageMakerLocal is the command that puts SageMaker's runtime API in front of
// containers on this machine.
type sageMakerLocal struct {
	Image string   `name:"image" xor:"what" placeholder:"IMAGE" help:"Run this image by docker as SageMaker does. Default: this program, as a child process."`
	URL   []string `name:"url" xor:"what" placeholder:"URL" help:"Servers that run already, one instance each; may be given several times."`
	Args  []string `arg:"" optional:"" placeholder:"ARGS" help:"After --: flags of serve for the containers."`

	Model       string            `name:"model" placeholder:"FOLDER" help:"Model: a folder, mounted read-only at /opt/ml/model with --image, or s3://BUCKET/PREFIX."`
	Endpoint    string            `name:"endpoint" default:"millrace" help:"Name of the endpoint."`
	Variant     string            `name:"variant" default:"AllTraffic" help:"Name of its production variant."`
	Component   string            `name:"inference-component" placeholder:"NAME" help:"Inference component that the containers are copies of; calls must then name it."`
	Adapter     map[string]string `name:"adapter" mapsep:"none" placeholder:"NAME=FOLDER" help:"Inference component that is a LoRA adapter; may be given several times."`
	Hostname    string            `name:"hostname" env:"-" default:"127.0.0.1" help:"Address to listen on."`
	Port        int               `name:"port" env:"-" default:"8090" help:"Port to listen on, 0 for a free one."`
	TLSCert     string            `name:"tls-cert" type:"path" placeholder:"FILE" help:"Serve HTTPS with this certificate (PEM): SDKs call for bidirectional streams over HTTP/2, which most of them speak only there."`
	TLSKey      string            `name:"tls-key" type:"path" placeholder:"FILE" help:"The certificate's key (PEM)."`
	Instances   int               `name:"instances" default:"1" help:"Containers to start."`
	Routing     string            `name:"routing-strategy" enum:"LEAST_OUTSTANDING_REQUESTS,RANDOM,PREFIX_AWARE" default:"LEAST_OUTSTANDING_REQUESTS" help:"Which of them gets a call: ${enum}."`
	Prefix      int               `name:"prefix-length" placeholder:"1024" help:"With PREFIX_AWARE, which needs it: calls with the same first bytes go to the same container, chats of the OpenAI-compatible API with the same first characters of their messages. 1024 to 65536."`
	Threshold   int               `name:"concurrency-threshold" placeholder:"N" help:"With PREFIX_AWARE, which needs it: a container with so many calls gets no more for its prefixes. 1 to 1024."`
	Env         []string          `name:"env" env:"-" sep:"none" placeholder:"K=V" help:"Variable for the containers; may be given several times."`
	NetworkNone bool              `name:"network-none" help:"Network isolation: no way out of the containers (--image), no AWS credentials in them."`
	Memory      string            `name:"memory" placeholder:"8g" help:"Memory of a container, with --image."`
	CPUs        string            `name:"cpus" placeholder:"4" help:"CPUs of a container, with --image."`

	UnaryTimeout   time.Duration `name:"unary-timeout" default:"60s" help:"Longest wait for a complete answer that is not a stream."`
	StreamTimeout  time.Duration `name:"stream-timeout" default:"8m" help:"A stream must have ended."`
	StartupTimeout time.Duration `name:"startup-timeout" default:"8m" help:"A container must be healthy."`
	Seed           uint64        `name:"seed" default:"1" help:"Of the places where streams are cut into parts."`
	Output         string        `name:"output" type:"path" placeholder:"FOLDER" help:"Folder that stands for S3, s3://BUCKET/KEY being FOLDER/BUCKET/KEY. Turns asynchronous invocations on."`
}

// Run serves the endpoint until ctx ends, then stops the containers.
func (l *sageMakerLocal) Run(ctx context.Context) error {
	cfg, closeLauncher, err := l.config(ctx)
	if err != nil {
		return err
	}
	defer closeLauncher()
	endpoint, err := local.New(cfg)
	if err != nil {
		return usageError{fmt.Errorf("sagemaker local: %w", err)}
	}
	listener, err := net.Listen("tcp", net.JoinHostPort(l.Hostname, fmt.Sprint(l.Port)))
	if err != nil {
		return usageError{fmt.Errorf("sagemaker local: %w", err)}
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{Handler: handler.AnswerEarly(endpoint.Handler()), ReadHeaderTimeout: 10 * time.Second, Protocols: protocols}
	if l.TLSCert != "" {
		pair, err := tls.LoadX509KeyPair(l.TLSCert, l.TLSKey)
		if err != nil {
			listener.Close()
			return usageError{fmt.Errorf("sagemaker local: --tls-cert=%s --tls-key=%s: %w", l.TLSCert, l.TLSKey, err)}
		}
		server.TLSConfig = &tls.Config{Certificates: []tls.Certificate{pair}}
		protocols.SetHTTP2(true)
	}
	broken := make(chan error, 1)
	go func() {
		if server.TLSConfig != nil {
			broken <- server.ServeTLS(listener, "", "")
			return
		}
		broken <- server.Serve(listener)
	}()
	defer server.Close()

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		if err := <-broken; !errors.Is(err, http.ErrServerClosed) {
			cfg.Log.Error("the port has failed", "err", err)
			cancel()
		}
	}()
	defer killOnSecondSignal(ctx, endpoint)()
	summary, err := endpoint.Run(ctx, func() { l.announce(os.Stdout, listener.Addr().String(), cfg.Region) })
	if err != nil {
		return fmt.Errorf("endpoint %s: Failed: %w", l.Endpoint, err)
	}
	last, stop := context.WithTimeout(context.Background(), lastWrites)
	defer stop()
	_ = server.Shutdown(last) // what is left then are callers that do not read
	for i := range summary.Instances {
		s := &summary.Instances[i]
		fmt.Printf("instance %d: %s\n", s.Instance, s)
	}
	if !summary.Clean() {
		return errors.New("sagemaker local: not every instance ended in order")
	}
	return nil
}

// killOnSecondSignal ends the containers at once if the operator insists after
// ctx has ended. The same signal at once does not count: timeout(1) sends it
// to the process and to its group. The function it returns undoes it.
func killOnSecondSignal(ctx context.Context, endpoint *local.Endpoint) (undo func()) {
	done := make(chan struct{})
	go func() {
		select {
		case <-done:
			return
		case <-ctx.Done():
		}
		select {
		case <-done:
			return
		case <-time.After(time.Second):
		}
		signals := make(chan os.Signal, 1)
		signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
		defer signal.Stop(signals)
		select {
		case <-signals:
			endpoint.Kill()
		case <-done:
		}
	}()
	return func() { close(done) }
}

// announce says how to call the endpoint. The first line is for scripts, too.
func (l *sageMakerLocal) announce(w io.Writer, address, region string) {
	at := "http://" + address
	if l.TLSCert != "" {
		at = "https://" + address
	}
	fmt.Fprintf(w, `endpoint %[1]s is in service: export AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME=%[2]s AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local AWS_REGION=%[3]s AWS_DEFAULT_REGION=%[3]s
  boto3.client("sagemaker-runtime").invoke_endpoint(EndpointName="%[1]s", ContentType="application/json", Body='{"inputs": "Hello"}')["Body"].read()
  OpenAI(base_url="%[2]s/endpoints/%[1]s/openai/v1", api_key="%[4]s")
  curl %[2]s/endpoints/%[1]s/invocations -H 'Content-Type: application/json' -d '{"inputs": "Hello"}'
`, l.Endpoint, at, region, local.SampleKey)
}

// config makes the endpoint's configuration and opens its launcher.
func (l *sageMakerLocal) config(ctx context.Context) (cfg local.Config, closeLauncher func(), err error) {
	if err := l.check(); err != nil {
		return cfg, nil, usageError{fmt.Errorf("sagemaker local: %w", err)}
	}
	region := os.Getenv("AWS_REGION")
	if region == "" {
		region = "us-east-1"
	}
	cfg = local.Config{
		Name:      l.Endpoint,
		Variant:   l.Variant,
		Region:    region,
		Instances: l.Instances,
		Routing:   local.Routing{Strategy: l.Routing, PrefixLength: l.Prefix, ConcurrencyThreshold: l.Threshold},
		Component: l.Component,
		Adapters:  l.Adapter,
		Store:     l.Output,
		Seed:      l.Seed,
		Log:       slog.New(slog.NewTextHandler(os.Stderr, nil)),
		Limits:    local.Limits{Unary: l.UnaryTimeout, Stream: l.StreamTimeout, Startup: l.StartupTimeout},
	}
	closeLauncher = func() {}
	switch {
	case len(l.URL) > 0:
		var servers local.Servers
		for _, u := range l.URL {
			parsed, err := url.Parse(u)
			if err != nil || parsed.Scheme != "http" || parsed.Host == "" || strings.Trim(parsed.Path, "/") != "" {
				return cfg, nil, usageError{fmt.Errorf("sagemaker local: --url=%s: expected http://HOST:PORT", u)}
			}
			servers = append(servers, parsed.Host)
		}
		cfg.Launcher, cfg.Instances = servers, len(servers)
	case l.Image != "":
		docker := l.docker(&cfg)
		closeLauncher = func() {
			if err := docker.Close(); err != nil {
				cfg.Log.Warn("remove the network", "err", err)
			}
		}
		if err := docker.Open(ctx); err != nil {
			return cfg, nil, fmt.Errorf("sagemaker local: %w", err)
		}
		cfg.Launcher = docker
	default:
		self, err := os.Executable()
		if err != nil {
			return cfg, nil, err
		}
		env := append([]string{"HOSTNAME=127.0.0.1"}, l.platformEnv(region)...)
		for _, name := range []string{"PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH"} {
			if v, ok := os.LookupEnv(name); ok {
				env = append(env, name+"="+v)
			}
		}
		if l.Model != "" {
			env = append(env, "MODEL_ID="+l.Model)
		}
		cfg.Launcher = &local.Processes{
			Path: self, Args: append([]string{"serve"}, l.Args...), Env: append(env, l.Env...), Log: os.Stderr,
		}
	}
	return cfg, closeLauncher, nil
}

func (l *sageMakerLocal) check() error {
	switch {
	case l.Instances < 1:
		return fmt.Errorf("--instances=%d: must be at least 1", l.Instances)
	case (l.TLSCert == "") != (l.TLSKey == ""):
		return errors.New("--tls-cert and --tls-key belong together")
	case l.Image == "" && (l.Memory != "" || l.CPUs != ""):
		return errors.New("--memory and --cpus need --image")
	case len(l.URL) > 0 && (l.Model != "" || len(l.Env) > 0 || len(l.Args) > 0 || l.NetworkNone):
		return errors.New("--url is a server that runs already: --model, --env, --network-none and flags after -- have no effect on it")
	case source.IsS3(l.Model) && l.NetworkNone:
		return fmt.Errorf("--model=%s: cannot be read without a network; get it first: millrace pull %[1]s FOLDER", l.Model)
	case l.UnaryTimeout <= 0 || l.StreamTimeout <= 0 || l.StartupTimeout <= 0:
		return errors.New("--unary-timeout, --stream-timeout and --startup-timeout must be positive")
	}
	if l.Image != "" {
		// Docker would make a folder that is not there.
		mounts := map[string]string{}
		for name, folder := range l.Adapter {
			mounts["--adapter="+name] = folder
		}
		if l.Model != "" && !source.IsS3(l.Model) {
			mounts["--model"] = l.Model
		}
		for flag, folder := range mounts {
			if info, err := os.Stat(folder); err != nil || !info.IsDir() {
				return fmt.Errorf("%s=%s: expected a folder of this machine", flag, folder)
			}
		}
	}
	for _, kv := range l.Env {
		if name, _, ok := strings.Cut(kv, "="); !ok || name == "" {
			return fmt.Errorf("--env=%s: expected NAME=VALUE", kv)
		}
	}
	return nil
}

// docker makes the launcher for an image, and the paths in cfg those inside
// the container.
func (l *sageMakerLocal) docker(cfg *local.Config) *local.Docker {
	d := &local.Docker{
		Image: l.Image, Args: l.Args, Memory: l.Memory, CPUs: l.CPUs, Isolated: l.NetworkNone, Log: os.Stderr,
		Unprivileged: runtime.GOOS != "linux" || os.Geteuid() != 0,
		Env:          l.platformEnv(cfg.Region), Mounts: map[string]string{},
	}
	if source.IsS3(l.Model) {
		d.Env = append(d.Env, "MODEL_ID="+l.Model)
	} else if l.Model != "" {
		d.Mounts[absolute(l.Model)] = "/opt/ml/model"
	}
	cfg.Adapters = map[string]string{}
	for name, folder := range l.Adapter {
		inside := "/opt/ml/adapters/" + name
		d.Mounts[absolute(folder)] = inside
		cfg.Adapters[name] = inside
	}
	d.Env = append(d.Env, l.Env...)
	return d
}

// absolute is path from the root; docker takes no other.
func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}

// platformEnv are the variables that SageMaker sets. This machine's AWS
// variables stand for the execution role, which an isolated container does not
// get.
func (l *sageMakerLocal) platformEnv(region string) []string {
	env := []string{"AWS_REGION=" + region}
	if l.NetworkNone {
		return env
	}
	for _, kv := range os.Environ() {
		name, value, _ := strings.Cut(kv, "=")
		if strings.HasPrefix(name, "AWS_") && name != "AWS_REGION" && value != "" &&
			!strings.HasPrefix(name, "AWS_LAMBDA_") && name != "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME" {
			env = append(env, kv)
		}
	}
	return env
}
