package main

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/millrace-ai/millrace/engine/weights/weightstest"
)

// printed runs the program, which must succeed, and returns its standard output.
func printed(t *testing.T, env []string, args ...string) string {
	t.Helper()
	cmd := command(env, args...)
	var out bytes.Buffer
	cmd.Stdout = &out
	if status, stderr := ended(t, cmd); status != 0 || stderr != "" {
		t.Fatalf("millrace %q: status %d, %q", args, status, stderr)
	}
	return out.String()
}

// commandNames are the commands that help lists.
var commandNames = []string{"serve", "chat", "pull", "inspect", "prefix", "bench", "sagemaker", "lambda", "env", "completion", "man", "version", "help"}

func TestHelp(t *testing.T) {
	program := printed(t, nil, "--help")
	for _, name := range commandNames {
		if !strings.Contains(program, "\n  "+name+" ") {
			t.Errorf("--help lacks %s:\n%s", name, program)
		}
		help := printed(t, nil, "help", name)
		if want := printed(t, nil, name, "--help"); help != want || !strings.HasPrefix(help, "Usage: millrace "+name) {
			t.Errorf("help %s is not %s --help:\n%s", name, name, help)
		}
	}
	if strings.Contains(program, "__complete") || printed(t, nil, "help") != program {
		t.Error("help without a command is not --help, or shows what is for scripts")
	}
	serve := printed(t, nil, "serve", "--help")
	for _, want := range []string{"\nModel:\n", "\nServer:\n", "\nLimits:\n", "\nCache and batching:\n", "\nDefaults of generation:\n", "\nAWS (SageMaker and Lambda):\n", "\nLogging and tracing:\n", "\nExamples:\n", "MILLRACE_DEVICE"} {
		if !strings.Contains(serve, want) {
			t.Errorf("serve --help lacks %q", want)
		}
	}
	if strings.Contains(serve, "--sharded") || strings.Contains(serve, "--ngrok") || strings.Contains(serve, "$ENV") {
		t.Error("serve --help shows flags that only TGI's command lines need, or a variable of --env")
	}
	all := printed(t, nil, "serve", "--help-all")
	effect, refused, found := strings.Cut(all, "TGI compatibility, refused because they are not in this build:")
	if !found || !strings.Contains(effect, "--sharded") || !strings.Contains(refused, "--ngrok") || strings.Contains(effect, "--ngrok") {
		t.Errorf("serve --help-all:\n%s", all)
	}
	if printed(t, nil, "help", "serve", "--all") != all {
		t.Error("help serve --all is not serve --help-all")
	}
	for _, placeholder := range []string{"=STRING", "=INT", "=FLOAT-64", `=""`} {
		if strings.Contains(all, placeholder) {
			t.Errorf("serve --help-all says %s", placeholder)
		}
	}
}

func TestVersion(t *testing.T) {
	for _, flag := range []string{"--version", "-V"} {
		if got := printed(t, nil, flag); !strings.HasPrefix(got, "millrace test") || strings.Count(got, "\n") != 1 {
			t.Errorf("%s: %q", flag, got)
		}
	}
	got := printed(t, nil, "version")
	if ok, _ := regexp.MatchString(`^millrace test.*\ngo1\.\S+ linux/\S+\ncpu: \S+, \d+ threads\n$`, got); !ok {
		t.Errorf("version: %q", got)
	}
}

// The shells ask the program how a line may go on.
func TestCompletion(t *testing.T) {
	for _, tt := range []struct{ words, want string }{
		{"ch", "chat"},
		{"sagemaker de", "deploy delete"},
		{"help inv insp", "inspect"},
		{"completion ", "bash zsh fish"},
		{"serve --model-", "--model-id"},
		{"--model-", "--model-id"}, // serve's, without its name
		{"serve --error-format ", "tgi openai"},
		{"serve --model-id ", ""}, // a file
		{"serve --sharde", ""},    // hidden
		{"lambda run --max-best", "--max-best-of"},
	} {
		var got []string
		for line := range strings.Lines(printed(t, nil, append([]string{"__complete"}, strings.Split(tt.words, " ")...)...)) {
			word, _, ok := strings.Cut(line, "\t")
			if !ok {
				t.Errorf("%q: %q has no description", tt.words, line)
			}
			got = append(got, word)
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%q goes on with %q, want %q", tt.words, got, tt.want)
		}
	}

	// Each script is read by its shell, and bash completes with it.
	for shell, read := range map[string][]string{
		"bash": {"-c", `source "$0" && COMP_WORDS=(` + millrace + ` sagemaker del) && COMP_CWORD=2 && _millrace && echo "${COMPREPLY[@]}"`},
		"zsh":  {"-n"},
		"fish": {"--no-execute"},
	} {
		script := printed(t, nil, "completion", shell)
		path, err := exec.LookPath(shell)
		if err != nil {
			t.Logf("no %s on this machine", shell)
			continue
		}
		out, err := exec.Command(path, append(read, writeFile(t, "script", script))...).CombinedOutput()
		if err != nil || shell == "bash" && string(out) != "delete\n" {
			t.Errorf("%s: %v, %s", shell, err, out)
		}
	}
	if status, stderr := refused(t, nil, "completion", "tcsh"); status != 2 || !strings.Contains(stderr, "bash") {
		t.Errorf("completion tcsh: status %d, %q", status, stderr)
	}
}

