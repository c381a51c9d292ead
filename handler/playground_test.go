package handler

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

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
		{"/playground/lib/marked.esm.js", "text/javascript; charset=utf-8", 200},
		{"/playground/lib/dompurify.LICENSE.txt", "text/plain; charset=utf-8", 200},
		{"/playground/lib.sh", "text/plain; charset=utf-8", 404},
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
		tag := got.header.Get("ETag")
		if tt.status != 200 {
			continue
		}
		if again := ask(t, s, "GET", tt.path, "", "If-None-Match: "+tag); tag == "" || again.status != 304 {
			t.Errorf("%s again, with the tag %q: %d", tt.path, tag, again.status)
		}
	}
	if got := ask(t, s, "GET", "/playground", ""); got.header.Get("Location") != "playground/" {
		t.Errorf("location %q", got.header.Get("Location"))
	}
}

// GET / is the page for browsers, and health for others.
func TestRootOfBrowsers(t *testing.T) {
	s := newTestServer(&fake{}, func(o *Options) { o.APIKey = "k" })
	for accept, status := range map[string]int{
		"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8": 303, // Firefox's
		"*/*": 200, // curl's
		"":    200,
	} {
		got := ask(t, s, "GET", "/", "", "Accept: "+accept)
		if got.status != status || (got.header.Get("Location") == "playground/") != (status == 303) {
			t.Errorf("accept %q: %d to %q", accept, got.status, got.header.Get("Location"))
		}
	}
}

// The libraries are those that lib.sh has fetched.
func TestPlaygroundLibraries(t *testing.T) {
	sums, err := os.ReadFile("playground/lib/SHA256SUMS")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(sums)) {
		want, name, _ := strings.Cut(strings.TrimSpace(line), "  ")
		data, err := os.ReadFile(filepath.Join("playground/lib", name))
		if got := fmt.Sprintf("%x", sha256.Sum256(data)); err != nil || got != want {
			t.Errorf("%s: %s, %v; want %s", name, got, err, want)
		}
	}
}

// alternating is a chat template with tools that wants an answer after each
// message of a user.
const alternating = `{% for m in messages %}{% if m.role == 'user' and not loop.first and messages[loop.index0 - 1].role == 'user' %}` +
	`{{ raise_exception('Conversation roles must alternate') }}{% endif %}{% endfor %}` + hermesTemplate + `{% if '</think>' %}{% endif %}`

// tab is a playground in a browser, with a model that says what gen has.
type tab struct {
	*browser
	gen *fake
	url string
}

// openPlayground opens the page below the path of a proxy, at a server with the
// API key "k", whose /info has further members.
func openPlayground(t *testing.T, info string) *tab {
	t.Helper()
	gen := &fake{script: says(" a<b>& a<|eot_id|>")}
	return openPlaygroundOf(t, newChatServer(t, alternating, gen, func(o *Options) { o.APIKey = "k" }), gen, info)
}

func openPlaygroundOf(t *testing.T, s *Server, gen *fake, info string, flags ...string) *tab {
	t.Helper()
	m := http.NewServeMux()
	m.Handle("/below/", http.StripPrefix("/below", s))
	m.HandleFunc("/below/info", func(w http.ResponseWriter, r *http.Request) {
		rec := httptest.NewRecorder()
		http.StripPrefix("/below", s).ServeHTTP(rec, r)
		w.Header().Set("Content-Type", rec.Header().Get("Content-Type"))
		w.WriteHeader(rec.Code)
		body := rec.Body.String()
		if rec.Code == 200 {
			body = strings.TrimSuffix(body, "}") + info + "}"
		}
		io.WriteString(w, body)
	})
	server := httptest.NewServer(m)
	t.Cleanup(server.Close)
	p := &tab{browser: openBrowser(t, flags...), gen: gen, url: server.URL} // the browser ends before the server
	p.media(1280)
	p.must("Page.navigate", object{"url": server.URL + "/below/"}, nil)
	p.until("document.getElementById('key-dialog').open")
	return p
}

// unlock gives the page the API key.
func (p *tab) unlock() {
	p.t.Helper()
	p.until("document.getElementById('key-dialog').open")
	p.eval("document.getElementById('key').value = 'k', document.getElementById('key-form').requestSubmit()")
	p.until("document.getElementById('model-name').textContent === 'MODEL'")
	// What the page copies, tests read.
	p.eval("Object.defineProperty(navigator.clipboard, 'writeText', {value: async (t) => { window.copied = t; }})")
}

const (
	idle     = "document.querySelector('.stop').hidden"
	answers  = "document.querySelectorAll('#thread-a .message.assistant').length"
	lastText = "document.querySelector('#thread-a .message:last-child .answer').innerText"
)

