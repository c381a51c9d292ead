package main

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/millrace-ai/millrace/container/config"
	"github.com/millrace-ai/millrace/container/source/s3test"
)

const (
	prefixSystem = "You are the helper of a small shop that sells bicycles and parts for them. Answer in one sentence, always be polite, and never promise a discount."
	prefixText   = "The shop is open from nine to five. It sells bicycles, and parts for them, to anyone who comes. What it has not, it orders, and what it orders, comes."
)

// writePrefix runs millrace prefix and returns the file.
func writePrefix(t *testing.T, env []string, args ...string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "a.prefix")
	status, stderr := ended(t, command(env, append([]string{"prefix"}, append(args, file)...)...))
	if status != 0 || !strings.HasSuffix(stderr, " in "+file+"\n") {
		t.Fatalf("prefix: status %d, %q", status, stderr)
	}
	return file
}

// answered is what a chat's answer says.
func answered(t *testing.T, p *process, body string) (text string, cached int) {
	t.Helper()
	status, answer := p.post("/v1/chat/completions", body)
	var got struct {
		Choices []struct{ Message struct{ Content string } }
		Usage   struct {
			Details struct {
				Cached int `json:"cached_tokens"`
			} `json:"prompt_tokens_details"`
		}
	}
	if err := json.Unmarshal([]byte(answer), &got); err != nil || status != http.StatusOK || len(got.Choices) != 1 {
		t.Fatalf("%d %s (%v)", status, answer, err)
	}
	return got.Choices[0].Message.Content, got.Usage.Details.Cached
}

// A chat with the system message of a prefix file starts from it, from the first
// request on, and says what it says without. The same holds for a text, and for a
// file in S3.
func TestPrefixFile(t *testing.T) {
	system := fmt.Sprintf(`{"role":"system","content":%q}`, prefixSystem)
	chat := `{"messages":[` + system + `,{"role":"user","content":"Do you sell tyres?"}],"max_tokens":30,"temperature":0.8,"seed":5,"logprobs":true}`
	text := fmt.Sprintf(`{"model":"millrace-demo","prompt":%q,"max_tokens":20,"temperature":0}`, prefixText+" Tyres are")
	chatFile := writePrefix(t, nil, "", chat) // the user's message is not part of it
	textFile := writePrefix(t, nil, "", "@"+writeFile(t, "prompt.txt", prefixText))
	server := s3test.NewServer(t)
	data, err := os.ReadFile(chatFile)
	if err != nil {
		t.Fatal(err)
	}
	server.Put("models", "shop/chat.prefix", data)

	without := start(t, nil).ready()
	want, cached := answered(t, without, chat)
	if cached != 0 {
		t.Fatalf("%d tokens come from an empty cache", cached)
	}
	generated := func(p *process) (answer string, cached int) {
		status, body := p.post("/v1/completions", text)
		var got struct {
			Choices []struct{ Text string }
			Usage   struct {
				Details struct {
					Cached int `json:"cached_tokens"`
				} `json:"prompt_tokens_details"`
			}
		}
		if err := json.Unmarshal([]byte(body), &got); err != nil || status != http.StatusOK || len(got.Choices) != 1 {
			t.Fatalf("%d %s (%v)", status, body, err)
		}
		return got.Choices[0].Text, got.Usage.Details.Cached
	}
	wantText, _ := generated(without)

	for _, tt := range []struct {
		name string
		env  []string
		file string
	}{
		{"here", nil, chatFile + "," + textFile},
		{"in S3", s3Env(server.URL), "s3://models/shop/chat.prefix?requestPayer=requester, " + textFile},
	} {
		p := start(t, append(tt.env, "PREFIX_CACHE_FILE="+tt.file)).ready()
		if got, cached := answered(t, p, chat); got != want || cached < 32 {
			t.Errorf("%s: %q with %d tokens from the file, without the file %q", tt.name, got, cached, want)
		}
		if got, cached := generated(p); got != wantText || cached < 32 {
			t.Errorf("%s: %q with %d tokens from the file, without the file %q", tt.name, got, cached, wantText)
		}
		waitFor(t, "the log", func() bool { return strings.Contains(p.logged(), `"message":"ready"`) })
		if n := strings.Count(p.logged(), `"prefix restored"`); n != 2 {
			t.Errorf("%s: %d files are restored, want 2", tt.name, n)
		}
	}
}