// The manual page has every command and flag, and groff reads it without a
// warning.
func TestMan(t *testing.T) {
	page := printed(t, nil, "man")
	for _, want := range []string{".SS millrace chat", ".SS millrace sagemaker deploy", `\fB\-\-model\-id`, `\fB\-p, \-\-port`, ".SH EXIT STATUS", ".SH EXAMPLES"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	groff, err := exec.LookPath("groff")
	if err != nil {
		t.Skip("no groff on this machine")
	}
	cmd := exec.Command(groff, "-man", "-Tutf8", "-ww", "-z")
	cmd.Stdin = strings.NewReader(page)
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("groff: %v\n%s", err, out)
	}
}

// env shows what differs, as JSON if asked, with the values that auto stands
// for: those that the server then has.
func TestEnv(t *testing.T) {
	dir := tinyFolder(t)
	type setting struct{ Flag, Value, From string }
	var changed []setting
	text := printed(t, []string{"MAX_BEST_OF=3", "API_KEY=hunter2"}, "env", dir, "--changed", "--json")
	if err := json.Unmarshal([]byte(text), &changed); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	want := []setting{{"model-id", dir, "command line"}, {"api-key", "***", "environment API_KEY"}, {"max-best-of", "3", "environment MAX_BEST_OF"}, {"json-output", "true", "not a terminal"}}
	if len(changed) != len(want) {
		t.Fatalf("changed: %v, want %v", changed, want)
	}
	for i := range want {
		if changed[i] != want[i] {
			t.Errorf("changed: %v, want %v", changed[i], want[i])
		}
	}

	// What auto stands for is known only with a request, or with the model loaded.
	decidedLater := []string{
		"adapter-memory", "default-max-tokens", "device", "generation-config", "image-memory", "kv-cache-dtype", "lambda-invoke-mode", "max-input-length", "reasoning-budget", "reasoning-format",
	}
	var all []setting
	if err := json.Unmarshal([]byte(printed(t, nil, "env", dir, "--json")), &all); err != nil {
		t.Fatal(err)
	}
	p := start(t, nil, "--model-id", dir).ready()
	_, info := p.get("/info")
	for _, s := range all {
		switch s.Flag {
		case "max-total-tokens", "max-input-tokens":
			if !strings.Contains(info, strconv.Quote(strings.ReplaceAll(s.Flag, "-", "_"))+":"+s.Value+",") {
				t.Errorf("%s is %s, the server says %s", s.Flag, s.Value, info)
			}
		case "served-model-name":
			if s.Value != filepath.Base(dir) {
				t.Errorf("%s is %q, want %q", s.Flag, s.Value, filepath.Base(dir))
			}
		}
		if s.Value == "auto" && !slices.Contains(decidedLater, s.Flag) {
			t.Errorf("%s is auto", s.Flag)
		}
	}
}

// inspect describes a model without loading it, and agrees with the server that
// loads it.
func TestInspect(t *testing.T) {
	dir := tinyFolder(t)
	var d description
	if err := json.Unmarshal([]byte(printed(t, nil, "inspect", dir, "--json")), &d); err != nil {
		t.Fatal(err)
	}
	p := start(t, nil, "--model-id", dir).ready()
	waitFor(t, "the log", func() bool { return strings.Contains(p.logged(), `"message":"ready"`) })
	var ready struct {
		Bytes  int64
		Tokens int `json:"kv_tokens"`
		Total  int `json:"max_total_tokens"`
	}
	for line := range strings.Lines(p.logged()) {
		if strings.Contains(line, `"message":"ready"`) {
			if err := json.Unmarshal([]byte(line), &ready); err != nil {
				t.Fatal(err)
			}
		}
	}
	if d.Family != "llama" || d.Parameters < 10_000 || len(d.Formats) != 1 || d.Formats[0].Bytes < d.Parameters || d.PerToken <= 0 || !d.Fits {
		t.Errorf("described as %+v", d)
	}
	if d.Weights > ready.Bytes || d.Weights < ready.Bytes*95/100 || d.CacheTokens != ready.Tokens || d.MaxTotalTokens != ready.Total {
		t.Errorf("described as %+v, loaded as %+v", d, ready)
	}
	if text := printed(t, nil, "inspect"); !strings.Contains(text, "millrace-demo") || !strings.Contains(text, "yes: requests of up to 2048 tokens") {
		t.Errorf("the demo model:\n%s", text)
	}
	if status, stderr := refused(t, nil, "inspect", "/nowhere/model"); status != 2 || !strings.Contains(stderr, "/nowhere/model") {
		t.Errorf("status %d, %q", status, stderr)
	}
}