// say sends a message by keyboard, and waits for the end of the answer.
func (p *tab) say(text string) {
	p.t.Helper()
	p.write("#say", text)
	p.press("Enter")
	p.until(idle)
}

// set gives a field of the parameters a value.
func (p *tab) set(id, value string) {
	p.t.Helper()
	p.eval("{ const f = document.getElementById(" + quoted(id) + "); f.value = " + quoted(value) + "; f.dispatchEvent(new Event('change', {bubbles: true})) }")
}

// act presses a small button of the last message, by its label.
func (p *tab) act(label string) {
	p.t.Helper()
	p.eval("[...document.querySelectorAll('#thread-a .message:last-child button')].find((b) => b.textContent === " + quoted(label) + ").click()")
}

// body returns the messages of the request sent last, as its code has them.
func (p *tab) body() (body struct {
	Messages []struct{ Role, Content string }
}) {
	p.t.Helper()
	code := p.text("#code")
	from, to := strings.Index(code, "-d '")+4, strings.LastIndex(code, "'")
	if err := json.Unmarshal([]byte(code[from:to]), &body); err != nil {
		p.t.Fatalf("%v in %s", err, code)
	}
	return body
}

func TestPlaygroundChat(t *testing.T) {
	p := openPlayground(t, `,"sampling_defaults":{"temperature":0.6,"top_k":20}`)
	gen := p.gen
	p.eval("document.getElementById('key').value = 'wrong', document.getElementById('key-form').requestSubmit()")
	p.until("document.getElementById('model-name').textContent === 'API key needed' && document.getElementById('key-dialog').open")
	p.unlock()
	p.contains("#model", "4,096 tokens", "2.4.1")

	t.Run("the model's defaults", func(t *testing.T) {
		p.holds("document.getElementById('a-temperature').placeholder === '0.6' && document.getElementById('a-top_k').placeholder === '20'")
		p.holds("document.querySelector('#a-temperature ~ [type=range]').value === '0.6'")
	})
	t.Run("by keyboard", func(t *testing.T) {
		p.holds("document.querySelectorAll('.sample').length >= 3 && document.activeElement.id === 'say'")
		p.say(`it's "me"`)
		p.contains(".message.assistant .prose", "a<b>& a")
		p.contains(".note", "tokens/s", "stop")
		p.contains("#code", "/below/v1/chat/completions", `it'\''s \"me\"`, "$API_KEY")
		p.press("Tab")
		p.holds("document.activeElement.id === 'probabilities'")
		p.press(" ")
		p.holds("document.activeElement.getAttribute('aria-pressed') === 'true' && document.getElementById('a-logprobs').checked")
	})
	t.Run("probabilities", func(t *testing.T) {
		p.say("again")
		p.eval("document.querySelector('.message:last-child .token').focus()")
		p.press("ArrowRight")
		p.holds("document.activeElement === document.querySelectorAll('.message:last-child .token')[1]")
		p.contains("#tip", "77.9 %", "-0.250")
		p.act("Show text")
		p.holds("document.querySelector('.message:last-child .raw').hidden && !document.querySelector('.message:last-child .prose').hidden")
		p.click("#probabilities")
	})
	t.Run("code", func(t *testing.T) {
		p.click("#chat .show-code")
		p.holds("document.getElementById('code-dialog').open")
		p.click("#copy")
		p.until("window.copied?.startsWith('curl -N ')")
		p.click("#tab-boto3")
		p.contains("#code", "invoke_endpoint_with_response_stream", `"stream": True`)
		p.click("#tab-openai")
		p.contains("#code", "client.chat.completions.create(", `os.environ["API_KEY"]`)
		p.click("#tab-curl")
		p.press("Escape")
		p.until("!document.getElementById('code-dialog').open")
		p.click("#new-chat")
		p.holds("!document.getElementById('code').textContent.includes('curl') && document.getElementById('thread-a').classList.contains('blank')")
	})
	t.Run("a request that fails leaves the chat as it was", func(t *testing.T) {
		p.say("one")
		p.set("a-max_tokens", "99999")
		p.say("two")
		p.until("!document.querySelector('#thread-a .problem').hidden")
		p.contains("#thread-a .why", "422 validation", "99999")
		p.holds("document.getElementById('say').value === 'two' && " + answers + " === 1")
		p.set("a-logit_bias", "{")
		p.click("#thread-a .retry")
		p.until("document.querySelector('#thread-a .why').textContent.includes('Token bias (logit_bias): not JSON')")
		p.holds("document.getElementById('say').value === 'two'")
		p.click("#reset")
		p.click("#thread-a .retry")
		p.until(idle + " && " + answers + " === 2")
		p.holds("document.getElementById('say').value === '' && document.querySelector('#thread-a .problem').hidden")
		p.say("three")
		p.holds(answers + " === 3")
	})
	t.Run("regenerate and continue", func(t *testing.T) {
		gen.script = says(" b<|eot_id|>")
		p.act("Regenerate")
		p.until(idle + " && " + lastText + ".trim() === 'b'")
		p.contains(".message:last-child .pager", "2 / 2")
		p.click(".message:last-child [aria-label='Previous answer']")
		p.holds(lastText + ".includes('a<b>& a')")
		p.click(".message:last-child [aria-label='Next answer']")
		gen.script = says("c d<|eot_id|>")
		p.act("Continue")
		p.until(idle + " && " + lastText + ".trim() === 'bc d'")
		body := p.body()
		if last := body.Messages[len(body.Messages)-1]; last.Role != "assistant" || strings.TrimSpace(last.Content) != "b" {
			t.Errorf("the last message is %v", last)
		}
	})
	t.Run("edit", func(t *testing.T) {
		p.act("Edit")
		p.write("#thread-a .edit textarea", "!")
		p.eval("document.querySelector('#thread-a .edit').requestSubmit()")
		p.until(lastText + ".trim() === 'bc d!'")
		gen.script = says(" e<|eot_id|>")
		p.eval("document.querySelectorAll('.message.user')[1].querySelector('button').click()")
		p.eval("document.querySelector('#thread-a .edit textarea').select()")
		p.write("#thread-a .edit textarea", "other")
		p.press("Enter")
		p.until(idle + " && " + answers + " === 2 && " + lastText + ".trim() === 'e'")
		if body := p.body(); len(body.Messages) != 3 || body.Messages[2].Content != "other" {
			t.Errorf("messages %v", body.Messages)
		}
	})
	t.Run("several answers", func(t *testing.T) {
		p.click("#new-chat")
		p.set("a-n", "2")
		p.say("x")
		p.contains(".message:last-child .pager", "1 / 2")
		p.click("#reset")
	})
	t.Run("tools", func(t *testing.T) {
		gen.script = says(`<tool_call>` + "\n" + `{"name": "get_weather", "arguments": {"city": "a"}}` + "\n</tool_call><|eot_id|>")
		p.click("#new-chat")
		p.click("#tools")
		p.holds("document.getElementById('parameters').open && !document.getElementById('a-tools').closest('.field').hidden")
		p.say("weather?")
		p.until("document.activeElement.matches('.results input')")
		p.contains(".call code", `get_weather({"city": "a"})`)
		gen.script = says(" a<|eot_id|>")
		p.write(".results input", "21")
		p.press("Enter")
		p.until(idle + " && " + answers + " === 2")
		p.contains(".message.tool", "21")
		p.click("#tools")
	})
	t.Run("reasoning", func(t *testing.T) {
		gen.script = says("<think>hm, a</think>b c<|eot_id|>")
		p.set("a-mode", "")
		p.say("think")
		const block = "#thread-a .message:last-child details.reasoning"
		p.contains(block, "Reasoning")
		p.holds("!document.querySelector('" + block + "').open && document.querySelector('" + block + " .text').textContent === 'hm, a'")
		p.holds("document.querySelector('#thread-a .message:last-child .prose').innerText.trim() === 'b c'")
		p.contains("#thread-a .message:last-child .note", "reasoning")
		p.say("more")
		p.contains("#code", `"reasoning_content": "hm, a"`)
	})
	t.Run("stop", func(t *testing.T) {
		emit := engine.Token{ID: 65, Logprob: -0.25}
		gen.script = func(_ *engine.Request, out *engine.StreamWriter) { out.Emit(emit) }
		p.click("#new-chat")
		p.write("#say", "x")
		p.press("Enter")
		p.until("document.querySelector('.message.assistant .prose')?.textContent.trim() === 'b'")
		p.press("Escape")
		p.until(idle)
		p.contains(".note", "stopped")
		gen.script = func(*engine.Request, *engine.StreamWriter) {}
		p.write("#say", "y")
		p.press("Enter")
		p.until("document.querySelectorAll('.message.user').length === 2")
		p.click("#chat .stop")
		p.until(idle + " && document.querySelectorAll('.message.user').length === 1")
		p.holds("document.getElementById('say').value === 'y' && document.querySelector('.problem').hidden")
	})
	p.checkVisit(p.url)
}

