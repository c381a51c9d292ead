package grammar

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// macro returns the JSON inside the first json!(…) of Rust text, and what
// comes after it.
func macro(text string) (value, rest string, ok bool) {
	_, text, ok = strings.Cut(text, "json!(")
	if !ok {
		return "", "", false
	}
	depth, quoted := 1, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case strings.IndexByte("([{", c) >= 0:
			depth++
		case strings.IndexByte(")]}", c) >= 0:
			if depth--; depth == 0 {
				return trailingComma.ReplaceAllString(text[:i], "$1"), text[i+1:], true
			}
		}
	}
	return "", "", false
}

var (
	comment       = regexp.MustCompile(`(?m)\s//.*$`)
	trailingComma = regexp.MustCompile(`,(\s*[\]}])`)
	static        = regexp.MustCompile(`static ref (\w+): Value\s*=`)
	check         = regexp.MustCompile(`json_schema_check\(\s*&?(\w+),\s*&?\w+,\s*(\w+)\s*,?\s*\)`)
	expected      = regexp.MustCompile(`^\s*,\s*(true|false)\s*\)`)
)

// The library's own tests hold by way of the normal form too. They are in its
// source, which cargo keeps when it has built the library.
func TestLibraryCorpus(t *testing.T) {
	home := os.Getenv("CARGO_HOME")
	if home == "" {
		user, err := os.UserHomeDir()
		if err != nil {
			t.Skip(err)
		}
		home = filepath.Join(user, ".cargo")
	}
	files, _ := filepath.Glob(filepath.Join(home, "registry/src/*/llguidance-1.*/tests/test_json_*.rs"))
	if len(files) == 0 {
		t.Skip("cargo has not unpacked llguidance here")
	}
	c := compilerOfBytes(t)
	cases := 0
	for _, file := range files {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		text := comment.ReplaceAllString(string(source), "")
		schemas := map[string]string{}
		for _, at := range static.FindAllStringSubmatchIndex(text, -1) {
			if value, _, ok := macro(text[at[1]:]); ok {
				schemas[text[at[2]:at[3]]] = value
			}
		}
		for _, test := range strings.Split(text, "#[rstest]")[1:] {
			call := check.FindStringSubmatch(test)
			if call == nil || schemas[call[1]] == "" {
				continue // the schema is a parameter, or the error is
			}
			test, _, _ = strings.Cut(test, "lazy_static!")
			head, _, _ := strings.Cut(test, "json_schema_check")
			m, err := c.Compile(t.Context(), Spec{Kind: JSONSchema, Text: schemas[call[1]], Open: true})
			if err != nil {
				t.Errorf("%s: %v", filepath.Base(file), err)
				continue
			}
			for {
				value, rest, ok := macro(head)
				if !ok {
					break
				}
				head = rest
				want := call[2]
				if v := expected.FindStringSubmatch(rest); v != nil {
					want = v[1]
				}
				if want != "true" && want != "false" {
					continue
				}
				v, err := decodeJSON([]byte(value))
				if err != nil || strings.Contains(value, ".0") {
					continue // not JSON but for Rust; or 1.0, which is an integer of JSON Schema's but none there
				}
				cases++
				admitted := slices.ContainsFunc(spellings(v), func(text string) bool { return admits(t, m, text) })
				if admitted != (want == "true") {
					t.Errorf("%s: %s: admits %s: %v by %s", filepath.Base(file), call[1], value, admitted, schemas[call[1]])
				}
			}
			m.Close()
		}
	}
	if t.Logf("%d cases", cases); cases < 80 {
		t.Error("the tests of the library look different")
	}
}
