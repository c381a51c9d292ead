package abuse

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/millrace-ai/millrace/internal/sse"
)

type object = map[string]any

// request is one of the deck.
type request struct {
	path string
	body string
}

// newDeck returns n good requests, of each kind about as many.
func newDeck(seed uint64, n int) []request {
	r := rand.New(rand.NewPCG(seed, 0))
	pick := func(of ...string) string { return of[r.IntN(len(of))] }
	tool := []object{{"type": "function", "function": object{
		"name": "get_weather", "description": "Get the weather of a city.",
		"parameters": object{"type": "object", "properties": object{"city": object{"type": "string", "maxLength": 20}}, "required": []string{"city"}, "additionalProperties": false}}}}
	schema := object{"type": "object", "required": []string{"name", "port", "kind"}, "additionalProperties": false, "properties": object{
		"name": object{"type": "string", "maxLength": 10}, "port": object{"type": "integer", "minimum": 1, "maximum": 65535}, "kind": object{"enum": []string{"tcp", "udp"}}}}
	deck := make([]request, n)
	for i := range deck {
		question := pick("What is Millrace?", "How do I serve my own model?", "Which routes are there?", "What is a token?", "How do I stop the server?")
		sampled := object{"do_sample": true, "temperature": 0.9, "seed": r.IntN(1 << 30), "max_new_tokens": 10 + r.IntN(50)}
		chat := object{"model": "tgi", "messages": []object{{"role": "user", "content": question}}, "max_tokens": 10 + r.IntN(50), "temperature": 0.8, "seed": r.IntN(1 << 30)}
		weather := object{"model": "tgi", "messages": []object{{"role": "user", "content": "What is the weather in " + pick("Paris", "Rome", "Oslo", "Lima") + "?"}}, "tools": tool, "max_tokens": 60, "temperature": 0}
		completion := object{"model": "tgi", "prompt": question, "max_tokens": 10 + r.IntN(50), "seed": r.IntN(1 << 30)}
		path := "/v1/chat/completions"
		body := chat
		switch i % 12 {
		case 0:
			path, body = "/generate", object{"inputs": question, "parameters": object{"max_new_tokens": 40}}
		case 1:
			sampled["details"], sampled["top_n_tokens"] = true, 3
			path, body = "/generate", object{"inputs": question, "parameters": sampled}
		case 2:
			path, body = "/generate_stream", object{"inputs": question, "parameters": sampled}
		case 3:
			path, body = "/generate", object{"inputs": question, "parameters": object{"max_new_tokens": 80, "grammar": object{"type": "json", "value": schema}}}
		case 4:
		case 5:
			chat["stream"] = true
		case 6:
			body = weather
		case 7:
			weather["stream"], weather["tool_choice"] = true, "required"
			body = weather
		case 8:
			chat["response_format"] = object{"type": "json_schema", "json_schema": object{"name": "port", "schema": schema}}
			chat["max_tokens"] = 80
		case 9:
			completion["prompt"], completion["n"], completion["echo"] = []string{question, "Hello"}, 2, true
			path, body = "/v1/completions", completion
		case 10:
			completion["stream"] = true
			path, body = "/v1/completions", completion
		case 11:
			path, body = "/tokenize", object{"inputs": strings.Repeat(question+" ", 1+r.IntN(50))}
		}
		text, err := json.Marshal(body)
		if err != nil {
			panic(err) // of our own making
		}
		deck[i] = request{path, string(text)}
	}
	return deck
}

// answer is what a client saw of a request.
type answer struct {
	status int
	text   [sha256.Size]byte // of all that a model wrote
	shown  string            // the beginning of it, or of an error
	gaps   []time.Duration   // between the events of a stream
}

// send sends a request and reads its answer to the end.
func send(ctx context.Context, client *http.Client, url string, r request) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+r.path, strings.NewReader(r.body))
	if err != nil {
		return answer{}, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	a := answer{status: resp.StatusCode}
	said := map[string]string{}
	if !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream") {
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			return a, err
		}
		a.shown = shorten(string(body))
		var v any
		if json.Unmarshal(body, &v) != nil {
			return a, fmt.Errorf("an answer that is not JSON: %d %s", a.status, a.shown)
		}
		gather(v, "", said)
	} else if err := a.readStream(resp.Body, said); err != nil {
		return a, err
	}
	var all strings.Builder
	for _, place := range slices.Sorted(maps.Keys(said)) {
		fmt.Fprintf(&all, "%s=%q\n", place, said[place])
	}
	if a.status == http.StatusOK {
		a.shown = shorten(all.String())
	}
	a.text = sha256.Sum256([]byte(all.String()))
	return a, nil
}

func (a *answer) readStream(body io.Reader, said map[string]string) error {
	var last time.Time
	return sse.Read(body, make([]byte, 32<<10), func(event []byte, at time.Time) error {
		if bytes.Equal(event, []byte("[DONE]")) {
			return nil
		}
		var v object
		if json.Unmarshal(event, &v) != nil || v["error"] != nil {
			return fmt.Errorf("a stream ended in %s", shorten(string(event)))
		}
		if !last.IsZero() {
			a.gaps = append(a.gaps, at.Sub(last))
		}
		last = at
		gather(v, "", said)
		return nil
	})
}

// gather adds the texts in an answer, or in one event of a stream, to what was
// said so far in the same place: which choice, which call, which field.
func gather(v any, place string, said map[string]string) {
	switch v := v.(type) {
	case []any:
		for i, e := range v {
			where := any(i)
			if o, ok := e.(object); ok && o["index"] != nil {
				where = o["index"] // in an event the second choice may come alone
			}
			gather(e, fmt.Sprintf("%s[%v]", place, where), said)
		}
	case object:
		for key, e := range v {
			text, ok := e.(string)
			switch key {
			case "content", "text", "arguments", "generated_text", "finish_reason", "name":
				if ok {
					said[place+"."+key] += text
				}
			}
			gather(e, place, said)
		}
	}
}

func shorten(s string) string {
	if len(s) > 300 {
		s = s[:300] + "…"
	}
	return s
}