func TestPlaygroundMarkdown(t *testing.T) {
	p := openPlayground(t, "")
	p.unlock()
	text := "## Steps\n\n1. **bold** and `code`\n\n> quote\n\n```python\nprint(\"<b>\")\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n" +
		"[good](https://example.com/x) [bad](javascript:alert(1)) ![picture](https://example.com/p.png)\n\n" +
		"<img src=x onerror=\"window.hacked = 1\"><script>window.hacked = 1</script>"
	p.gen.script = says(text + "<|eot_id|>")
	p.say("x")
	for _, want := range []string{
		"prose.querySelector('h3').textContent === 'Steps'",
		"prose.querySelector('ol strong') && prose.querySelector('ol code') && prose.querySelector('blockquote')",
		"prose.querySelectorAll('td').length === 2",
		`prose.querySelector('.code pre').textContent === 'print("<b>")\n'`,
		"prose.querySelector('.code-bar').textContent.startsWith('python')",
		"prose.querySelector('a').rel === 'noopener noreferrer' && prose.querySelector('a').target === '_blank'",
		"[...prose.querySelectorAll('a')].every((a) => !a.href || a.href.startsWith('https://example.com/'))",
		"!prose.querySelector('img, script') && prose.textContent.includes('<img src=x onerror=') && !window.hacked",
	} {
		p.holds(strings.ReplaceAll(want, "prose", "document.querySelector('.assistant .prose')"))
	}
	p.click(".code-bar button")
	p.until(`window.copied === 'print("<b>")\n'`)
	p.contains(".code-bar button", "Copied")

	t.Run("blocks that stay keep their elements", func(t *testing.T) {
		p.eval("window.md = import('./markdown.js').then(({Markdown}) => { const e = document.createElement('div'); const m = new Markdown(e); return {e, m}; })")
		p.eval("md.then(({e, m}) => { m.show('one\\n\\ntwo'); window.first = e.firstChild; m.show('one\\n\\ntwo *three*\\n\\n- four'); window.parts = e; })")
		p.holds("parts.firstChild === first && parts.children.length === 3 && parts.querySelector('em') && parts.innerText.includes('four')")
	})
	p.checkVisit(p.url)
}

