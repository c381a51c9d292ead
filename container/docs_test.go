package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"

	"github.com/millrace-ai/millrace/container/config"
)

// These tests hold the commands, flags and variables of the documentation to
// the program.

var documents = []string{"../README.md", "../ARCHITECTURE.md", "../CONTRIBUTING.md", "../SECURITY.md", "../docs/*.md", "../examples/*.md", "../terraform/*.md", "../terraform/*/*/*.md", "../handler/COMPAT.md"}

var (
	fence     = regexp.MustCompile("(?ms)^ *```[a-z]*\n(.*?)^ *```")
	codeSpan  = regexp.MustCompile("`([^`\n]+)`")
	invoked   = regexp.MustCompile(`^(?:\$ )?(?:[A-Z_]+=\S+ )*(?:\S*/)?millrace(?: (.*))?$`)
	variables = regexp.MustCompile(`^([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)*)(?:=.*)?$`)
)

// foreignTable begins a table whose first column is of another server.
var foreignTable = regexp.MustCompile(`^\| (vLLM|LMI)`)

// snippets returns what pages show as code: lines of blocks, and spans of text.
func snippets(t *testing.T) map[string][]string {
	t.Helper()
	all := map[string][]string{}
	for _, pattern := range documents {
		names, err := filepath.Glob(filepath.FromSlash(pattern))
		if err != nil || len(names) == 0 {
			t.Fatalf("%s: %v", pattern, err)
		}
		for _, name := range names {
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			page := string(data)
			for _, m := range fence.FindAllStringSubmatch(page, -1) {
				block := strings.ReplaceAll(m[1], "\\\n", "")
				all[name] = append(all[name], strings.Split(block, "\n")...)
			}
			foreign := false
			for line := range strings.Lines(fence.ReplaceAllString(page, "")) {
				foreign = foreignTable.MatchString(line) || foreign && strings.HasPrefix(line, "|")
				if foreign {
					_, line, _ = strings.Cut(line[1:], "|")
				}
				for _, m := range codeSpan.FindAllStringSubmatch(line, -1) {
					all[name] = append(all[name], m[1])
				}
			}
		}
	}
	return all
}

func TestDocumentedCommands(t *testing.T) {
	parser, err := kong.New(&cli{}, kong.ValueFormatter(config.Help))
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for name, lines := range snippets(t) {
		for _, line := range lines {
			m := invoked.FindStringSubmatch(strings.TrimSpace(line))
			if m == nil {
				continue
			}
			found++
			if wrong := wrongIn(parser.Model, strings.Fields(m[1])); wrong != "" {
				t.Errorf("%s: %s: %s", name, strings.TrimSpace(line), wrong)
			}
		}
	}
	if found < 40 {
		t.Errorf("only %d commands found", found)
	}
}

// wrongIn says what is wrong with a command line, "" if nothing is: names of
// commands and flags, not their values.
func wrongIn(app *kong.Application, words []string) string {
	node := app.Node
	for i := 0; i < len(words); i++ {
		word := words[i]
		if word == "--" { // serve's own flags follow
			node = find(app.Node, "serve")
			continue
		}
		if slices.Contains([]string{"#", "|", ">", "&", "&&"}, word) || word == "…" || word == "..." {
			break
		}
		if !strings.HasPrefix(word, "-") || word == "-" {
			if child := find(node, word); child != nil {
				node = child
			} else if len(node.Positional) == 0 {
				return "there is no command " + word
			}
			continue
		}
		text, _, valued := strings.Cut(word, "=")
		flag := flagOf(node, text)
		if flag == nil {
			flag = flagOf(find(app.Node, "serve"), text)
			if flag == nil || node != app.Node {
				return "there is no flag " + text
			}
		}
		if !valued && !flag.IsBool() {
			i++
		}
	}
	return ""
}

func find(node *kong.Node, name string) *kong.Node {
	for _, child := range node.Children {
		if child.Name == name {
			return child
		}
	}
	return nil
}

// flagOf returns the flag of a command that text names: --name, --no-name or -n.
func flagOf(node *kong.Node, text string) *kong.Flag {
	for _, group := range node.AllFlags(false) {
		for _, flag := range group {
			if text == "--"+flag.Name || text == "--no-"+flag.Name && flag.Tag.Negatable != "" || flag.Short != 0 && text == "-"+string(flag.Short) {
				return flag
			}
		}
	}
	return nil
}

func TestDocumentedFlags(t *testing.T) {
	parser, err := kong.New(&cli{}, kong.ValueFormatter(config.Help))
	if err != nil {
		t.Fatal(err)
	}
	nodes := append([]*kong.Node{parser.Model.Node}, parser.Model.Children...)
	for _, node := range parser.Model.Children {
		nodes = append(nodes, node.Children...)
	}
	found := 0
	for name, spans := range snippets(t) {
		for _, code := range spans {
			if !strings.HasPrefix(code, "--") || len(code) < 3 {
				continue
			}
			found++
			text, _, _ := strings.Cut(strings.Fields(code)[0], "=")
			if !slices.ContainsFunc(nodes, func(node *kong.Node) bool { return flagOf(node, text) != nil }) {
				t.Errorf("%s: there is no flag %s", name, text)
			}
		}
	}
	if found < 50 {
		t.Errorf("only %d flags found", found)
	}
}

func TestDocumentedVariables(t *testing.T) {
	// Names in capitals that are not variables of the server.
	others := []string{"URL", "NAME", "SIGTERM", "REPORT", "AWS_IAM", "RESPONSE_STREAM", "NONE", "CONTRIBUTING", "SCHEMA", "GET", "POST", "DIR", "MODEL", "IMAGE", "PLATFORM", "CUDA_VISIBLE_DEVICES"}
	code := strings.Builder{}
	for _, root := range []string{"../container", "../handler", "../sagemaker", "../engine", "../internal"} {
		err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
			if err == nil && strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, "_test.go") {
				var data []byte
				data, err = os.ReadFile(name)
				code.Write(data)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	parser, err := kong.New(&cli{}, kong.ValueFormatter(config.Help))
	if err != nil {
		t.Fatal(err)
	}
	serve := find(parser.Model.Node, "serve")
	for name, spans := range snippets(t) {
		for _, span := range spans {
			m := variables.FindStringSubmatch(span)
			if m == nil || slices.Contains(others, m[1]) || strings.HasPrefix(m[1], "OTEL_") {
				continue
			}
			flag := "--" + strings.ToLower(strings.ReplaceAll(m[1], "_", "-"))
			if flagOf(serve, flag) == nil && !strings.Contains(code.String(), m[1]) {
				t.Errorf("%s: no such variable: %s", name, m[1])
			}
		}
	}
}
