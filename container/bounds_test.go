package main

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
)

// TestLargeBodies sends eight of the largest bodies at once to each route, and
// a small request beside them. Whatever becomes of the large ones is said at
// once, the small one is served, and memory stays within what is planned.
func TestLargeBodies(t *testing.T) {
	const (
		size   = 1_900_000
		copies = 8
		most   = 300 // MB beside what the idle server has
	)
	p := start(t, nil).ready()
	status := fmt.Sprintf("proc/%d/status", p.cmd.Process.Pid)
	if _, err := field(os.DirFS("/"), status, "VmHWM:"); err != nil {
		t.Skip("needs /proc")
	}
	const small = `{"inputs":"x","parameters":{"max_new_tokens":1}}`
	p.post("/generate", small) // what the first request takes is not the large ones'
	idle := residentMB(t, p.cmd.Process.Pid)

	many := func(n int, part, last string) string { return strings.Repeat(part, n/len(part)) + last }
	prompt := func(text string) string { return `{"inputs":"` + text + `"}` }
	chat := func(messages string) string { return `{"messages":[` + messages + `]}` }
	const user = `{"role":"user","content":""}`
	for _, tt := range []struct{ name, path, body string }{
		{"a word", "/tokenize", prompt(many(size, "x", ""))},
		{"words that fit", "/tokenize", prompt(many(200_000, "hello world ", ""))},
		{"a word that fits", "/tokenize", prompt(many(200_000, "x", ""))},
		{"words", "/generate", prompt(many(size, "hello world ", ""))},
		{"words in a stream", "/generate_stream", prompt(many(size, "hello world ", ""))},
		{"words to be cut", "/generate", `{"parameters":{"truncate":9},` + prompt(many(size, "hello world ", ""))[1:]},
		{"SageMaker", "/invocations", prompt(many(size, "hello world ", ""))},
		{"Vertex", "/vertex", `{"instances":[` + prompt(many(size, "hello world ", "")) + `]}`},
		{"empty messages", "/v1/chat/completions", chat(many(size, user+",", user))},
		{"empty messages", "/chat_tokenize", chat(many(size, user+",", user))},
		{"calls", "/chat_tokenize", chat(`{"role":"assistant","content":"","tool_calls":[` + many(size, `{"function":{"name":"a"}},`, `{"function":{"name":"a"}}`) + `]},` + user)},
		{"tools", "/v1/chat/completions", `{"tools":[` + many(size, `{"type":"function","function":{"name":"a","parameters":{}}},`, `{"type":"function","function":{"name":"a","parameters":{}}}`) + `],` + chat(user)[1:]},
		{"variables", "/v1/chat/completions", `{"chat_template_kwargs":{"a":[` + many(size, `{},`, `{}`) + `]},` + chat(user)[1:]},
		{"token ids", "/v1/completions", `{"prompt":[` + many(size, "1,", "1") + `],"max_tokens":1}`},
		{"prompts", "/v1/completions", `{"prompt":["` + many(size, "hello world ", "") + `","a"],"max_tokens":1}`},
		{"stop strings", "/generate", `{"parameters":{"stop":[` + many(size, `"a",`, `"a"`) + `]},` + prompt("x")[1:]},
	} {
		t.Run(tt.name+" to "+tt.path, func(t *testing.T) {
			var all sync.WaitGroup
			for range copies {
				all.Go(func() {
					switch status, body := p.post(tt.path, tt.body); status {
					case http.StatusOK, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity, http.StatusTooManyRequests:
					default:
						t.Errorf("%d %.300s", status, body)
					}
				})
			}
			if status, body := p.post("/generate", small); status != http.StatusOK {
				t.Errorf("a small request beside them: %d %s", status, body)
			}
			all.Wait()
			peak, err := field(os.DirFS("/"), status, "VmHWM:")
			if err != nil {
				t.Fatal(err)
			}
			if above := float64(peak)/1024 - idle; above > most {
				t.Errorf("%.0f MB at the peak, %.0f MB above the idle server; want at most %d MB", float64(peak)/1024, above, most)
			}
		})
	}
}
