package main

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millrace-ai/millrace/container/source/s3test"
	"github.com/millrace-ai/millrace/engine/weights/weightstest"
)

// demoAdapter returns the files of an adapter of the demo model, of every linear layer,
// other ones for another seed. With size 0 it changes nothing.
func demoAdapter(seed uint64, rank int, size float64) map[string][]byte {
	rng := rand.New(rand.NewPCG(seed, 0))
	var tensors []weightstest.Tensor
	add := func(name string, rows, cols int, size float64) {
		t := weightstest.Tensor{Name: name, DType: "BF16", Shape: []int{rows, cols}}
		for range rows * cols {
			t.Data = binary.LittleEndian.AppendUint16(t.Data, uint16(math.Float32bits(float32(rng.NormFloat64()*size))>>16))
		}
		tensors = append(tensors, t)
	}
	for layer := range 5 {
		for _, m := range []struct {
			name    string
			out, in int
		}{
			{"self_attn.q_proj", 256, 256}, {"self_attn.k_proj", 64, 256}, {"self_attn.v_proj", 64, 256}, {"self_attn.o_proj", 256, 256},
			{"mlp.gate_proj", 512, 256}, {"mlp.up_proj", 512, 256}, {"mlp.down_proj", 256, 512},
		} {
			name := fmt.Sprintf("base_model.model.model.layers.%d.%s.", layer, m.name)
			add(name+"lora_A.weight", rank, m.in, 1/math.Sqrt(float64(m.in)))
			add(name+"lora_B.weight", m.out, rank, size/math.Sqrt(float64(rank)))
		}
	}
	config := fmt.Sprintf(`{"peft_type":"LORA","r":%d,"lora_alpha":%d,"target_modules":"all-linear","bias":"none"}`, rank, rank)
	return map[string][]byte{"adapter_config.json": []byte(config), "adapter_model.safetensors": weightstest.File(tensors...)}
}

// generated returns the text of an answer of /generate, or its error.
func generated(t testing.TB, status int, body string) (text, failure string) {
	t.Helper()
	var answer struct {
		Text  string `json:"generated_text"`
		Error string
	}
	if err := json.Unmarshal([]byte(body), &answer); err != nil || (status == http.StatusOK) != (answer.Error == "") {
		t.Fatalf("%d %s", status, body)
	}
	return answer.Text, answer.Error
}

