package harness_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millrace-ai/millrace/container/source/s3test"
)

// pings asks /ping again and again, as a platform's health check would, until
// it is stopped.
type pings struct {
	times   []time.Duration // of answers
	changes []answer        // each answer that differs from the one before
	stop    context.CancelFunc
	done    chan struct{}
}

func (c *client) startPings() *pings {
	ctx, cancel := context.WithCancel(c.t.Context())
	p := &pings{stop: cancel, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		for ; ctx.Err() == nil; time.Sleep(10 * time.Millisecond) {
			begin := time.Now()
			a, err := c.try(http.MethodGet, "/ping", "")
			if err != nil {
				continue // not listening yet, or no more
			}
			p.times = append(p.times, time.Since(begin))
			if n := len(p.changes); n == 0 || p.changes[n-1].status != a.status {
				p.changes = append(p.changes, a)
			}
		}
	}()
	return p
}

// report ends the pings, writes how long the answers took, and returns the
// statuses in the order they came.
func (p *pings) report(t testing.TB, when string) (statuses []int) {
	p.stop()
	<-p.done
	if len(p.times) == 0 {
		t.Fatal("no ping was answered")
	}
	slices.Sort(p.times)
	at := func(share float64) time.Duration { return p.times[int(share*float64(len(p.times)-1))] }
	fmt.Printf("%d pings %s: median %v, 99 of 100 within %v, longest %v\n", len(p.times), when,
		at(0.5).Round(10*time.Microsecond), at(0.99).Round(10*time.Microsecond), at(1).Round(10*time.Microsecond))
	for _, a := range p.changes {
		statuses = append(statuses, a.status)
	}
	return statuses
}

// ending is how a stream ended.
type ending struct {
	events int
	last   string // event
	err    error  // of the connection: an answer cut off
}

// stream has the model write tokens.
func (c *client) stream(tokens int, started func()) (e ending) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.t.Context()), 2*patience)
	defer cancel()
	body := fmt.Sprintf(`{"inputs":"What is Millrace?","parameters":{"max_new_tokens":%d}}`, tokens)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url+"/generate_stream", strings.NewReader(body))
	if err != nil {
		return ending{err: err}
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.http.Do(req)
	if err != nil {
		return ending{err: err}
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(resp.Body)
		return ending{err: fmt.Errorf("status %d: %s", resp.StatusCode, text)}
	}
	for lines := bufio.NewReader(resp.Body); ; {
		line, err := lines.ReadString('\n')
		if data, ok := strings.CutPrefix(line, "data:"); ok {
			if e.last = strings.TrimSpace(data); e.events == 0 {
				started()
			}
			e.events++
		}
		if err != nil {
			if err != io.EOF {
				e.err = err
			}
			return e
		}
	}
}

// complete reports whether the stream ended with its whole text, and cut
// whether it ended with an error that says why.
func (e ending) complete() bool {
	var event struct {
		Text *string `json:"generated_text"`
	}
	return e.err == nil && json.Unmarshal([]byte(e.last), &event) == nil && event.Text != nil
}

func (e ending) cut() bool {
	var event struct {
		Error, Type string
		ErrorType   string `json:"error_type"`
	}
	return e.err == nil && json.Unmarshal([]byte(e.last), &event) == nil && event.Error != "" && event.ErrorType != ""
}

// streams starts many streams, every other one a long one, and returns once
// all have begun.
func (c *client) streams(n, short, long int) (ended func() []ending) {
	endings := make([]ending, n)
	var begun, done sync.WaitGroup
	for i := range n {
		begun.Add(1)
		done.Go(func() {
			tokens := short
			if i%2 == 1 {
				tokens = long
			}
			once := sync.OnceFunc(begun.Done)
			defer once() // a stream that fails must not hold up the test
			endings[i] = c.stream(tokens, once)
		})
	}
	begun.Wait()
	return func() []ending { done.Wait(); return endings }
}

// sized is a model slow enough for streams to go on while they are watched.
var sized = shape{hidden: 512, inner: 1024, layers: 8}

// drained is how long after SIGTERM a container may still be there: 25 s for
// what runs and some for the last writes, before the platform kills it at 30.
const drained = 29 * time.Second

