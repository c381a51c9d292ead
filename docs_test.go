package millrace_test

import (
	"cmp"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
)

// These tests hold README.md, the other pages and docs/ to the code.

// read returns a file of the repository.
func read(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.FromSlash(name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// files returns the names of the repository's files that end in one of suffixes,
// without what is built or downloaded.
func files(t *testing.T, suffixes ...string) (names []string) {
	t.Helper()
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && slices.Contains([]string{"build", ".git", "node_modules", "target", ".terraform", ".venv"}, d.Name()) {
			return fs.SkipDir
		}
		if !d.IsDir() && slices.ContainsFunc(suffixes, func(s string) bool { return strings.HasSuffix(name, s) }) {
			names = append(names, filepath.ToSlash(name))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// pages are the documents for users and contributors, by name.
func pages(t *testing.T) map[string]string {
	all := map[string]string{}
	for _, name := range files(t, ".md") {
		if !strings.HasPrefix(name, "dev/demo/text/") { // what the demo model learns from
			all[name] = read(t, name)
		}
	}
	return all
}

var (
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ +(.+)$`)
	fence   = regexp.MustCompile("(?ms)^[ ]*```.*?^[ ]*```")
	span    = regexp.MustCompile("`+([^`]+)`+")
)

// anchors returns the fragments that GitHub gives the headings of a page.
func anchors(page string) map[string]bool {
	all := map[string]bool{}
	for _, m := range heading.FindAllStringSubmatch(fence.ReplaceAllString(page, ""), -1) {
		anchor := strings.Map(func(r rune) rune {
			switch {
			case unicode.IsLetter(r), unicode.IsDigit(r), r == '-', r == '_':
				return unicode.ToLower(r)
			case r == ' ':
				return '-'
			}
			return -1
		}, m[1])
		all[anchor] = true
	}
	return all
}

func TestDocumentLinks(t *testing.T) {
	all := pages(t)
	for name, page := range all {
		for _, m := range link.FindAllStringSubmatch(span.ReplaceAllString(fence.ReplaceAllString(page, ""), ""), -1) {
			target, fragment, _ := strings.Cut(m[1], "#")
			if strings.Contains(target, ":") { // a URL
				continue
			}
			file := name
			if target != "" {
				file = path.Join(path.Dir(name), target)
			}
			if _, err := os.Stat(filepath.FromSlash(file)); err != nil {
				t.Errorf("%s: link to %s: there is no such file", name, m[1])
			} else if fragment != "" && !anchors(all[file])[fragment] {
				t.Errorf("%s: link to %s: there is no such heading", name, m[1])
			}
		}
	}
}

// between returns the part of a page between two marks.
func between(t *testing.T, name, mark string) string {
	t.Helper()
	_, rest, ok := strings.Cut(read(t, name), "<!-- "+mark+": begin -->")
	part, _, ended := strings.Cut(rest, "<!-- "+mark+": end -->")
	if !ok || !ended {
		t.Fatalf("%s has no part %q", name, mark)
	}
	return part
}

// compare reports what only one of two lists has.
func compare(t *testing.T, page string, listed, there []string) {
	t.Helper()
	for _, x := range listed {
		if !slices.Contains(there, x) {
			t.Errorf("%s lists %s, which does not exist", page, x)
		}
	}
	for _, x := range there {
		if !slices.Contains(listed, x) {
			t.Errorf("%s does not list %s", page, x)
		}
	}
}

func TestDocumentedPackages(t *testing.T) {
	var listed, there []string
	for _, m := range regexp.MustCompile(`(?m)^\| \[([\w/]+)\]\(([\w/]+)\) \| \w`).FindAllStringSubmatch(between(t, "ARCHITECTURE.md", "packages"), -1) {
		listed = append(listed, cmp.Or(m[1], m[2]))
	}
	for _, p := range packages(t) {
		if p.name() != "github.com/millrace-ai/millrace" && p.name() != "" {
			there = append(there, p.name())
		}
	}
	compare(t, "ARCHITECTURE.md", listed, there)
}

func TestDocumentedMakeTargets(t *testing.T) {
	targets := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^([a-z][a-z0-9 -]*):`).FindAllStringSubmatch(read(t, "Makefile"), -1) {
		for name := range strings.FieldsSeq(m[1]) {
			targets[name] = true
		}
	}
	command := regexp.MustCompile("(?m)(?:`|^|[$;&] ?)make ([a-z][a-z0-9-]*(?: [a-z][a-z0-9-]*)*)")
	for name, page := range pages(t) {
		code := strings.Join(append(fence.FindAllString(page, -1), span.FindAllString(fence.ReplaceAllString(page, ""), -1)...), "\n")
		for _, m := range command.FindAllStringSubmatch(code, -1) {
			for target := range strings.FieldsSeq(m[1]) {
				if !targets[target] {
					t.Errorf("%s: make %s: there is no such target", name, target)
				}
			}
		}
	}
}

// TestDocumentedGoTests: the tests and benchmarks that pages name exist.
func TestDocumentedGoTests(t *testing.T) {
	command := regexp.MustCompile(`go test [^\x60\n]*?(?:-bench|-run) '?(\w+)'?[^\x60\n]*? (\./[\w/]+)`)
	found := 0
	for name, page := range pages(t) {
		for _, m := range command.FindAllStringSubmatch(strings.ReplaceAll(page, "-run '^$' ", ""), -1) {
			found++
			tests, err := filepath.Glob(filepath.FromSlash(m[2] + "/*_test.go"))
			if err != nil {
				t.Fatal(err)
			}
			declared := regexp.MustCompile(`(?m)^func (?:Test|Benchmark)\w*` + m[1])
			if !slices.ContainsFunc(tests, func(file string) bool { return declared.MatchString(read(t, file)) }) {
				t.Errorf("%s: %s has no test or benchmark %s", name, m[2], m[1])
			}
		}
	}
	if found == 0 {
		t.Error("no command found")
	}
}

// source is all of the product's code, in which messages and metrics are looked
// for.
func source(t *testing.T) string {
	var all strings.Builder
	for _, name := range files(t, ".go", ".rs", ".cc") {
		if !strings.HasSuffix(name, "_test.go") && !strings.HasPrefix(name, "dev/") {
			all.WriteString(read(t, name))
		}
	}
	return strings.NewReplacer("%w", "%s", "\\\"", `"`).Replace(all.String())
}

// TestQuotedMessages: each message of docs/troubleshooting.md is in the source.
// An ellipsis stands for what differs.
func TestQuotedMessages(t *testing.T) {
	foreign := map[string]bool{ // said by others
		"unknown flag …, did you mean …": true, // kong
		"address already in use":         true, // the kernel
	}
	code := source(t)
	verb := regexp.MustCompile(`%[a-z]`)
	quoting, found := false, 0
	for line := range strings.Lines(read(t, "docs/troubleshooting.md")) {
		cells := strings.Split(line, "|")
		switch {
		case len(cells) < 4:
			quoting = false
		case strings.Contains(strings.ToLower(cells[1]), "message") && !strings.Contains(cells[1], "`"):
			quoting = true
		case quoting:
			for _, m := range span.FindAllStringSubmatch(cells[1], -1) {
				if foreign[m[1]] {
					continue
				}
				for part := range strings.SplitSeq(m[1], "…") {
					part = strings.TrimSpace(part)
					if len(part) < 3 {
						continue
					}
					found++
					if !strings.Contains(code, part) && !strings.Contains(verb.ReplaceAllString(code, ""), part) {
						t.Errorf("docs/troubleshooting.md quotes %q, which no message has", part)
					}
				}
			}
		}
	}
	if found < 40 {
		t.Errorf("%d messages found", found)
	}
}

// TestDocumentedMetrics: docs/operations.md lists the metrics that there are.
func TestDocumentedMetrics(t *testing.T) {
	page, code := read(t, "docs/operations.md"), source(t)
	metric := regexp.MustCompile(`\b(?:millrace|tgi)_[a-z_]+[a-z]\b`)
	for _, name := range metric.FindAllString(page, -1) {
		if !strings.Contains(code, `"`+name+`"`) {
			t.Errorf("docs/operations.md names the metric %s, which does not exist", name)
		}
	}
	for _, m := range regexp.MustCompile(`"(millrace_[a-z_]+)"`).FindAllStringSubmatch(code, -1) {
		if strings.HasPrefix(m[1], "millrace_native") {
			continue
		}
		if !strings.Contains(page, "`"+m[1]+"`") {
			t.Errorf("docs/operations.md does not list the metric %s", m[1])
		}
	}
}

// TestRunbook: each alert has a section that its runbook_url leads to, and each
// such section an alert.
func TestRunbook(t *testing.T) {
	rules := read(t, "handler/grafana/alerts.yaml")
	sections := anchors(read(t, "docs/operations.md"))
	var alerts []string
	for _, m := range regexp.MustCompile(`alert: (\w+)`).FindAllStringSubmatch(rules, -1) {
		anchor := strings.ToLower(m[1])
		alerts = append(alerts, anchor)
		if !strings.Contains(rules, "docs/operations.md#"+anchor+"\n") {
			t.Errorf("alert %s has no runbook_url", m[1])
		}
	}
	var runbook []string
	for anchor := range maps.Keys(sections) {
		if strings.HasPrefix(anchor, "millrace") {
			runbook = append(runbook, anchor)
		}
	}
	compare(t, "docs/operations.md", runbook, alerts)
}

// Every way to build an image that is written down leaves attestations out, which
// would make an index of it: Lambda takes an image alone.
func TestImagesAreNoIndexes(t *testing.T) {
	build := regexp.MustCompile(`docker (buildx )?build .*`)
	found := 0
	for _, name := range files(t, ".md", ".sh", ".yaml", ".tf", "Makefile", "Dockerfile", "Dockerfile.model") {
		if strings.HasPrefix(name, "dev/demo/text/") {
			continue
		}
		for line := range strings.Lines(read(t, name)) {
			if !build.MatchString(line) {
				continue
			}
			found++
			if !strings.Contains(line, "BUILDX_NO_DEFAULT_ATTESTATIONS=1 docker") && !strings.Contains(line, "--provenance=false") {
				t.Errorf("%s: %s", name, strings.TrimSpace(line))
			}
		}
	}
	if found < 4 {
		t.Errorf("%d ways to build an image; want those of the Makefile and the Dockerfiles at least", found)
	}
}
