package handler

import (
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/millrace-ai/millrace/engine"
)

func TestPlaygroundFiles(t *testing.T) {
	s := newTestServer(&fake{}, func(o *Options) { o.APIKey = "k" })
	for _, tt := range []struct {
		path, kind string
		status     int
	}{
		{"/playground", "", 303},
		{"/playground/", "text/html; charset=utf-8", 200},
		{"/playground/style.css", "text/css; charset=utf-8", 200},
		{"/playground/app.js", "text/javascript; charset=utf-8", 200},
		{"/playground/playground.go", "text/plain; charset=utf-8", 404},
		{"/playground/../info", "text/plain; charset=utf-8", 404},
	} {
		got := ask(t, s, "GET", tt.path, "")
		if got.status != tt.status || got.header.Get("Content-Type") != tt.kind {
			t.Errorf("%s: %d %q, want %d %q", tt.path, got.status, got.header.Get("Content-Type"), tt.status, tt.kind)
		}
		if policy := got.header.Get("Content-Security-Policy"); tt.status == 200 && !strings.HasPrefix(policy, "default-src 'none'; script-src 'self'") {
			t.Errorf("%s: policy %q", tt.path, policy)
		}
	}
	if got := ask(t, s, "GET", "/playground", ""); got.header.Get("Location") != "playground/" {
		t.Errorf("location %q", got.header.Get("Location"))
	}
}

// The page as its reader meets it, in a browser.
func TestPlayground(t *testing.T) {
	b := openBrowser(t)
	gen := &fake{script: says(" a<b>& a<|eot_id|>")}
	server := httptest.NewServer(newChatServer(t, hermesTemplate, gen, func(o *Options) { o.APIKey = "k" }))
	defer server.Close()
	b.must("Page.navigate", object{"url": server.URL + "/playground/"}, nil)

	idle := "document.querySelector('.stop').disabled && document.getElementById('stats').textContent != '…'"
	text := func(element string) string {
		return b.eval("document.querySelector(" + quoted(element) + ").textContent")
	}
	contains := func(element string, wants ...string) {
		t.Helper()
		for _, want := range wants {
			if got := text(element); !strings.Contains(got, want) {
				t.Errorf("%s: no %q in %q", element, want, got)
			}
		}
	}

	b.until("document.getElementById('model').textContent.includes('API key')")
	b.eval("document.getElementById('key').value = 'k', document.getElementById('key').dispatchEvent(new Event('change'))")
	b.until("document.getElementById('model').textContent.includes('MODEL')")
	contains("#model", "4096 tokens", "2.4.1")

	t.Run("chat by keyboard", func(t *testing.T) {
		b.write("#say", "it's \"me\"")
		b.press("Enter")
		b.until(idle + " && document.querySelector('.message.assistant')")
		contains(".message.assistant .text", " a<b>& a")
		contains("#stats", "tokens/s", "stop")
		contains("#code", "/v1/chat/completions", `it'\''s \"me\"`, "$API_KEY")
		b.eval("document.querySelector('.assistant .token').focus()")
		b.press("ArrowRight")
		if b.eval("document.activeElement === document.querySelectorAll('.assistant .token')[1]") != "true" {
			t.Error("the arrow does not lead to the next token")
		}
		contains("#tip", "77.9 %", "-0.250")
	})
	t.Run("code", func(t *testing.T) {
		b.eval("document.getElementById('tab-boto3').click()")
		contains("#code", "invoke_endpoint_with_response_stream", `"content": "it's \"me\""`, `"stream": True`)
		b.eval("document.getElementById('tab-openai').click()")
		contains("#code", "client.chat.completions.create(", `os.environ["API_KEY"]`)
	})
	t.Run("tools", func(t *testing.T) {
		gen.script = says(`<tool_call>` + "\n" + `{"name": "get_weather", "arguments": {"city": "a"}}` + "\n</tool_call><|eot_id|>")
		b.eval("document.getElementById('again').click()")
		b.eval("{ const m = document.querySelector('#chat-fields [name=mode]'); m.value = 'tools'; m.dispatchEvent(new Event('change')) }")
		b.write("#say", "weather?")
		b.press("Enter")
		b.until(idle + " && document.querySelector('form.call input')")
		contains(".call code", `get_weather({"city": "a"})`)
		gen.script = says(" a<|eot_id|>")
		b.write("form.call input", "21")
		b.press("Enter")
		b.until(idle + " && document.querySelectorAll('.assistant').length == 2")
		contains(".message.tool", "21")
	})
	t.Run("error", func(t *testing.T) {
		b.eval("document.getElementById('tab-generate').click()")
		b.eval("document.querySelector('#generate-fields [name=top_n_tokens]').value = 9")
		b.eval("document.getElementById('generate-form').requestSubmit()")
		b.until("!document.getElementById('error').hidden")
		contains("#error", "422 validation", "`top_n_tokens` must be >= 0 and <= 5. Given: 9")
	})
	t.Run("alternatives", func(t *testing.T) {
		b.eval("document.querySelector('#generate-fields [name=top_n_tokens]').value = 2")
		b.eval("document.getElementById('generate-form').requestSubmit()")
		b.until(idle + " && document.querySelector('#output .token')")
		contains("#stats", "first token", "eos_token")
		b.eval("document.querySelector('#output .token').focus()")
		if rows := b.eval("document.querySelectorAll('#tip tr').length"); rows != "2" {
			t.Errorf("%s rows of alternatives", rows)
		}
		if hidden := b.eval("document.getElementById('error').hidden"); hidden != "true" {
			t.Error("the error of the request before is still there")
		}
	})
	t.Run("stop", func(t *testing.T) {
		gen.script = func(_ *engine.Request, out *engine.StreamWriter) { out.Emit(engine.Token{ID: 65, Logprob: -0.25}) }
		b.eval("document.getElementById('generate-form').requestSubmit()")
		b.until("document.querySelector('#output .token')")
		b.press("Escape")
		b.until(idle)
		contains("#stats", "stopped here")
		contains("#output", "b")
	})

	b.checkVisit(server.URL)
}
