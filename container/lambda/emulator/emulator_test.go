package emulator

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millrace-ai/millrace/container/lambda"
)

// patience bounds every wait of these tests; nothing is expected to take long.
const patience = 20 * time.Second

// function launches sandboxes inside the test: each runs start with the
// address of its Runtime API until it is killed.
type function struct {
	start func(ctx context.Context, number int, api string) (status string)

	log    io.Writer // of the sandbox that was launched last
	mu     sync.Mutex
	events []string // launch, freeze, thaw, terminate, kill
}

type sandbox struct {
	f      *function
	stop   context.CancelFunc
	exited chan struct{}
	status string
}

func (f *function) note(event string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.events = append(f.events, event)
}

func (f *function) noted() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Join(f.events, " ")
}

func (f *function) Launch(variables []string, log io.Writer) (Sandbox, error) {
	f.note("launch")
	f.log = log
	api := ""
	for _, kv := range variables {
		if a, ok := strings.CutPrefix(kv, "AWS_LAMBDA_RUNTIME_API="); ok {
			api = a
		}
	}
	number := strings.Count(f.noted(), "launch")
	ctx, cancel := context.WithCancel(context.Background())
	s := &sandbox{f: f, stop: cancel, exited: make(chan struct{})}
	go func() {
		s.status = f.start(ctx, number, api)
		close(s.exited)
	}()
	return s, nil
}

func (s *sandbox) Freeze()                 { s.f.note("freeze") }
func (s *sandbox) Thaw()                   { s.f.note("thaw") }
func (s *sandbox) Terminate()              { s.stop() }
func (s *sandbox) Kill()                   { s.stop() }
func (s *sandbox) Exited() <-chan struct{} { return s.exited }
func (s *sandbox) Status() string          { return s.status }

// serving is a function that serves h, as many events at once as n.
func serving(n int, h http.HandlerFunc) *function {
	return &function{start: func(ctx context.Context, _ int, api string) string { return serve(ctx, api, n, h) }}
}

// streaming is a function that serves h in the mode Stream.
func streaming(h http.HandlerFunc) *function {
	return &function{start: func(ctx context.Context, _ int, api string) string {
		return serveAs(ctx, lambda.Options{API: api, Handler: h, Mode: lambda.Stream})
	}}
}

func serve(ctx context.Context, api string, n int, h http.HandlerFunc) string {
	return serveAs(ctx, lambda.Options{API: api, Handler: h, Concurrency: n})
}

func serveAs(ctx context.Context, opt lambda.Options) string {
	opt.Logger = slog.New(slog.DiscardHandler)
	r := lambda.New(opt)
	r.Ready()
	go r.Serve()
	<-ctx.Done()
	r.Shutdown(ctx)
	return "exit status 0"
}

// emulate serves a function on a port of its own.
func emulate(t *testing.T, f *function, change func(*Options)) string {
	opt := Options{
		Function: "f", Region: "eu-west-1", MemoryMB: 512, Timeout: patience, InitTimeout: patience,
		Launcher: f, Log: io.Discard,
	}
	if change != nil {
		change(&opt)
	}
	m := New(opt)
	server := httptest.NewServer(m)
	t.Cleanup(func() {
		server.Close()
		m.Close()
	})
	return server.URL
}

const invokeF = "/2015-03-31/functions/f/invocations"

func post(t testing.TB, url, body string, header ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequest(http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	client := http.Client{Timeout: patience}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatal(err)
	}
	return resp, string(data)
}

func echo(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) }

// Between events the sandbox is frozen, and never while one runs.
func TestFreeze(t *testing.T) {
	f := serving(1, nil)
	running := ""
	f.start = func(ctx context.Context, _ int, api string) string {
		return serve(ctx, api, 1, func(w http.ResponseWriter, r *http.Request) {
			running = f.noted()
			echo(w, r)
		})
	}
	url := emulate(t, f, nil) + invokeF
	for _, want := range []string{"launch", "launch freeze thaw", "launch freeze thaw freeze thaw"} {
		if _, body := post(t, url, `{"inputs":"x"}`); body != `{"inputs":"x"}` {
			t.Errorf("the answer is %s", body)
		}
		// Answers arrive before the next event is asked for.
		for deadline := time.Now().Add(patience); !strings.HasSuffix(f.noted(), "freeze"); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("the sandbox is not frozen")
			}
		}
		if running != want {
			t.Errorf("while the event ran: %s; want %s", running, want)
		}
	}
}

