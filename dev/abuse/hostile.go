package abuse

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"
)

// patience is how long a hostile client waits for an answer before it takes the
// server to be silent. It only tells a slow answer from none.
const patience = 2 * time.Minute

// errSilent is what an attack ends with that got no answer.
var errSilent = errors.New("no answer")

// hostile is one hostile client. It makes one attack after the other.
type hostile struct {
	url, host string
	hold      time.Duration // the longest that a connection is held for nothing
	rand      *rand.Rand
	http      *http.Client
	answered  func(status int) // notes an answer to the attack that is made
}

// attacks are the ways to hurt a server. Each ends by itself, or with ctx, and
// fails only if the server is at fault.
var attacks = []struct {
	name string
	run  func(h *hostile, ctx context.Context) error
}{
	{"huge body", (*hostile).hugeBody},
	{"hostile schema", func(h *hostile, ctx context.Context) error { return h.guided(ctx, h.schema()) }},
	{"generated schema", func(h *hostile, ctx context.Context) error { return h.guided(ctx, generated(h.rand, 6)) }},
	{"hostile pattern", (*hostile).pattern},
	{"long constant", (*hostile).constant},
	{"many messages", (*hostile).manyMessages},
	{"many tools", (*hostile).manyTools},
	{"many answers", (*hostile).manyAnswers},
	{"broken JSON", (*hostile).brokenJSON},
	{"flood", (*hostile).flood},
	{"slow reader", (*hostile).slowReader},
	{"unread body", (*hostile).unreadBody},
	{"half a request", (*hostile).halfRequest},
	{"disconnect", (*hostile).disconnect},
	{"cancelled HTTP/2", (*hostile).cancelled},
	{"WebSocket", (*hostile).socket},
}

// post sends a body and reads the answer, whatever it is.
func (h *hostile) post(ctx context.Context, path, body string) error {
	timed, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	req, err := http.NewRequestWithContext(timed, http.MethodPost, h.url+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := h.http.Do(req)
	if err == nil {
		h.answered(resp.StatusCode)
		io.Copy(io.Discard, resp.Body) //nolint:errcheck // an answer that was cut short is an answer too
		resp.Body.Close()
	}
	if ctx.Err() == nil && timed.Err() != nil {
		return errSilent
	}
	return nil //nolint:nilerr // the server may close a connection that it does not want to read
}

func (h *hostile) pick(of ...string) string { return of[h.rand.IntN(len(of))] }

func marshal(v any) string {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err) // of our own making
	}
	return string(data)
}

// hugeBody sends 1.9 MB, a little less than the limit, to a route.
func (h *hostile) hugeBody(ctx context.Context) error {
	const size = 1_900_000
	unit := h.pick("a", " ", "word ", "é", "9", "\\n", "a.b-c ", "<|x|>")
	text := strings.Repeat(unit, size/len(unit))
	path := h.pick("/generate", "/generate_stream", "/", "/invocations", "/tokenize", "/chat_tokenize", "/v1/chat/completions", "/v1/completions", "/vertex")
	body := `{"inputs":"` + text + `","parameters":{"max_new_tokens":1}}`
	switch path {
	case "/chat_tokenize", "/v1/chat/completions":
		body = `{"messages":[{"role":"user","content":"` + text + `"}],"max_tokens":1}`
	case "/v1/completions":
		body = `{"prompt":"` + text + `","max_tokens":1}`
	case "/vertex":
		body = `{"instances":[{"inputs":"` + text + `"}]}`
	}
	return h.post(ctx, path, body)
}

func (h *hostile) manyMessages(ctx context.Context) error {
	message := h.pick(`{"role":"user","content":""}`, `{"role":"user","content":"a"}`,
		`{"role":"assistant","content":null,"tool_calls":[{"id":"1","type":"function","function":{"name":"f","arguments":"{}"}}]}`)
	path := h.pick("/v1/chat/completions", "/chat_tokenize", "/invocations")
	return h.post(ctx, path, `{"max_tokens":1,"messages":[`+strings.Repeat(message+",", min(70_000, 1_900_000/(len(message)+1)))+message+`]}`)
}

func (h *hostile) manyTools(ctx context.Context) error {
	count := 1 + h.rand.IntN(3000)
	var tools strings.Builder
	for i := range count {
		fmt.Fprintf(&tools, `{"type":"function","function":{"name":"f%d","description":"https://x/?a=1&b=2&c=3&d=4","parameters":{"type":"object","properties":{"a":{"type":"string","enum":["x%d","y"]}}}}},`, i, h.rand.IntN(1<<20))
	}
	choice := h.pick(`"auto"`, `"required"`, `{"type":"function","function":{"name":"f0"}}`)
	return h.post(ctx, "/v1/chat/completions", `{"messages":[{"role":"user","content":"x"}],"max_tokens":8,"tool_choice":`+choice+`,"tools":[`+strings.TrimSuffix(tools.String(), ",")+`]}`)
}

func (h *hostile) manyAnswers(ctx context.Context) error {
	return h.post(ctx, "/v1/completions", marshal(object{"prompt": strings.Repeat("word ", h.rand.IntN(500)), "max_tokens": 8, "n": 1 + h.rand.IntN(128), "logprobs": 5, "seed": h.rand.IntN(1000),
		"stop": []string{"a", "b", "c", "d"}}))
}

// brokenJSON changes a few bytes of a request that is in order.
func (h *hostile) brokenJSON(ctx context.Context) error {
	r := newDeck(h.rand.Uint64(), 12)[h.rand.IntN(12)]
	body := []byte(r.body)
	for range 1 + h.rand.IntN(4) {
		body[h.rand.IntN(len(body))] = byte(h.rand.IntN(256))
	}
	return h.post(ctx, r.path, string(body[:1+h.rand.IntN(len(body))]))
}

// flood sends more requests at once than the server takes.
func (h *hostile) flood(ctx context.Context) error {
	var (
		wg    sync.WaitGroup
		fails = make(chan error, 300)
	)
	for range cap(fails) {
		wg.Go(func() { fails <- h.post(ctx, "/generate", `{"inputs":"x","parameters":{"max_new_tokens":1}}`) })
	}
	wg.Wait()
	close(fails)
	for err := range fails {
		if err != nil {
			return err
		}
	}
	h.http.CloseIdleConnections()
	return nil
}