// Adapters of a folder, of S3 and of the routes of vLLM and SageMaker answer by the
// names that they were given, in all the ways in which requests name them.
func TestAdapters(t *testing.T) {
	server := s3test.NewServer(t)
	for name, data := range demoAdapter(2, 4, 2) {
		server.Put("adapters", "two/"+name, data)
	}
	server.Put("adapters", "pickle/adapter_config.json", demoAdapter(2, 4, 2)["adapter_config.json"])
	server.Put("adapters", "pickle/adapter_model.bin", []byte("\x80\x02"))
	one, nothing := weightstest.Folder(t, demoAdapter(1, 4, 2)), weightstest.Folder(t, demoAdapter(3, 4, 0))
	p := start(t, s3Env(server.URL), "--lora-adapters", "one="+one+",nothing="+nothing, "--allow-runtime-lora-updating").ready()

	const prompt = "What does Millrace do, and where does it run? Say it in a few words."
	generate := func(adapter string) string {
		t.Helper()
		status, body := p.post("/generate", fmt.Sprintf(`{"inputs":%q,"parameters":{"max_new_tokens":12,"adapter_id":%q}}`, prompt, adapter))
		text, failure := generated(t, status, body)
		return cmp.Or(failure, text)
	}
	base, first := generate(""), generate("one")
	if base == first || generate("nothing") != base || generate("one") != first {
		t.Errorf("base %q, adapter %q, one that changes nothing %q", base, first, generate("nothing"))
	}
	if got := generate("two"); !strings.Contains(got, `no adapter "two"`) || !strings.Contains(got, "nothing, one") {
		t.Errorf("an unknown adapter: %q, want the known ones", got)
	}
	// A hit in the cache of prefixes is the adapter's own: all prompts were the same.
	chat := func(model string) (text string, cached int) {
		t.Helper()
		status, body := p.post("/v1/completions", fmt.Sprintf(`{"model":%q,"prompt":%q,"max_tokens":12,"temperature":0}`, model, prompt))
		var answer struct {
			Model   string
			Choices []struct{ Text string }
			Usage   struct {
				Details struct {
					Cached int `json:"cached_tokens"`
				} `json:"prompt_tokens_details"`
			}
		}
		if err := json.Unmarshal([]byte(body), &answer); err != nil || status != 200 || len(answer.Choices) != 1 || answer.Model != model {
			t.Fatalf("%s: %d %s", model, status, body)
		}
		return answer.Choices[0].Text, answer.Usage.Details.Cached
	}
	if text, cached := chat("one"); text != first || cached == 0 {
		t.Errorf("a completion of the adapter: %q with %d cached tokens, want %q from the cache", text, cached, first)
	}

	ask := func(method, path, body string, want int) string {
		t.Helper()
		status, answer := p.do(method, path, body)
		if status != want {
			t.Errorf("%s %s %s: %d %s, want %d", method, path, body, status, answer, want)
		}
		return answer
	}
	ask("POST", "/v1/load_lora_adapter", `{"lora_name":"two","lora_path":"s3://adapters/two"}`, 200)
	second, cached := chat("two")
	if second == first || second == base || cached != 0 {
		t.Errorf("another adapter: %q with %d cached tokens", second, cached)
	}
	ask("POST", "/v1/load_lora_adapter", `{"lora_name":"two","lora_path":"`+one+`"}`, 409)
	ask("POST", "/v1/load_lora_adapter", `{"lora_name":"bad","lora_path":"s3://adapters/pickle"}`, 424)
	ask("POST", "/v1/load_lora_adapter", `{"lora_name":"bad","lora_path":"/no/such/folder"}`, 424)
	ask("POST", "/v1/load_lora_adapter", `{"lora_name":"millrace-demo","lora_path":"`+one+`"}`, 422)
	ask("POST", "/v1/load_lora_adapter", `{"lora_name":"two","lora_path":"`+one+`","load_inplace":true}`, 200)
	if text, cached := chat("two"); text != first || cached != 0 {
		t.Errorf("another adapter under the name: %q with %d cached tokens, want %q and none", text, cached, first)
	}
	ask("POST", "/v1/unload_lora_adapter", `{"lora_name":"two"}`, 200)
	ask("POST", "/v1/unload_lora_adapter", `{"lora_name":"two"}`, 404)

	// SageMaker's platform: registered twice, listed, asked for, replaced, deleted.
	ask("POST", "/adapters", `{"name":"two","src":"s3://adapters/two","pin":"true"}`, 200)
	ask("POST", "/adapters", `{"name":"two","src":"s3://adapters/two"}`, 200)
	if got, want := ask("GET", "/adapters?limit=2", "", 200), `{"name":"one","src":`; !strings.Contains(got, want) || !strings.Contains(got, `"next_page_token":"one"`) {
		t.Errorf("the first page of adapters: %s", got)
	}
	if got, want := ask("GET", "/adapters?next_page_token=one", "", 200), `{"adapters":[{"name":"two","src":"s3://adapters/two","pin":false}]}`; got != want {
		t.Errorf("the next page of adapters: %s, want %s", got, want)
	}
	ask("POST", "/adapters", `{"name":"bad","src":"s3://adapters/pickle"}`, 424)
	ask("GET", "/adapters/bad", "", 404)
	invoke := func(adapter, body string) string {
		t.Helper()
		req, err := http.NewRequest(http.MethodPost, p.url+"/invocations", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Amzn-SageMaker-Adapter-Identifier", adapter)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var texts []struct {
			Text string `json:"generated_text"`
		}
		if resp.StatusCode != 200 || json.NewDecoder(resp.Body).Decode(&texts) != nil || len(texts) != 1 {
			return fmt.Sprint(resp.StatusCode)
		}
		return texts[0].Text
	}
	body := fmt.Sprintf(`{"inputs":%q,"parameters":{"max_new_tokens":12,"return_full_text":false}}`, prompt)
	if got := invoke("two", body); got != second {
		t.Errorf("a request of the platform for the adapter: %q, want %q", got, second)
	}
	ask("POST", "/adapters/two/update", `{"src":"`+one+`"}`, 200)
	if got := invoke("two", body); got != first {
		t.Errorf("after an update: %q, want %q", got, first)
	}
	if got := invoke("two", strings.Replace(body, `"max_new`, `"adapter_id":"one","max_new`, 1)); got != "422" {
		t.Errorf("two adapters at once: %s, want 422", got)
	}
	if got := ask("GET", "/v1/models", "", 200); !strings.Contains(got, `{"id":"two","object":"model","created":0,"owned_by":"millrace-demo","parent":"millrace-demo"`) {
		t.Errorf("/v1/models: %s", got)
	}
	if got := ask("GET", "/info", "", 200); !strings.Contains(got, `"adapters":["nothing","one","two"]`) {
		t.Errorf("/info: %s", got)
	}
	if got := ask("GET", "/metrics", "", 200); !strings.Contains(got, "millrace_adapters_loaded 3") || !strings.Contains(got, "millrace_adapter_load_failures_total 3") {
		t.Errorf("/metrics: %s", got)
	}
	ask("DELETE", "/adapters/two", "", 200)
	ask("DELETE", "/adapters/two", "", 200)
	if got := invoke("two", body); got != "422" {
		t.Errorf("a request for an adapter that was deleted: %s, want 422", got)
	}
	if got := generate(""); got != base {
		t.Errorf("the model itself: %q, want %q as at first", got, base)
	}
}