// An event whose time is over ends with Lambda's words, and the next one finds
// a new sandbox.
func TestTimeout(t *testing.T) {
	over := make(chan struct{})
	defer close(over)
	f := serving(1, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if strings.Contains(string(body), "slow") {
			<-over // deaf to its deadline
		}
		io.WriteString(w, "1")
	})
	url := emulate(t, f, func(o *Options) { o.Timeout = time.Second }) + invokeF
	resp, body := post(t, url, `{"inputs":"slow"}`)
	if resp.StatusCode != 200 || resp.Header.Get("X-Amz-Function-Error") != "Unhandled" || !strings.Contains(body, `Task timed out after 1.00 seconds"`) {
		t.Errorf("%d %v %s", resp.StatusCode, resp.Header, body)
	}
	if _, body := post(t, url, `{"inputs":"quick"}`); body != "1" || f.noted() != "launch launch" && f.noted() != "launch launch freeze" {
		t.Errorf("the next answer is %s after %s", body, f.noted())
	}
}

// What ends an initialization, and what the caller then sees.
func TestInitialization(t *testing.T) {
	for _, tt := range []struct {
		name  string
		start func(ctx context.Context, number int, api string) string
		want  string // in the payload
		noted string
	}{
		{"too long, then in time", func(ctx context.Context, number int, api string) string {
			if number > 1 {
				return serve(ctx, api, 1, echo)
			}
			<-ctx.Done()
			return "signal: killed"
		}, `{"inputs":"x"}`, "launch launch"},
		{"too long twice", func(ctx context.Context, _ int, _ string) string {
			<-ctx.Done()
			return "signal: killed"
		}, `Task timed out after 1.00 seconds`, "launch launch"},
		{"an error", func(_ context.Context, _ int, api string) string {
			lambda.FailInit(api, "Runtime.ConfigInvalid", errors.New("no such flag"))
			return "exit status 2"
		}, `{"errorMessage":"no such flag","errorType":"Runtime.ConfigInvalid","stackTrace":[]}`, "launch"},
		{"an exit", func(context.Context, int, string) string { return "exit status 3" }, `Runtime exited with error: exit status 3"`, "launch"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := &function{start: tt.start}
			url := emulate(t, f, func(o *Options) { o.InitTimeout, o.Timeout = 100*time.Millisecond, time.Second })
			if _, body := post(t, url+invokeF, `{"inputs":"x"}`); !strings.Contains(body, tt.want) || !strings.HasPrefix(f.noted(), tt.noted) {
				t.Errorf("the payload is %s after %s; want %s after %s", body, f.noted(), tt.want, tt.noted)
			}
		})
	}
}

// An exit amid an event fails that event, and the next finds a new sandbox.
func TestExit(t *testing.T) {
	f := &function{start: func(ctx context.Context, number int, api string) string {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		go serve(ctx, api, 1, func(w http.ResponseWriter, r *http.Request) {
			if number == 1 {
				cancel()
				select {}
			}
			echo(w, r)
		})
		<-ctx.Done()
		return "signal: killed"
	}}
	url := emulate(t, f, nil) + invokeF
	for _, want := range []string{"Runtime exited with error: signal: killed", `{"inputs":"x"}`} {
		if _, body := post(t, url, `{"inputs":"x"}`); !strings.Contains(body, want) {
			t.Errorf("the payload is %s; want %s", body, want)
		}
	}
}

