package millrace_test

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// houseWords are phrases that docs/style.md replaces, and what to write instead.
// Each is one that hardly ever is right: TestHouseWords knows of no exceptions
// but those of notIs.
var houseWords = []struct {
	phrase  *regexp.Regexp
	instead string
}{
	{regexp.MustCompile(`(?i)\bto be had\b|cannot be had\b`), "is not available, cannot be allocated, not found"},
	{regexp.MustCompile(`(?i)\banew\b`), "again, recreated"},
	{regexp.MustCompile(`(?i)\bthe middle one\b`), "the median"},
	{regexp.MustCompile(`(?i)\bcomes? to the same\b`), "the result is the same"},
	{regexp.MustCompile(`(?i)\bnobody's\b`), "say what it is instead"},
	{regexp.MustCompile(`(?i)\bin place of [^.]{1,60} stands?\b|\bstands? in place of\b`), "replaces, instead of"},
	{regexp.MustCompile(`(?i)[a-z] so often\b`), "that many times"},
	{regexp.MustCompile(`(?i)\bwho (?:has|have) gone\b`), "that has disconnected"},
	{regexp.MustCompile(`(?i)\bleft out: not installed\b`), "skipped; missing"},
	{regexp.MustCompile(`(?i)\bare no numbers\b`), "are NaN"},
	{regexp.MustCompile(`(?i)\bscal(?:es?|ing) to none\b`), "scale to zero"},
	{regexp.MustCompile(`(?i)\b(?:takes?|took) (?:it|them) away\b`), "deletes, removes"},
	{regexp.MustCompile(`(?i)\bbehind the (?:last|first|next|call|comma|brace|quote|header|body|answer|prompt|flags?|settings)\b`), "after"},
}

var (
	isNo = regexp.MustCompile(`(?i)(?:(\w+)[,]? )?\b(?:is|are|was) no ([a-z]+)`)
	// notIs are words after which or before which "is no" is English.
	notIs = []string{"longer", "more", "such", "less", "different", "easier", "better", "worse", "doubt"}
)

func TestHouseWords(t *testing.T) {
	for _, name := range files(t, ".go", ".rs", ".cc", ".h", ".hpp", ".py", ".sh", ".md", ".tf", ".hcl", ".js", ".mjs", ".html", ".yaml", ".yml", "Makefile", "Dockerfile") {
		if slices.ContainsFunc([]string{"words_test.go", "docs/style.md", "dev/demo/text/", "docs/faq.md", "handler/playground/vendor/"}, func(skip string) bool { return strings.HasPrefix(name, skip) }) || strings.Contains(name, "testdata/") {
			continue
		}
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for line := range strings.Lines(string(data)) {
			n++
			if len(line) > 2000 { // data
				continue
			}
			for _, w := range houseWords {
				if found := w.phrase.FindString(line); found != "" {
					t.Errorf("%s:%d: %q: write %s", name, n, found, w.instead)
				}
			}
			for _, m := range isNo.FindAllStringSubmatch(line, -1) {
				if !slices.Contains([]string{"there", "where", "if"}, strings.ToLower(m[1])) && !slices.Contains(notIs, strings.ToLower(m[2])) {
					t.Errorf("%s:%d: %q: write is not a", name, n, m[0])
				}
			}
		}
	}
}
