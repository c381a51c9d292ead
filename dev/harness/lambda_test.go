package harness_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// The image as it is, without a word, is a Lambda function: it asks the
// Runtime API for an event and answers it, on a read-only root as a user
// nobody knows, and listens on no port.
func TestLambda(t *testing.T) {
	const api = "/2018-06-01/runtime/"
	event := make(chan string, 1)
	event <- `{"inputs":"What is Millrace?","parameters":{"max_new_tokens":20}}`
	posted := make(chan [2]string, 10) // path, body
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+api+"invocation/next", func(w http.ResponseWriter, r *http.Request) {
		select {
		case body := <-event:
			w.Header().Set("Lambda-Runtime-Aws-Request-Id", "one")
			w.Header().Set("Lambda-Runtime-Deadline-Ms", fmt.Sprint(time.Now().Add(patience).UnixMilli()))
			w.Header().Set("Lambda-Runtime-Invoked-Function-Arn", "arn:aws:lambda:eu-west-1:123456789012:function:test")
			fmt.Fprint(w, body)
		case <-r.Context().Done():
		}
	})
	mux.HandleFunc("POST "+api, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.WriteHeader(http.StatusAccepted)
		posted <- [2]string{strings.TrimPrefix(r.URL.Path, api), string(body)}
	})
	platform := httptest.NewServer(mux)
	t.Cleanup(platform.Close)

	port := freePort(t)
	c := start(t, tag, port, []string{"--network", "host", "--read-only", "--tmpfs", "/tmp", "--user", "993:990", "--memory", "1769m", "--cpus", "1",
		"--env", fmt.Sprint("PORT=", port), "--env", "AWS_LAMBDA_RUNTIME_API=" + platform.Listener.Addr().String(),
		"--env", "AWS_LAMBDA_FUNCTION_NAME=test", "--env", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE=1769", "--env", "AWS_LAMBDA_INITIALIZATION_TYPE=on-demand"})
	select {
	case got := <-posted:
		var texts []struct {
			Text string `json:"generated_text"`
		}
		if got[0] != "invocation/one/response" || json.Unmarshal([]byte(got[1]), &texts) != nil || len(texts) != 1 || !strings.Contains(texts[0].Text, "Millrace is a server") {
			t.Errorf("posted to %s: %s; want the answer of /invocations", got[0], got[1])
		}
	case <-time.After(patience):
		t.Fatal("no answer is posted")
	}
	if a, err := c.try(http.MethodGet, "/ping", ""); err == nil {
		t.Errorf("a function listens on its port: %d", a.status)
	}
}