// One event runs at a time, or as many as the function takes.
func TestConcurrency(t *testing.T) {
	for n := 1; n <= 3; n += 2 {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			var mu sync.Mutex
			now, most := 0, 0
			all := make(chan struct{})
			f := serving(n, func(w http.ResponseWriter, r *http.Request) {
				mu.Lock()
				now++
				most = max(most, now)
				if now == n && n > 1 {
					close(all)
				}
				mu.Unlock()
				if n > 1 {
					<-all
				}
				echo(w, r)
				mu.Lock()
				now--
				mu.Unlock()
			})
			url := emulate(t, f, func(o *Options) { o.Concurrency = n }) + invokeF
			var calls sync.WaitGroup
			for range 3 {
				calls.Go(func() {
					if _, body := post(t, url, `{"inputs":"x"}`); body != `{"inputs":"x"}` {
						t.Errorf("the answer is %s", body)
					}
				})
			}
			calls.Wait()
			if most != n || n > 1 && f.noted() != "launch" {
				t.Errorf("%d events at once after %s; want %d", most, f.noted(), n)
			}
		})
	}
}

// What the APIs refuse, and what they leave to the function.
func TestCalls(t *testing.T) {
	url := emulate(t, serving(1, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if strings.Contains(string(body), "long") {
			w.Write(make([]byte, payloadLimit+1))
			return
		}
		w.Write(body)
	}), nil)
	arn := strings.ReplaceAll("arn:aws:lambda:eu-west-1:123456789012:function:f", ":", "%3A")
	for _, tt := range []struct {
		name, path, body string
		header           []string
		status           int
		want             string
	}{
		{name: "name", path: "/2015-03-31/functions/f/invocations", body: `{"inputs":1}`, status: 200, want: `{"inputs":1}`},
		{name: "name with a qualifier", path: "/2015-03-31/functions/f:live/invocations", body: `{"inputs":1}`, status: 200, want: `{"inputs":1}`},
		{name: "ARN", path: "/2015-03-31/functions/" + arn + "/invocations", body: `{"inputs":1}`, status: 200, want: `{"inputs":1}`},
		{name: "another function", path: "/2015-03-31/functions/g/invocations", status: 404, want: "Function not found: g"},
		{name: "no JSON", path: invokeF, body: `{`, status: 400, want: "Could not parse request body into json"},
		{name: "too large", path: invokeF, body: `"` + strings.Repeat("x", payloadLimit) + `"`, status: 413, want: "Request must be smaller"},
		{name: "dry run", path: invokeF, body: `{}`, header: []string{"X-Amz-Invocation-Type", "DryRun"}, status: 204},
		{name: "not waited for", path: invokeF, body: `{"inputs":1}`, header: []string{"X-Amz-Invocation-Type", "Event"}, status: 202},
		{name: "not waited for, too large", path: invokeF, body: `"` + strings.Repeat("x", asyncLimit) + `"`, header: []string{"X-Amz-Invocation-Type", "Event"}, status: 413, want: "smaller than 1048576 bytes"},
		{name: "no payload", path: invokeF, status: 200, want: `the event is an empty object`},
		{name: "answer too large", path: invokeF, body: `{"inputs":"long"}`, status: 200, want: "payload_too_large"},
		{name: "URL", path: "/any/path?x=1", body: "text", header: []string{"Content-Type", "text/plain"}, status: 200, want: "text"},
		{name: "URL, bytes", path: "/", body: "\xff\x00", status: 200, want: "\xff\x00"},
		{name: "URL, stream asked for", path: "/generate_stream", body: "data: 1", status: 200, want: "data: 1"},
		{name: "URL, too large", path: "/", body: strings.Repeat("x", payloadLimit+1), status: 413},
		{name: "URL, answer too large", path: "/", body: "long", status: 413, want: "payload_too_large"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			resp, body := post(t, url+tt.path, tt.body, tt.header...)
			if resp.StatusCode != tt.status || !strings.Contains(body, tt.want) {
				t.Errorf("%d %.200s; want %d and %s", resp.StatusCode, body, tt.status, tt.want)
			}
		})
	}
}

// A stream that is longer than its caller takes ends with an error.
func TestLongStreams(t *testing.T) {
	for _, tt := range []struct {
		name, path string
		longest    int
	}{
		{"in pieces", "/2021-11-15/functions/f/response-streaming-invocations", payloadLimit},
		{"at once", invokeF, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			url := emulate(t, serving(1, func(w http.ResponseWriter, _ *http.Request) {
				piece := make([]byte, 1<<20)
				for sent := 0; sent <= payloadLimit; sent += len(piece) {
					if _, err := w.Write(piece); err != nil {
						return
					}
				}
			}), func(o *Options) { o.longest = tt.longest })
			_, body := post(t, url+tt.path, `{"inputs":"x","stream":true}`)
			if end := body[max(0, len(body)-500):]; !strings.Contains(end, "Response payload size exceeded") {
				t.Errorf("the end is %q", end)
			}
		})
	}
}