// Variables that other programs use stop nothing, and what a person would type
// works: a model without a flag.
func TestStartsAmongOthers(t *testing.T) {
	dir := tinyFolder(t)
	p := start(t, []string{"ENV=production", "CONFIG=prod", "DEVICE=tpu", "THREADS=many", "LOG_LEVEL=verbose"}, dir).ready()
	if !strings.Contains(p.logged(), `"url":"`+p.url+`"`) {
		t.Error("the log does not say where the server is")
	}
	if strings.Contains(p.logged(), "anyone who can reach") {
		t.Error("a server for this machine alone is said to be open")
	}
	for _, model := range []string{filepath.Base(dir), dir, "tgi"} {
		if status, body := p.post("/v1/completions", `{"model":"`+model+`","prompt":"the","max_tokens":1}`); status != 200 || !strings.Contains(body, `"model":"`+filepath.Base(dir)+`"`) {
			t.Errorf("model %s: %d %s", model, status, body)
		}
	}
}

// The OpenAI routes draw as the model's makers recommend, where a request does
// not say; the generate routes as TGI, and all of them if that is asked for.
func TestGenerationConfig(t *testing.T) {
	files := tinyFiles(t)
	files["generation_config.json"] = []byte(`{"eos_token_id":3,"temperature":0,"top_k":7,"top_p":1.5}`)
	dir := weightstest.Folder(t, files)
	texts := func(p *process, fields string) map[string]bool {
		found := map[string]bool{}
		for seed := range 5 {
			status, body := p.post("/v1/completions", `{"prompt":"the quick","max_tokens":8,"seed":`+strconv.Itoa(seed)+fields+`}`)
			text := regexp.MustCompile(`"text":"[^"]*"`).FindString(body)
			if status != 200 || text == "" {
				t.Fatalf("%d %s", status, body)
			}
			found[text] = true
		}
		return found
	}
	p := start(t, nil, "--model-id", dir).ready()
	if _, info := p.get("/info"); !strings.Contains(info, `"sampling_defaults":{"temperature":0,"top_k":7}`) {
		t.Errorf("/info: %s", info)
	}
	if !strings.Contains(p.logged(), "top_p 1.5 is not a sampling default") {
		t.Error("what is wrong about generation_config.json is not logged")
	}
	if got := texts(p, ""); len(got) != 1 {
		t.Errorf("temperature 0 by default gives %d texts", len(got))
	}
	if got := texts(p, `,"temperature":1,"top_k":-1`); len(got) < 2 {
		t.Errorf("a request's own temperature is not used: %v", got)
	}
	p = start(t, nil, "--model-id", dir, "--generation-config", "tgi").ready()
	if _, info := p.get("/info"); strings.Contains(info, "sampling_defaults") {
		t.Errorf("/info: %s", info)
	}
	if got := texts(p, ""); len(got) < 2 {
		t.Errorf("TGI's temperature of 1 gives one text: %v", got)
	}
}

// A context that the memory cuts is a warning with the way out.
func TestCutContext(t *testing.T) {
	files := tinyFiles(t)
	files["config.json"] = bytes.Replace(files["config.json"], []byte(`"max_position_embeddings":4096`), []byte(`"max_position_embeddings":8388608`), 1)
	f := startFunction(t, nil, "--memory", "1024", "--", "--model-id", weightstest.Folder(t, files))
	if out := f.invoke(`{"inputs":"the","parameters":{"max_new_tokens":1}}`); out.FunctionError != nil {
		t.Errorf("the function says %s", out.Payload)
	}
	line := f.eventually(`the context is cut to what the memory allows.*`)[0]
	if !strings.Contains(line, "--max-batch-total-tokens") || !strings.Contains(line, "model_tokens=8388608") {
		t.Errorf("the warning says %s", line)
	}
}
