package harness_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/millrace-ai/millrace/dev/harness"
)

// What all tests share: the engine, and the image built from the working tree.
const (
	root     = "../.."
	tag      = "millrace:test"
	version  = "1.2.3-test"
	revision = "0123456789abcdef0123456789abcdef01234567"
	model    = root + "/container/demo/model" // a checkpoint to mount
)

var engine *harness.Engine

func TestMain(m *testing.M) {
	if os.Getenv("MILLRACE_TEST_IMAGE") == "" {
		fmt.Println("The tests of the image are left out: `make test-image` runs them.")
		return
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	ctx := context.Background()
	dir, err := filepath.Abs(filepath.Join(root, "build/docker"))
	if err == nil {
		engine, err = harness.Start(ctx, dir)
	}
	if err == nil {
		defer engine.Close()
		begin := time.Now()
		err = build(ctx, tag)
		fmt.Printf("image built in %.0f s\n", time.Since(begin).Seconds())
	}
	var missing *harness.Unavailable
	if errors.As(err, &missing) {
		fmt.Println("The tests of the image are left out:", missing)
		return 0
	}
	if err != nil {
		fmt.Println("build the image:", err)
		return 1
	}
	return m.Run()
}

// build builds the image of the working tree. With MILLRACE_TEST_IMAGE=all, its
// Rust half is compiled in the image, too.
func build(ctx context.Context, name string, options ...string) error {
	if os.Getenv("MILLRACE_TEST_IMAGE") != "all" {
		native, err := engine.Native(ctx, root)
		if err != nil {
			return err
		}
		options = append(options, native...)
	}
	return engine.Build(ctx, root, "container/Dockerfile", root, name,
		append(options, "--build-arg", "VERSION="+version, "--build-arg", "REVISION="+revision, "--build-arg", "DOCKER_LABEL="+tag)...)
}

// patience bounds every wait but those for a drain; nothing is expected to
// take long.
const patience = 60 * time.Second

// client asks a server.
type client struct {
	t    testing.TB
	url  string
	http *http.Client
}

// container is a container of a test, removed with it.
type container struct {
	client
	*harness.Container
}

func start(t testing.TB, image string, port int, options []string, args ...string) *container {
	t.Helper()
	c, err := engine.Run(t.Context(), image, port, options, args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of the container:\n%s", c.Log(context.Background()))
		}
		c.Remove()
	})
	return &container{client{t, c.URL, c.Client}, c}
}

// answer is an answer, read to its end.
type answer struct {
	status int
	body   string
}

// try sends a request; the error is that of a server which is not there.
func (c *client) try(method, path, body string) (answer, error) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, c.url+path, strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.http.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, string(text)}, err
}

func (c *client) must(method, path, body string) answer {
	c.t.Helper()
	a, err := c.try(method, path, body)
	if err != nil {
		c.t.Fatal(err)
	}
	return a
}

// ready waits until /ping says 200, and checks that it says so without a word.
func (c *container) ready() *container {
	c.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		a, err := c.try(http.MethodGet, "/ping", "")
		if err == nil && a.status == http.StatusOK {
			if a.body != "" {
				c.t.Errorf("/ping: 200 %q; want no body", a.body)
			}
			return c
		}
		if !c.Running(c.t.Context()) {
			c.t.Fatal("the container has ended before it was ready")
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("the container does not become ready: %v %v", a, err)
		}
	}
}

// wait returns the exit status.
func (c *container) wait(limit time.Duration) int {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), limit)
	defer cancel()
	status, err := c.Wait(ctx)
	if err != nil {
		c.t.Fatalf("the container does not end: %v", err)
	}
	return status
}

func (c *container) signal(name string) {
	c.t.Helper()
	if err := c.Signal(c.t.Context(), name); err != nil {
		c.t.Fatal(err)
	}
}

// logged returns the line of the log with a message; --json-output must be on.
func (c *container) logged(message string) map[string]any {
	c.t.Helper()
	for line := range strings.Lines(c.Log(c.t.Context())) {
		var record map[string]any
		if json.Unmarshal([]byte(line), &record) == nil && record["message"] == message {
			return record
		}
	}
	c.t.Fatalf("%q is not in the log", message)
	return nil
}

// question is asked of the demo model, wherever it is mounted.
const question = `{"inputs":"What is Millrace?","parameters":{"max_new_tokens":20}}`

// ask has the model answer, and returns its text without the prompt.
func (c *client) ask(path string) string {
	c.t.Helper()
	a := c.must(http.MethodPost, path, question)
	var texts []struct {
		Text string `json:"generated_text"`
	}
	if err := json.Unmarshal([]byte(a.body), &texts); err != nil || a.status != http.StatusOK || len(texts) != 1 {
		c.t.Fatalf("POST %s: %d %s; want an array of one text", path, a.status, a.body)
	}
	return texts[0].Text
}