func TestPlaygroundFollows(t *testing.T) {
	p := openPlayground(t, "")
	p.unlock()
	more := make(chan int)
	p.gen.script = func(_ *engine.Request, out *engine.StreamWriter) {
		tokens, _ := spell("a\n\n", 10)
		for n := range more {
			for range n {
				out.Emit(tokens...)
			}
		}
		out.End(engine.FinishEOS, nil)
	}
	const (
		scroller = "document.querySelector('#thread-a .scroller')"
		left     = scroller + ".scrollHeight - " + scroller + ".clientHeight - " + scroller + ".scrollTop"
		lines    = "document.querySelectorAll('.assistant .prose p').length"
		toEnd    = "document.querySelector('#thread-a .to-end')"
	)
	p.write("#say", "x")
	p.press("Enter")
	more <- 60
	p.until(lines + " === 60 && " + left + " < 5")
	p.holds(scroller + ".scrollTop > 500 && document.getElementById('say').getBoundingClientRect().bottom <= innerHeight")
	p.eval(scroller + ".scrollTop -= 300")
	p.until("!" + toEnd + ".hidden")
	more <- 20
	p.until(lines + " === 80")
	p.holds(left + " > 600")
	p.eval(toEnd + ".click()")
	more <- 20
	p.until(lines + " === 100 && " + left + " < 5 && " + toEnd + ".hidden")
	close(more)
	p.until(idle)
	p.checkVisit(p.url)
}