// A broken adapter of --lora-adapters ends the start, with its reason.
func TestAdaptersRefusedAtStart(t *testing.T) {
	files := demoAdapter(1, 4, 2)
	files["adapter_config.json"] = []byte(`{"peft_type":"LORA","r":8,"lora_alpha":8,"target_modules":"all-linear"}`)
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"--lora-adapters", "a=b=c"}, "Invalid LoRA adapter format: a=b=c"},
		{[]string{"--lora-adapters", `[{"name":"a"}]`}, "expected an object with name and path"},
		{[]string{"--lora-adapters", "a=/no/such/folder"}, "--lora-adapters: adapter a from /no/such/folder"},
		{[]string{"--lora-adapters", "a=" + weightstest.Folder(t, files)}, "rank 8 in adapter_config.json"},
		{[]string{"--adapter-memory", "1", "--lora-adapters", "a=" + weightstest.Folder(t, demoAdapter(1, 16, 2))}, "no room for the adapter"},
	} {
		if status, stderr := refused(t, nil, append([]string{"serve", "--port", "0"}, tt.args...)...); status != 2 || !strings.Contains(stderr, tt.want) {
			t.Errorf("%v: %d %s, want 2 and %q", tt.args, status, stderr, tt.want)
		}
	}
}

// BenchmarkAdapters measures how much later the first token comes if its adapter, of
// 8 MB, must be loaded from an S3 server on the same cores, and how many tokens 32
// streams with 8 adapters of rank 16 get, beside what they get without any.
func BenchmarkAdapters(b *testing.B) {
	server := s3test.NewServer(b)
	const large = 144 // rank at which it has 8 MB
	for name, data := range demoAdapter(1, large, 0.1) {
		server.Put("adapters", "large/"+name, data)
		b.Logf("%s: %d bytes", name, len(data))
	}
	var list []string
	for i := range 8 {
		list = append(list, fmt.Sprintf("a%d=%s", i, weightstest.Folder(b, demoAdapter(uint64(i+1), 16, 0.1))))
	}
	p := start(b, s3Env(server.URL), "--lora-adapters", strings.Join(list, ","), "--allow-runtime-lora-updating").ready()
	ask := func(adapter string, tokens, i int) time.Duration {
		begin := time.Now()
		body := fmt.Sprintf(`{"inputs":"%d: What does Millrace do?","parameters":{"max_new_tokens":%d,"adapter_id":%q}}`, i, tokens, adapter)
		if status, answer := p.post("/generate", body); status != 200 {
			b.Fatalf("%d %s", status, answer)
		}
		return time.Since(begin)
	}
	b.Run("first token", func(b *testing.B) {
		var later []time.Duration
		for n := 0; b.Loop(); n++ {
			name := fmt.Sprintf("large-%d", n)
			if status, answer := p.post("/adapters", fmt.Sprintf(`{"name":%q,"src":"s3://adapters/large","preload":false}`, name)); status != 200 {
				b.Fatalf("%d %s", status, answer)
			}
			loads := ask(name, 1, 2*n)
			later = append(later, loads-ask(name, 1, 2*n+1))
			p.do("DELETE", "/adapters/"+name, "")
		}
		slices.Sort(later)
		b.ReportMetric(float64(later[len(later)/2].Microseconds())/1000, "ms-later")
	})
	b.Run("mixed", func(b *testing.B) {
		const streams, tokens = 32, 64
		run := func(adapters int) float64 {
			begin := time.Now()
			var wait sync.WaitGroup
			for i := range streams {
				name := ""
				if adapters > 0 {
					name = fmt.Sprintf("a%d", i%adapters)
				}
				wait.Go(func() { ask(name, tokens, i) })
			}
			wait.Wait()
			return time.Since(begin).Seconds()
		}
		run(8)
		base, mixed := math.Inf(1), math.Inf(1)
		for b.Loop() {
			base, mixed = min(base, run(0)), min(mixed, run(8))
		}
		b.ReportMetric(base/mixed, "of-base")
	})
}
