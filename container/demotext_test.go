package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/alecthomas/kong"

	"github.com/millrace-ai/millrace/container/config"
	"github.com/millrace-ai/millrace/dev/demo/guide"
	"github.com/millrace-ai/millrace/engine/plan"
)

// demoText is where the demo model's knowledge is written down.
const demoText = "../dev/demo/text"

// A statement is something that the demo model may say: the answer of a topic,
// or a line of plain text that it continues.
type statement struct{ file, topic, text string }

func (s statement) String() string { return fmt.Sprintf("%s: %s: %s", s.file, s.topic, s.text) }

// demoStatements reads all that the demo model may say about Millrace, and what
// is set aside to be said some day.
func demoStatements(t *testing.T) []statement {
	t.Helper()
	chapters, err := guide.Read(demoText)
	if err != nil {
		t.Fatal(err)
	}
	var all []statement
	for _, c := range chapters {
		for _, topic := range c.Topics {
			all = append(all, statement{c.File, topic.Name, topic.Answer})
		}
	}
	const plain = "continuations.md"
	lines, err := os.ReadFile(filepath.Join(demoText, plain))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(lines)) {
		if head, rest, ok := strings.Cut(strings.TrimSpace(line), " | "); ok {
			all = append(all, statement{plain, head, head + " " + rest})
		}
	}
	if len(all) < 250 {
		t.Fatalf("only %d statements found", len(all))
	}
	return all
}

func answerOf(t *testing.T, all []statement, topic string) string {
	t.Helper()
	i := slices.IndexFunc(all, func(s statement) bool { return s.topic == topic })
	if i < 0 {
		t.Fatalf("no topic %q", topic)
	}
	return all[i].text
}

func commandLine(t *testing.T) *kong.Application {
	t.Helper()
	parser, err := newParser(&cli{}, config.NewLoader(nil, nil), true)
	if err != nil {
		t.Fatal(err)
	}
	return parser.Model
}

// eachNode calls f for the program and for every command below it.
func eachNode(n *kong.Node, f func(*kong.Node)) {
	f(n)
	for _, child := range n.Children {
		eachNode(child, f)
	}
}

// childOf returns the command of that name below n, nil if there is none.
func childOf(n *kong.Node, name string) *kong.Node {
	for _, child := range n.Children {
		if child.Name == name {
			return child
		}
	}
	return nil
}

// What the demo model says about the command line is so.
func TestDemoKnowsTheCommandLine(t *testing.T) {
	all, app := demoStatements(t), commandLine(t)
	flags, defaults := map[string]bool{}, map[string]string{}
	eachNode(app.Node, func(n *kong.Node) {
		for _, f := range n.Flags {
			flags[f.Name] = true
		}
	})
	for _, f := range childOf(app.Node, "serve").Flags {
		defaults[f.Name] = f.Default
	}

	flag := regexp.MustCompile(`--([a-z][a-z0-9-]*)`)
	byDefault := regexp.MustCompile(`--([a-z][a-z0-9-]*)[^.;-]*?\b(\d+) by default`)
	// In prose the program does things, too, and its name may end a clause.
	command := regexp.MustCompile(`\bmillrace (?:(?:serves|does|binary|and)\b|([a-z]+)(?: ([a-z]+))?)`)
	for _, s := range all {
		for _, m := range flag.FindAllStringSubmatch(s.text, -1) {
			if !flags[m[1]] {
				t.Errorf("%v: there is no flag --%s", s, m[1])
			}
		}
		for _, m := range byDefault.FindAllStringSubmatch(s.text, -1) {
			if defaults[m[1]] != m[2] {
				t.Errorf("%v: the default of --%s is %s", s, m[1], defaults[m[1]])
			}
		}
		for _, m := range command.FindAllStringSubmatch(s.text, -1) {
			if m[1] == "" {
				continue
			}
			n := childOf(app.Node, m[1])
			if n == nil {
				t.Errorf("%v: there is no command %s", s, m[1])
			} else if len(n.Children) > 0 && m[2] != "" && m[2] != "has" && childOf(n, m[2]) == nil {
				t.Errorf("%v: the command %s has no command %s", s, m[1], m[2])
			}
		}
	}

	listed, _, _ := strings.Cut(strings.TrimPrefix(answerOf(t, all, "commands-list"), "The commands are "), ".")
	names := listOf(listed)
	for _, name := range names {
		if childOf(app.Node, name) == nil {
			t.Errorf("commands-list: there is no command %s", name)
		}
	}
	for _, n := range app.Children {
		if !n.Hidden && !slices.Contains(names, n.Name) {
			t.Errorf("commands-list: the command %s is not named", n.Name)
		}
	}
}