func TestPlaygroundHistory(t *testing.T) {
	p := openPlayground(t, "")
	p.unlock()
	p.set("a-system", "Be brief.")
	p.say("first question")
	p.click("#new-chat")
	p.set("a-system", "")
	p.say("second question")
	titles := "[...document.querySelectorAll('#chat-list .title')].map((e) => e.textContent).join()"
	p.holds(titles + " === 'second question,first question'")

	t.Run("reload", func(t *testing.T) {
		p.must("Page.reload", nil, nil)
		p.until("document.getElementById('model-name').textContent === 'MODEL'") // with the key of this tab
		p.contains("#thread-a .message.user", "second question")
		p.eval("[...document.querySelectorAll('#chat-list .title')].find((e) => e.textContent === 'first question').click()")
		p.contains("#thread-a .message.user", "first question")
		p.holds("document.getElementById('a-system').value === 'Be brief.'")
	})
	t.Run("rename, search, delete and undo", func(t *testing.T) {
		p.click("[aria-label='Rename first question']")
		p.write("#chat-list form input", "Renamed")
		p.press("Enter")
		p.until(titles + ".includes('Renamed')")
		p.write("#search", "SECOND")
		p.until(titles + " === 'second question'")
		p.eval("document.getElementById('search').value = '', document.getElementById('search').dispatchEvent(new Event('input'))")
		p.click("[aria-label='Delete Renamed']")
		p.holds(titles + " === 'second question' && document.getElementById('thread-a').classList.contains('blank')")
		p.click("#notice button")
		p.holds(titles + ".includes('Renamed')")
		p.contains("#thread-a .message.user", "first question")
	})
	t.Run("files", func(t *testing.T) {
		folder := t.TempDir()
		p.must("Page.setDownloadBehavior", object{"behavior": "allow", "downloadPath": folder}, nil)
		// In this order: after all are imported, another chat may be open.
		for _, export := range [][2]string{{"#export-json", "renamed.json"}, {"#export-markdown", "renamed.md"}, {"#export-all", "millrace-chats.json"}} {
			button, name := export[0], export[1]
			p.click(button)
			file := waitForFile(t, filepath.Join(folder, name))
			if !strings.Contains(file, "first question") || !strings.Contains(file, "Be brief.") {
				t.Errorf("%s: %s", name, file)
			}
			p.eval("for (const k of Object.keys(localStorage)) if (k.includes(':chat:')) localStorage.removeItem(k)")
			p.eval("document.getElementById('notice').textContent = ''") // that of the import before
			p.eval(`{ const files = new DataTransfer(); files.items.add(new File([` + quoted(file) + `], ` + quoted(name) + `));
				const input = document.getElementById('import-file'); input.files = files.files; input.dispatchEvent(new Event('change')); }`)
			p.until("document.getElementById('notice').textContent.includes('imported')")
			p.contains("#thread-a .message.user", "question")
			p.contains("#thread-a .message.assistant .prose", "a<b>& a")
		}
		p.eval("document.querySelectorAll('#chat-list .title')[0].click()")
	})
	t.Run("Markdown there and back", func(t *testing.T) {
		got := p.eval(`import('./transfer.js').then(({ toMarkdown, fromText }) => {
			const call = { id: 'c', type: 'function', function: { name: 'f', arguments: '{}' } };
			const c = { title: 'A title', system: 'S', messages: [
				{ role: 'user', content: 'x\n## User\n\\## Tool\ny' },
				{ role: 'assistant', versions: [{ content: 'calling', tool_calls: [call] }], at: 0 },
				{ role: 'tool', content: '{"a": 1}', tool_call_id: 'c', name: 'f' },
				{ role: 'assistant', versions: [{ content: '# No title\n\n## Assistant' }], at: 0 } ] };
			const [back] = fromText(toMarkdown(c));
			return JSON.stringify(back) === JSON.stringify({ title: c.title, system: c.system, messages: c.messages }) || JSON.stringify(back);
		})`)
		if got != "true" {
			t.Error(got)
		}
		for _, wrong := range []string{"nothing", "{}", `{"format":"millrace-chats-1","conversations":[{"title":"x","messages":[{"role":"user"}]}]}`} {
			got := p.eval("import('./transfer.js').then(({ fromText }) => { try { return fromText(" + quoted(wrong) + "); } catch (e) { return e.message; } })")
			if !strings.Contains(got, "The ") {
				t.Errorf("%s is read as %s", wrong, got)
			}
		}
	})
	p.checkVisit(p.url)
}

// waitForFile returns the content of a file that is being written by another.
func waitForFile(t *testing.T, path string) string {
	t.Helper()
	for begun := time.Now(); time.Since(begun) < time.Minute; waitABit() {
		if data, err := os.ReadFile(path); err == nil && len(data) > 0 {
			return string(data)
		}
	}
	t.Fatalf("%s was not written in a minute", path)
	return ""
}