// After SIGTERM, 32 streams each end with their whole text or with an error
// that says why, health checks fail at once, and the container ends in time
// and with success.
func TestDrainsUnderLoad(t *testing.T) {
	dir := sized.folder(t)
	c := start(t, tag, 8080, append([]string{"--volume", dir + ":/opt/ml/model:ro"}, hosted...), "serve", "--max-total-tokens", "30000").ready()
	pings := c.startPings()
	ended := c.streams(32, 40, 25000)
	c.signal("TERM")
	begin := time.Now()
	if status := c.wait(drained); status != 0 {
		t.Errorf("exit status %d; want 0", status)
	}
	fmt.Printf("32 streams ended %v after SIGTERM\n", time.Since(begin).Round(time.Millisecond))
	statuses := pings.report(t, "under 32 streams")
	if !slices.Equal(statuses, []int{http.StatusOK, http.StatusServiceUnavailable}) {
		t.Errorf("/ping: %v; want 200, then 503", statuses)
	}
	var complete, cut int
	for i, e := range ended() {
		switch {
		case e.complete():
			complete++
		case e.cut():
			cut++
		default:
			t.Errorf("stream %d ended after %d events with %q, %v", i, e.events, e.last, e.err)
		}
	}
	if complete < 16 || cut == 0 {
		t.Errorf("%d streams complete, %d cut; want the 16 short ones complete and long ones cut", complete, cut)
	}
}

// Health checks wait for no prompt: one of many steps is read meanwhile.
func TestAnswersDuringPrefill(t *testing.T) {
	dir := sized.folder(t)
	c := start(t, tag, 8080, append([]string{"--volume", dir + ":/opt/ml/model:ro"}, hosted...), "serve", "--max-total-tokens", "30000").ready()
	pings := c.startPings()
	prompt := strings.Repeat("What is Millrace? ", 2000)
	a := c.must(http.MethodPost, "/generate", fmt.Sprintf(`{"inputs":%q,"parameters":{"max_new_tokens":1,"details":true}}`, prompt))
	if a.status != http.StatusOK {
		t.Errorf("a long prompt: %d %s", a.status, a.body)
	}
	if statuses := pings.report(t, "during a long prefill"); !slices.Equal(statuses, []int{http.StatusOK}) {
		t.Errorf("/ping: %v; want 200", statuses)
	}
}

// A second SIGTERM ends the container at once.
func TestSecondSignal(t *testing.T) {
	dir := sized.folder(t)
	c := start(t, tag, 8080, append([]string{"--volume", dir + ":/opt/ml/model:ro"}, hosted...), "serve", "--max-total-tokens", "30000").ready()
	ended := c.streams(2, 25000, 25000)
	c.signal("TERM")
	for {
		if a, err := c.try(http.MethodGet, "/ping", ""); err == nil && a.status == http.StatusServiceUnavailable {
			break
		}
	}
	time.Sleep(200 * time.Millisecond) // a second signal at once counts as the first
	c.signal("TERM")
	begin := time.Now()
	if status := c.wait(patience); status != 1 {
		t.Errorf("exit status %d; want 1", status)
	}
	fmt.Printf("ended %v after the second SIGTERM\n", time.Since(begin).Round(time.Millisecond))
	for i, e := range ended() {
		if e.complete() {
			t.Errorf("stream %d has ended by itself: the model is too quick for this test", i)
		}
	}
}

// The port answers at once, and says what it waits for until the model is
// there.
func TestAnswersWhileLoading(t *testing.T) {
	server := s3test.NewServer(t)
	for _, name := range []string{"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} {
		server.Put("models", "demo/"+name, read(t, model+"/"+name))
	}
	release := make(chan struct{})
	proxy := s3test.NewProxy(t, server.URL, 1, func(int, *http.Request) s3test.Fault { return s3test.None })
	proxy.Intercept(func(int, http.ResponseWriter, *http.Request) bool {
		<-release
		return false
	})
	port := freePort(t)
	c := start(t, tag, port, []string{"--network", "host", "--read-only", "--tmpfs", "/tmp", "--user", "54321:54321",
		"--env", fmt.Sprint("SAGEMAKER_BIND_TO_PORT=", port), "--env", "HF_MODEL_ID=s3://models/demo",
		"--env", "AWS_ENDPOINT_URL_S3=" + proxy.URL, "--env", "AWS_REGION=us-east-1", "--env", "AWS_EC2_METADATA_DISABLED=true",
		"--env", "AWS_ACCESS_KEY_ID=key", "--env", "AWS_SECRET_ACCESS_KEY=secret"}, "serve")
	pings := c.startPings()
	var a answer
	for deadline := time.Now().Add(patience); a.status == 0; {
		if a, _ = c.try(http.MethodGet, "/ping", ""); time.Now().After(deadline) {
			t.Fatal("the port does not open")
		}
	}
	if a.status != http.StatusServiceUnavailable || !strings.Contains(a.body, "s3://models/demo") {
		t.Errorf("/ping: %d %s; want 503 that names what is loaded", a.status, a.body)
	}
	close(release)
	c.ready()
	if text := c.ask("/invocations"); !strings.Contains(text, "Millrace is a server") {
		t.Errorf("the answer is %q", text)
	}
	if statuses := pings.report(t, "while loading"); !slices.Equal(statuses, []int{http.StatusServiceUnavailable, http.StatusOK}) {
		t.Errorf("/ping: %v; want 503, then 200", statuses)
	}
}