// The URL shows a stream as it comes, with its status and headers, and breaks
// off with it.
func TestURLStream(t *testing.T) {
	step := make(chan struct{})
	url := emulate(t, streaming(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		w.Header().Add("Set-Cookie", "a=1")
		w.Header().Add("Set-Cookie", "b=2")
		w.WriteHeader(http.StatusAccepted)
		for i := range 3 {
			fmt.Fprintf(w, "data: %d\n\n", i)
			<-step
		}
		if r.URL.Query().Has("broken") {
			io.WriteString(w, `data: {"error":"broken","error_type":"generation"}`+"\n\n")
		}
	}), func(o *Options) { o.StreamURL = true })
	for query, want := range map[string]string{"": "", "?broken": `data: {"error":"broken","error_type":"generation"}` + "\n\n"} {
		t.Run(query, func(t *testing.T) {
			resp, err := http.Post(url+"/generate_stream"+query, "application/json", strings.NewReader("{}"))
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if h := resp.Header; resp.StatusCode != 202 || h.Get("Content-Type") != "text/event-stream" || len(h["Set-Cookie"]) != 2 {
				t.Errorf("%d %v", resp.StatusCode, h)
			}
			buf := make([]byte, 100)
			for i := range 3 {
				n, err := resp.Body.Read(buf)
				if got := string(buf[:n]); got != fmt.Sprintf("data: %d\n\n", i) || err != nil {
					t.Errorf("piece %d: %q %v", i, got, err)
				}
				step <- struct{}{}
			}
			rest, err := io.ReadAll(resp.Body)
			if string(rest) != want || (err == nil) != (want == "") {
				t.Errorf("the end is %q, %v; want %q", rest, err, want)
			}
		})
	}
}

// A URL shows what AWS's does in its invoke mode, also for a function that is set
// to the other mode.
func TestURLModes(t *testing.T) {
	const text = "data: 1\n\n"
	h := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		io.WriteString(w, text)
	}
	for _, tt := range []struct {
		name     string
		function *function
		stream   bool   // the URL's mode
		kind     string // content type
		want     string
	}{
		{"buffered", serving(1, h), false, "text/event-stream", text},
		{"stream", streaming(h), true, "text/event-stream", text},
		{"buffered, the function streams", streaming(h), false, "application/json",
			`{"statusCode":200,"headers":{"Content-Type":"text/event-stream"}}` + strings.Repeat("\x00", 8) + text},
		{"stream, the function does not", serving(1, h), true, "application/json",
			`{"statusCode":200,"headers":{"Content-Type":"text/event-stream"},"body":"data: 1\n\n","isBase64Encoded":false,"cookies":null}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			url := emulate(t, tt.function, func(o *Options) { o.StreamURL = tt.stream })
			resp, body := post(t, url+"/generate_stream", "{}", "Content-Type", "application/json")
			if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != tt.kind || body != tt.want {
				t.Errorf("%d %v %q\nwant %s %q", resp.StatusCode, resp.Header, body, tt.kind, tt.want)
			}
		})
	}
}

// Lambda keeps the error types of its own form; every other type is unknown to it.
func TestErrorTypes(t *testing.T) {
	for kind, want := range map[string]string{
		"Function.Validation": "Function.Validation", "Runtime.Panic": "Runtime.Panic",
		"validation": "Runtime.Unknown", "Function.status_404": "Runtime.Unknown", "": "Runtime.Unknown",
	} {
		f := &function{start: func(ctx context.Context, _ int, api string) string {
			base := "http://" + api + apiVersion
			resp, err := http.Get(base + "/invocation/next")
			if err != nil {
				return err.Error()
			}
			resp.Body.Close()
			path := base + "/invocation/" + resp.Header.Get("Lambda-Runtime-Aws-Request-Id") + "/error"
			req, err := http.NewRequest(http.MethodPost, path, strings.NewReader(`{"errorMessage":"no","errorType":"own"}`))
			if err != nil {
				return err.Error()
			}
			req.Header.Set("Lambda-Runtime-Function-Error-Type", kind)
			if resp, err = http.DefaultClient.Do(req); err != nil {
				return err.Error()
			}
			resp.Body.Close()
			<-ctx.Done()
			return ""
		}}
		_, body := post(t, emulate(t, f, nil)+"/2021-11-15/functions/f/response-streaming-invocations", "{}")
		if !strings.Contains(body, `"ErrorCode":"`+want+`"`) || !strings.Contains(body, `\"errorType\":\"own\"`) {
			t.Errorf("%q: %q; want the code %s and the function's own words", kind, body, want)
		}
	}
}