func TestPlaygroundSettings(t *testing.T) {
	p := openPlayground(t, `,"sampling_defaults":{"temperature":0.6}`)
	p.unlock()

	t.Run("compare", func(t *testing.T) {
		p.click("#compare")
		p.holds("!document.getElementById('fields-b').hidden && document.getElementById('parameters').open")
		p.set("b-temperature", "0.5")
		p.contains("#thread-b .side", "temperature 0.5")
		p.say("x")
		p.until("document.querySelectorAll('#thread-b .assistant').length === 1 && " + answers + " === 1")
		p.gen.mu.Lock()
		one, two := p.gen.all[0].Params, p.gen.all[1].Params
		p.gen.mu.Unlock()
		if one.Seed != two.Seed || one.Temperature == two.Temperature {
			t.Errorf("parameters %+v and %+v", one, two)
		}
		p.click("#keep-b")
		p.contains("#chat-list", "x (B)")
		p.click("#compare")
		p.holds("document.getElementById('thread-b').hidden && !document.getElementById('fields-a').hidden")
	})
	t.Run("link", func(t *testing.T) {
		p.set("a-temperature", "0.3")
		p.set("a-system", "Be ünique & brief.")
		p.write("#say", "hello")
		p.click("#share")
		p.until("window.copied?.includes('#')")
		to := p.eval("window.copied")
		if strings.Contains(to, "key") || !strings.Contains(to, "temperature=0.3") {
			t.Errorf("the link is %s", to)
		}
		p.eval("localStorage.clear()")
		p.click("#reset")
		p.eval("document.getElementById('say').value = ''")
		p.must("Page.navigate", object{"url": "about:blank"}, nil)
		p.until("location.href === 'about:blank'")
		p.must("Page.navigate", object{"url": to}, nil)
		p.until("document.getElementById('say')?.value === 'hello'")
		p.holds("document.getElementById('a-temperature').value === '0.3' && document.getElementById('a-system').value === 'Be ünique & brief.' && location.hash === ''")
		p.contains("#show-parameters", "(2)")
		p.must("Page.reload", nil, nil)
		p.until("document.readyState === 'complete' && document.getElementById('a-temperature')?.value === '0.3'") // they are kept
	})
	t.Run("strip", func(t *testing.T) {
		p.until("!document.getElementById('strip').hidden")
		p.holds("document.getElementById('strip-queue').textContent === '0' && document.getElementById('strip-cache').textContent === '0 %'")
	})
	t.Run("generate", func(t *testing.T) {
		p.until("document.getElementById('model-name').textContent === 'MODEL'")
		p.click("#tab-generate")
		p.click("#model-defaults")
		p.holds("document.getElementById('g-temperature').value === '0.6'")
		p.click("#generate-probabilities")
		p.set("g-top_n_tokens", "9")
		p.click("#generate .go")
		p.until("!document.getElementById('generate-problem').hidden")
		p.contains("#generate-problem", "422 validation", "`top_n_tokens` must be >= 0 and <= 5. Given: 9")
		p.set("g-top_n_tokens", "2")
		p.click("#generate .go")
		p.until(idle + " && document.querySelector('#output .token')")
		p.contains("#generate-note", "first token", "eos_token")
		p.eval("document.querySelector('#output .token').focus()")
		p.holds("document.querySelectorAll('#tip tr').length === 2 && document.getElementById('generate-problem').hidden")
		p.contains("#code", "/generate_stream")
		p.set("g-best_of", "2")
		p.eval("for (const f of ['stream', 'decoder_input_details']) document.getElementById('g-' + f).click()")
		p.click("#generate .go")
		p.until(idle + " && document.querySelectorAll('#output .message').length === 3")
	})
	p.checkVisit(p.url)
}

// The page on all kinds of screens, looked at by axe-core.
func TestPlaygroundAccessible(t *testing.T) {
	axe := axeCore(t)
	p := openPlayground(t, "")
	p.must("Page.setBypassCSP", object{"enabled": true}, nil) // for axe, which parses HTML
	p.must("Page.navigate", object{"url": p.url + "/below/playground/"}, nil)
	p.until("document.getElementById('key-dialog')?.open")
	check := func(what string) {
		t.Helper()
		p.eval(axe + "; 0")
		found := p.eval(`axe.run().then((r) => r.violations.map((v) => v.id + ': ' + v.nodes.map((n) => n.target + ' ' + n.failureSummary).join('; ')).join('\n'))`)
		if found != "" {
			t.Errorf("%s:\n%s", what, found)
		}
		p.holds("document.documentElement.scrollWidth <= innerWidth")
	}
	check("key")
	p.unlock()
	check("blank")
	p.gen.script = says("# Title\n\ntext `code` [link](https://example.com)\n\n> quote\n\n```python\nlong " + strings.Repeat("line ", 60) +
		"\n```\n\n- [x] done\n\n| " + strings.Repeat("column | ", 30) + "\n|" + strings.Repeat("---|", 30) + "\n| 1 |<|eot_id|>")
	p.say("x")
	p.click("#probabilities")
	p.say(strings.Repeat("y", 500))
	p.set("a-max_tokens", "99999")
	p.say("fails")
	p.click("#show-parameters")
	p.eval("for (const d of document.querySelectorAll('details')) d.open = true")
	for _, screen := range []struct {
		name     string
		width    int
		features []string
	}{{"wide", 1600, nil}, {"dark", 1280, []string{"prefers-color-scheme: dark"}}, {"mobile", 375, []string{"prefers-color-scheme: light"}}, {"dark mobile", 375, []string{"prefers-color-scheme: dark"}}} {
		p.media(screen.width, screen.features...)
		check(screen.name)
		for _, panel := range []string{"chats", "parameters"} {
			p.until("!document.getElementById('" + panel + "').matches(':modal')")
			if p.eval("document.getElementById('"+panel+"').open") == "false" {
				p.click("#show-" + panel)
			}
			check(screen.name + ", " + panel)
			if p.eval("document.getElementById('"+panel+"').matches(':modal')") == "true" {
				p.press("Escape")
				p.until("!document.getElementById('" + panel + "').open && document.getElementById('show-" + panel + "').ariaExpanded === 'false'")
			}
		}
	}
	p.click("#compare")
	p.press("Escape")
	check("compare")
	p.click("#chat .show-code")
	check("code")
	p.press("Escape")
	p.click("#show-more")
	check("more")
	p.click("#tab-generate")
	p.click("#generate .go")
	p.until(idle)
	check("generate")

	p.media(0, "prefers-reduced-motion: no-preference")
	const animation = "getComputedStyle(document.querySelector('.running .raw, .running .prose > :last-child'), '::after').animationName"
	p.gen.script = func(*engine.Request, *engine.StreamWriter) {}
	p.click("#generate .go")
	p.until(animation + " === 'blink'")
	p.media(0, "prefers-reduced-motion: reduce")
	p.until(animation + " === 'none'")
	p.press("Escape")
	p.until(idle)
}