// A file that is not for this server is one warning that names it.
func TestPrefixFileNotUsed(t *testing.T) {
	file := writePrefix(t, nil, "", prefixText)
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	damaged := append([]byte(nil), data...)
	damaged[len(damaged)-100] ^= 4
	server := s3test.NewServer(t)
	for _, tt := range []struct {
		name string
		env  []string
		args []string
		file string
		want string
	}{
		{name: "another model", args: []string{"--model-id", tinyFolder(t)}, file: file, want: "it belongs to another model, or to other weights of it"},
		{name: "another instruction set", env: []string{"MILLRACE_CPU_ISA=portable"}, file: file, want: "it was computed by another backend: cpu "},
		{name: "damaged", file: writeFile(t, "damaged.prefix", string(damaged)), want: "it is damaged: its checksum does not match"},
		{name: "cut", file: writeFile(t, "cut.prefix", string(data[:len(data)/2])), want: "it is damaged: it ends early"},
		{name: "empty", file: writeFile(t, "empty.prefix", ""), want: "it is damaged: it ends early"},
		{name: "another file", file: writeFile(t, "other.prefix", "all work and no play makes a file"), want: "it is not a prefix file, which `millrace prefix` writes"},
		{name: "too long", args: []string{"--max-total-tokens", "20"}, file: file, want: "tokens are too many for the cache"},
		{name: "no cache", args: []string{"--no-prefix-caching"}, file: file, want: "the prefix cache is switched off"},
		{name: "missing", file: "/nowhere/a.prefix", want: "no such file"},
		{name: "a folder", file: t.TempDir(), want: "is a directory"},
		{name: "missing in S3", env: s3Env(server.URL), file: "s3://models/a.prefix", want: "s3://models/a.prefix"},
		{name: "no file in S3", env: s3Env(server.URL), file: "s3://models/prefixes/", want: "expected s3://BUCKET/KEY of a file"},
		{name: "a wrong location", file: "s3://", want: "the bucket's name is missing"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := start(t, tt.env, append(tt.args, "--prefix-cache-file", tt.file)...).ready()
			waitFor(t, "the log", func() bool { return strings.Contains(p.logged(), `"message":"ready"`) })
			var warnings []string
			for line := range strings.Lines(p.logged()) {
				if strings.Contains(line, `"a prefix file is not used"`) {
					warnings = append(warnings, line)
				}
			}
			if len(warnings) != 1 || !strings.Contains(warnings[0], tt.want) || !strings.Contains(warnings[0], tt.file) {
				t.Errorf("%q, want one warning with %q", warnings, tt.want)
			}
			if status, body := p.post("/generate", `{"inputs":"a","parameters":{"max_new_tokens":2}}`); status != http.StatusOK {
				t.Errorf("%d %s", status, body)
			}
		})
	}
}

// A server does not wait for ever for a file.
func TestPrefixFileThatDoesNotArrive(t *testing.T) {
	before := prefixPatience
	prefixPatience = 10 * time.Millisecond
	t.Cleanup(func() { prefixPatience = before })
	ended := make(chan struct{})
	silent := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
		case <-ended:
		}
	}))
	t.Cleanup(func() { close(ended); silent.Close() })
	for _, variable := range s3Env(silent.URL) {
		name, value, _ := strings.Cut(variable, "=")
		t.Setenv(name, value)
	}
	s := &server{cfg: &config.Serve{PrefixCacheFile: "s3://models/a.prefix"}, log: slog.New(slog.DiscardHandler)}
	files := s.openPrefixes(t.Context())()
	if len(files) != 1 || files[0].err == nil || !strings.Contains(files[0].err.Error(), "it has not arrived within 10ms") {
		t.Errorf("%+v", files)
	}
}

func TestPrefixCommandRefuses(t *testing.T) {
	file := filepath.Join(t.TempDir(), "a.prefix")
	for _, tt := range []struct {
		name   string
		args   []string
		status int
		want   string
	}{
		{"short", []string{"", "hi", file}, 1, "expected at least a page of 16"},
		{"long", []string{"", prefixText, file, "--", "--max-total-tokens=32"}, 1, "the limit is 31"},
		{"salted", []string{"", `{"messages":[],"cache_salt":"s"}`, file}, 2, "`cache_salt` is not supported"},
		{"wrong message", []string{"", `{"messages":[{"role":"system"}]}`, file}, 1, "missing field `content`"},
		{"no prompt", []string{"", "@/nowhere/prompt", file}, 2, "/nowhere/prompt"},
		{"no model", []string{"/nowhere/model", prefixText, file}, 2, "/nowhere/model"},
		{"wrong flag", []string{"", prefixText, file, "--", "--prot=1"}, 2, "unknown flag --prot"},
		{"no folder", []string{"", prefixText, "/nowhere/a.prefix"}, 1, "/nowhere/a.prefix"},
		{"no file", []string{"", prefixText}, 2, "<file>"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			status, stderr := ended(t, command(nil, append([]string{"prefix"}, tt.args...)...))
			if status != tt.status || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, tt.want) {
				t.Errorf("status %d, %q; want %d and %q", status, stderr, tt.status, tt.want)
			}
			if _, err := os.Stat(file); err == nil {
				t.Error("there is a file")
			}
		})
	}
}