// A caller may ask for the end of the log, which has all that Lambda and the
// function wrote about the event.
func TestLogResult(t *testing.T) {
	f := serving(1, nil)
	f.start = func(ctx context.Context, _ int, api string) string {
		return serve(ctx, api, 1, func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(f.log, "%s\n", strings.Repeat("x", tailLimit))
			fmt.Fprintln(f.log, "a line of the function")
			echo(w, r)
		})
	}
	url := emulate(t, f, nil) + invokeF
	for range 2 {
		resp, body := post(t, url, `{"inputs":1}`, "X-Amz-Log-Type", "Tail")
		log, err := base64.StdEncoding.DecodeString(resp.Header.Get("X-Amz-Log-Result"))
		if err != nil || body != `{"inputs":1}` {
			t.Fatalf("%s, %v", body, err)
		}
		if text := string(log); len(log) != tailLimit || !strings.Contains(text, "a line of the function\nEND RequestId: ") || !strings.Contains(text, "REPORT RequestId: ") {
			t.Errorf("the log has %d bytes: %s", len(log), text[max(0, len(text)-300):])
		}
	}
	if resp, _ := post(t, url, `{"inputs":1}`); resp.Header.Get("X-Amz-Log-Result") != "" {
		t.Error("the log is returned without being asked for")
	}
}

// Each event takes one answer; another one, or one for no event, is refused.
func TestLateAnswers(t *testing.T) {
	refused := make(chan int, 10)
	f := &function{start: func(ctx context.Context, _ int, api string) string {
		base := "http://" + api + apiVersion
		resp, err := http.Get(base + "/invocation/next")
		if err != nil {
			return err.Error()
		}
		resp.Body.Close()
		id := resp.Header.Get("Lambda-Runtime-Aws-Request-Id")
		for _, path := range []string{"/invocation/" + id + "/response", "/invocation/" + id + "/response", "/invocation/" + id + "/error", "/invocation/x/response", "/init/error"} {
			resp, err := http.Post(base+path, "application/json", strings.NewReader("{}"))
			if err != nil {
				return err.Error()
			}
			resp.Body.Close()
			if resp.StatusCode != http.StatusAccepted {
				refused <- resp.StatusCode
			}
		}
		close(refused)
		<-ctx.Done()
		return ""
	}}
	url := emulate(t, f, nil)
	if _, body := post(t, url+invokeF, "{}"); body != "{}" {
		t.Errorf("the answer is %s", body)
	}
	var got []int
	for status := range refused {
		got = append(got, status)
	}
	if fmt.Sprint(got) != "[400 400 400 403]" {
		t.Errorf("statuses of late answers: %v", got)
	}
}

// docker runs an image as Lambda does.
func TestDockerCommand(t *testing.T) {
	d := &Docker{Image: "millrace", Args: []string{"serve"}, Env: []string{"MODEL_ID"}, MemoryMB: 1769}
	const want = "run --rm --name n --network host --user 65534:65534 --read-only --tmpfs /tmp:exec,size=512m --memory 1769m --memory-swap 1769m --cpus 1.00 " +
		"--env MODEL_ID --env A=1 millrace serve"
	if got := strings.Join(d.command("n", []string{"A=1"}), " "); got != want {
		t.Errorf("docker %s\nwant   %s", got, want)
	}
}