// A model that reads images gets those that were chosen, dropped, pasted and taken with the
// camera, in this order, and a file that is none is named.
func TestPlaygroundImages(t *testing.T) {
	gen := &fake{script: says(" a<|eot_id|>")}
	s := newTestServer(gen, func(o *Options) { o.APIKey = "k" })
	s.SetReady(Model{
		Generator: gen, Tokenizer: testTokenizer(), Vision: &Vision{Processor: seeingProcessor(t)},
		Template: loadTemplate(t, `{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}{% for c in m.content %}`+
			`{% if c.type == 'image' %}<|end_of_text|>{% else %}{{ c.text }}{% endif %}{% endfor %}{% endif %}{% endfor %}`),
	})
	p := openPlaygroundOf(t, s, gen, "", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
	p.unlock()
	p.until("!document.getElementById('attach').hidden && !document.getElementById('camera').hidden")

	folder := t.TempDir()
	file := func(name string, data []byte) string {
		t.Helper()
		path := filepath.Join(folder, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	picture := func(c color.Color) []byte {
		t.Helper()
		_, encoded, _ := strings.Cut(dataURI(t, 40, 30, c), ",")
		data, err := base64.StdEncoding.DecodeString(encoded)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	red, green, blue := picture(color.RGBA{255, 0, 0, 255}), picture(color.RGBA{0, 255, 0, 255}), picture(color.RGBA{0, 0, 255, 255})
	seen := func(list string, n int) { // loaded, not only there
		t.Helper()
		p.until("((l) => l.length === " + strconv.Itoa(n) + " && l.every((i) => i.naturalWidth > 0))([...document.querySelectorAll('" + list + " img')])")
	}
	choose := func(paths ...string) {
		t.Helper()
		var document struct{ Root struct{ NodeID int } }
		p.must("DOM.getDocument", nil, &document)
		var input struct{ NodeID int }
		p.must("DOM.querySelector", object{"nodeId": document.Root.NodeID, "selector": "#image-file"}, &input)
		p.must("DOM.setFileInputFiles", object{"nodeId": input.NodeID, "files": paths}, nil)
	}
	drop := func(x, y float64, data object) {
		t.Helper()
		data["dragOperationsMask"] = 1
		for _, kind := range []string{"dragEnter", "dragOver", "drop"} {
			p.must("Input.dispatchDragEvent", object{"type": kind, "x": x, "y": y, "data": data}, nil)
		}
	}

	choose(file("red.png", red))
	seen("#images", 1)
	drop(640, 300, object{"items": []object{}, "files": []string{file("green.png", green)}})
	seen("#images", 2)
	p.must("Browser.grantPermissions", object{"permissions": []string{"clipboardReadWrite", "clipboardSanitizedWrite"}}, nil)
	p.eval(`navigator.clipboard.write([new ClipboardItem({ 'image/png': new Blob([Uint8Array.from(atob("` + base64.StdEncoding.EncodeToString(blue) +
		`"), (c) => c.charCodeAt())], { type: 'image/png' }) })])`)
	p.eval("document.getElementById('say').focus()")
	p.must("Input.dispatchKeyEvent", object{"type": "keyDown", "key": "v", "code": "KeyV", "modifiers": 2, "commands": []string{"paste"}}, nil)
	seen("#images", 3)
	p.click("#camera")
	p.until("!document.getElementById('shoot').disabled && document.getElementById('camera-view').videoWidth > 0")
	p.click("#shoot")
	seen("#images", 4)
	p.holds("!document.getElementById('camera-dialog').open && !document.getElementById('camera-view').srcObject")
	p.say("what?")
	p.contains(".message.assistant .prose", "a")
	seen(".message.user", 4)
	p.holds("document.getElementById('images').hidden")
	images := gen.last.Images
	if len(images) != 4 || images[0].Hash != sha256.Sum256(red) || images[1].Hash != sha256.Sum256(green) {
		t.Fatalf("%d images, not those that were added", len(images))
	}
	pasted, err := images[2].Input(t.Context()) // which the clipboard has encoded again
	if err != nil {
		t.Fatal(err)
	}
	const plane = 14 * 14 // of a patch's three: red, green and blue
	if px := pasted.Inputs[0].Patches; px[0] >= 0 || px[plane] >= 0 || px[2*plane] <= 0 {
		t.Error("the pasted image is not blue")
	}

	t.Run("an image alone", func(t *testing.T) {
		p.click("#new-chat")
		choose(file("green.png", green))
		seen("#images", 1)
		p.click("#chat .go")
		p.until(idle + " && " + answers + " === 1")
		p.contains("#chat-list", "Image")
		if n := len(gen.last.Images); n != 1 {
			t.Errorf("%d images were sent", n)
		}
	})
	t.Run("a large photograph", func(t *testing.T) { // which the body has no room for
		var large bytes.Buffer
		if err := (&png.Encoder{CompressionLevel: png.NoCompression}).Encode(&large, image.NewNRGBA(image.Rect(0, 0, 4096, 512))); err != nil {
			t.Fatal(err)
		}
		choose(file("large.png", large.Bytes()))
		seen("#images", 1)
		p.holds("document.querySelector('#images img').naturalWidth === 2048 && document.querySelector('#images img').src.startsWith('data:image/jpeg')")
		p.say("large")
		in, err := gen.last.Images[len(gen.last.Images)-1].Input(t.Context())
		if err != nil || in.Inputs[0].Patches[0] <= 0 {
			t.Errorf("what was transparent is not white, %v", err)
		}
		p.click("#new-chat")
		choose(file("green.png", green))
		seen("#images", 1)
		p.say("green")
	})
	t.Run("a bad file", func(t *testing.T) {
		choose(file("note.txt", []byte("a note")))
		p.until("document.getElementById('notice').textContent === 'note.txt is not an image in PNG, JPEG, WebP, GIF or BMP.'")
		choose(file("red.png", red), file("broken.png", []byte("no PNG")))
		p.until("document.querySelectorAll('#images img').length === 2")
		p.say("and this?")
		p.until("!document.querySelector('#thread-a .problem').hidden")
		p.contains("#thread-a .why", "422", "(image 3 of 3)")
		p.holds("document.getElementById('say').value === 'and this?' && document.querySelectorAll('#images img').length === 2")
		p.eval("document.querySelectorAll('#images .image')[1].click()")
		p.click("#thread-a .retry")
		p.until(idle + " && " + answers + " === 2")
	})
	t.Run("text is dropped as text", func(t *testing.T) {
		p.eval("document.getElementById('say').value = ''")
		box := p.eval("{ const r = document.getElementById('say').getBoundingClientRect(); [r.x + r.width / 2, r.y + r.height / 2] }")
		var at [2]float64
		if err := json.Unmarshal([]byte(box), &at); err != nil {
			t.Fatal(err)
		}
		drop(at[0], at[1], object{"items": []object{{"mimeType": "text/plain", "data": "dropped"}}})
		p.until("document.getElementById('say').value === 'dropped'")
	})
	p.checkVisit(p.url)
}

// axeCore returns the source of axe-core, which npm fetches once.
func axeCore(t *testing.T) string {
	t.Helper()
	const version = "4.14.1"
	npm, err := exec.LookPath("npm")
	if err != nil {
		t.Skip("there is no npm to fetch axe-core with")
	}
	folder, err := filepath.Abs("../build/axe-core-" + version)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(folder, "node_modules/axe-core/axe.min.js")
	if _, err := os.Stat(file); err != nil {
		out, err := exec.Command(npm, "install", "--prefix", folder, "--silent", "--no-audit", "--no-fund", "axe-core@"+version).CombinedOutput()
		if err != nil {
			t.Fatalf("npm: %v: %s", err, out)
		}
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