// listOf takes "a, b and c" apart.
func listOf(s string) []string {
	return strings.Split(strings.ReplaceAll(s, " and ", ", "), ", ")
}

// The variables that the demo model names are read by the program, or set by
// AWS.
func TestDemoKnowsTheEnvironment(t *testing.T) {
	source := productSource(t)
	known := map[string]bool{"RESPONSE_STREAM": true, "AWS_IAM": true, "NEW_SESSION": true} // values of AWS's
	for _, f := range childOf(commandLine(t).Node, "serve").Flags {
		known[strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))] = true
	}
	variable := regexp.MustCompile(`\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b`)
	for _, s := range demoStatements(t) {
		for _, name := range variable.FindAllString(s.text, -1) {
			if !known[name] && !bytes.Contains(source, []byte(`"`+name)) && !bytes.Contains(source, []byte(`,`+name)) {
				t.Errorf("%v: nothing reads %s", s, name)
			}
		}
	}
}

// productSource is the Go source of the program and what comes with it: the OpenAPI
// document, the Terraform modules, the examples, and the tests with real clients.
func productSource(t *testing.T) []byte {
	t.Helper()
	var source []byte
	for _, root := range []string{".", "../sagemaker", "../handler", "../engine", "../internal", "../examples", "../terraform", "../dev/clients"} {
		err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() || strings.HasSuffix(path, "_test.go") {
				return err
			}
			if ext := filepath.Ext(path); ext == ".go" || ext == ".py" || ext == ".json" || ext == ".tf" {
				data, err := os.ReadFile(path)
				source = append(source, data...)
				return err
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return source
}

// Fields, headers and metrics that the demo model names occur in the program or
// in the examples of clients.
func TestDemoKnowsNames(t *testing.T) {
	source := productSource(t)
	known := map[string]bool{"x86_64": true, "role_arn": true}
	name := regexp.MustCompile(`\b[a-z][a-z0-9]*(?:_[a-z0-9]+)+\b|\bx-[a-z]+(?:-[a-z]+)+\b`)
	for _, s := range demoStatements(t) {
		for _, word := range name.FindAllString(s.text, -1) {
			if !known[word] && !bytes.Contains(bytes.ToLower(source), []byte(word)) {
				t.Errorf("%v: %s occurs nowhere", s, word)
			}
		}
	}
}

// The routes that the demo model names are there.
func TestDemoKnowsTheRoutes(t *testing.T) {
	p := start(t, nil).ready()
	// Paths of files, and words of millrace chat.
	others := regexp.MustCompile(`^/(opt/ml|tmp|path/to|aws/sagemaker|help)\b`)
	route := regexp.MustCompile(`(?:^|[ (]|localhost:8080)(/[a-z0-9_./-]*)`)
	seen := map[string]bool{}
	for _, s := range demoStatements(t) {
		for _, m := range route.FindAllStringSubmatch(s.text, -1) {
			path := strings.TrimRight(m[1], ".")
			// The form /health/ is what the model says does not work, and /v1 is a prefix.
			if path == "/v1" || path == "/health/" || others.MatchString(path) || seen[path] {
				continue
			}
			seen[path] = true
			if status, _ := p.get(path); status != 404 {
				continue
			}
			t.Errorf("%v: there is no route %s", s, path)
		}
	}
	if len(seen) < 15 {
		t.Errorf("only %d routes found: %v", len(seen), seen)
	}
}

// The modules, files and targets of make that the demo model names are in the
// repository, and it names all modules.
func TestDemoKnowsTheRepository(t *testing.T) {
	makefile, err := os.ReadFile("../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	all := demoStatements(t)
	target := regexp.MustCompile(`\bmake ([a-z][a-z-]*)`)
	file := regexp.MustCompile(`\b(?:terraform|handler|container|engine|dev|docs|sagemaker)/[A-Za-z0-9_/.-]*[A-Za-z0-9]`)
	for _, s := range all {
		for _, m := range target.FindAllStringSubmatch(s.text, -1) {
			// "make names it" and "make prints" are prose.
			if m[1] != "names" && !regexp.MustCompile(`(?m)^`+m[1]+`:`).Match(makefile) {
				t.Errorf("%v: the Makefile has no target %s", s, m[1])
			}
		}
		for _, path := range file.FindAllString(s.text, -1) {
			if _, err := os.Stat(filepath.Join("..", path)); err != nil && !strings.Contains(s.text, "/"+path) {
				t.Errorf("%v: %v", s, err)
			}
		}
	}

	modules, err := os.ReadDir("../terraform/modules")
	if err != nil {
		t.Fatal(err)
	}
	answer := answerOf(t, all, "terraform")
	for _, m := range modules {
		if !strings.Contains(answer, m.Name()) {
			t.Errorf("terraform: the module %s is not named", m.Name())
		}
	}
	if count := []string{4: "four", 5: "five", 6: "six", 7: "seven", 8: "eight", 9: "nine"}[len(modules)]; !strings.Contains(answer, "There are "+count+" ") {
		t.Errorf("terraform: there are %s modules", count)
	}
}

// The families that the demo model names are those that can be served.
func TestDemoKnowsTheFamilies(t *testing.T) {
	answer := answerOf(t, demoStatements(t), "families")
	count, list, ok := strings.Cut(answer, " model families are supported, among them ")
	most, err := strconv.Atoi(strings.TrimPrefix(count, "More than "))
	if families := plan.Families(); !ok || err != nil || len(families) <= most {
		t.Errorf("%q: there are %d families (%v)", answer, len(families), err)
	}
	list, _, _ = strings.Cut(list, ". ")
	for _, name := range listOf(list) {
		if plan.About(name).Models == "" {
			t.Errorf("the model names the family %q, which cannot be served", name)
		}
	}
}

// What is not in this build is only mentioned to say so. When something of this
// list is built, take it out, and correct the answers.
func TestDemoPromisesNothing(t *testing.T) {
	absent := regexp.MustCompile(`(?i)\b(CUDA|GPUs?|embeddings|beam search)\b`)
	denial := regexp.MustCompile(`(?i)\b(no|not|none|refused|ignored|without|an unknown)\b|would|comes later|needs nginx|made for GPUs`)
	for _, s := range demoStatements(t) {
		for sentence := range strings.SplitSeq(s.text, ". ") {
			words := absent.FindAllString(sentence, -1)
			if len(words) > 0 && !denial.MatchString(sentence) {
				t.Errorf("%v: promises %s", s, words)
			}
		}
	}
}

// The server gives the answers that the model gave where it was trained, to
// held-out questions whose answers no rounding changes.
func TestDemoAnswersAsTrained(t *testing.T) {
	lines, err := os.ReadFile("demo/model_test.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	p := start(t, nil).ready()
	for line := range strings.Lines(string(lines)) {
		var c struct {
			Inputs          string          `json:"inputs"`
			Messages, Tools json.RawMessage `json:",omitempty"`
			Expected        string          `json:"expected"`
		}
		if err := json.Unmarshal([]byte(line), &c); err != nil {
			t.Fatal(err)
		}
		if c.Inputs != "" {
			body, _ := json.Marshal(map[string]any{"inputs": c.Inputs, "parameters": map[string]any{"max_new_tokens": 200, "return_full_text": false}})
			_, answer := p.post("/generate", string(body))
			var got struct {
				Text string `json:"generated_text"`
			}
			if err := json.Unmarshal([]byte(answer), &got); err != nil || strings.TrimSpace(got.Text) != c.Expected {
				t.Errorf("%s: answered %q, want %q", c.Inputs, answer, c.Expected)
			}
			continue
		}
		request := map[string]any{"messages": c.Messages, "max_tokens": 200, "temperature": 0}
		if c.Tools != nil {
			request["tools"] = c.Tools
		}
		body, _ := json.Marshal(request)
		_, answer := p.post("/v1/chat/completions", string(body))
		var got struct {
			Choices []struct {
				Message struct {
					Content   string `json:"content"`
					ToolCalls []struct {
						Function struct{ Name, Arguments string }
					} `json:"tool_calls"`
				}
			}
		}
		if err := json.Unmarshal([]byte(answer), &got); err != nil || len(got.Choices) != 1 {
			t.Errorf("%s: %s", c.Messages, answer)
			continue
		}
		m := got.Choices[0].Message
		if len(m.ToolCalls) == 1 {
			m.Content = fmt.Sprintf(`{"name": %q, "parameters": %s}`, m.ToolCalls[0].Function.Name, m.ToolCalls[0].Function.Arguments)
		}
		if m.Content != c.Expected {
			t.Errorf("%s: answered %q, want %q", c.Messages, m.Content, c.Expected)
		}
	}
}
