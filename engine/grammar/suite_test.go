package grammar

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// suiteSource is a Python package whose source distribution carries the
// official JSON-Schema-Test-Suite.
const suiteSource = "jsonschema==4.26.0"

type suiteGroup struct {
	Description string
	Schema      json.RawMessage
	Tests       []struct {
		Description string
		Data        json.RawMessage
		Valid       bool
	}
}

// suite returns the groups of the suite's draft 2020-12 by file. It is fetched
// once, into the folder of builds.
func suite(t *testing.T) map[string][]suiteGroup {
	t.Helper()
	const dir = "../../build/jsonschema-suite"
	archive := func() string {
		found, _ := filepath.Glob(dir + "/*.tar.gz")
		return slices.Max(append(found, ""))
	}
	if archive() == "" {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		out, err := exec.CommandContext(ctx, "python3", "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:", "--dest", dir, suiteSource).CombinedOutput()
		if err != nil || archive() == "" {
			t.Skipf("the JSON-Schema-Test-Suite is not here: pip download %s: %v %s", suiteSource, err, oneLine(string(out)))
		}
	}
	f, err := os.Open(archive())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]suiteGroup{}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		_, name, ok := strings.Cut(h.Name, "/json/tests/draft2020-12/")
		if !ok || path.Ext(name) != ".json" || strings.HasPrefix(name, "optional/format/") {
			continue
		}
		var groups []suiteGroup
		if err := json.NewDecoder(r).Decode(&groups); err != nil {
			t.Fatal(name, err)
		}
		files[name] = groups
	}
	if len(files) < 40 {
		t.Fatalf("%s has only %d files", archive(), len(files))
	}
	return files
}

// spellings returns the texts of a JSON value: its members in all orders (a
// grammar has one), whole numbers with and without a fraction. There may be
// more than are returned.
func spellings(v any) []string {
	const most = 400
	switch v := v.(type) {
	case json.Number:
		if f, err := v.Float64(); err == nil && f == float64(int64(f)) {
			return []string{v.String(), fmt.Sprint(int64(f))}
		}
	case []any:
		texts := []string{"["}
		for i, e := range v {
			comma := ","
			if i == 0 {
				comma = ""
			}
			var next []string
			for _, t := range texts {
				for _, s := range spellings(e) {
					if len(next) < most {
						next = append(next, t+comma+s)
					}
				}
			}
			texts = next
		}
		for i := range texts {
			texts[i] += "]"
		}
		return texts
	case *jsonObject:
		texts := []string{}
		var extend func(text string, left []string)
		extend = func(text string, left []string) {
			if len(left) == 0 && len(texts) < most {
				texts = append(texts, text+"}")
			}
			for i, key := range left {
				for _, s := range spellings(v.values[key]) {
					if len(texts) < most {
						comma := ","
						if len(left) == len(v.keys) {
							comma = ""
						}
						extend(text+comma+string(appendString(nil, key))+":"+s, slices.Delete(slices.Clone(left), i, i+1))
					}
				}
			}
		}
		extend("{", v.keys)
		return texts
	}
	return []string{string(appendJSON(nil, v))}
}

// suiteExceptions are the cases that go another way here, and why. A key is a
// file, a group, or a test of one.
var suiteExceptions = func() map[string]string {
	reasons := map[string][]string{
		"uniqueItems is only enforced for small sets of values: no grammar remembers what was written": {
			"uniqueItems.json: uniqueItems validation",
			"uniqueItems.json: uniqueItems with an array of items and additionalItems=false",
			"uniqueItems.json: uniqueItems with an array of items",
		},
		"oneOf admits what anyOf would": {
			"oneOf.json: oneOf: both oneOf valid",
			"oneOf.json: oneOf with base schema: both oneOf valid",
			"oneOf.json: oneOf with boolean schemas, all true",
			"oneOf.json: oneOf with boolean schemas, more than one true",
			"oneOf.json: oneOf complex types: both oneOf valid (complex)",
			"oneOf.json: oneOf with empty schema: both valid - invalid",
			"oneOf.json: oneOf with required: both valid - invalid",
			"oneOf.json: oneOf with missing optional property: both oneOf valid",
		},
		"known formats are enforced, as TGI does": {"format.json"},
		"a value is written by one branch of anyOf; what it has of another is not evaluated": {
			"unevaluatedProperties.json: unevaluatedProperties with anyOf: when two match and has no unevaluated properties",
		},
		"what only an if looks at is not evaluated: narrower": {
			"unevaluatedItems.json: unevaluatedItems can see annotations from if without then and else: valid in case if is evaluated",
			"unevaluatedProperties.json: unevaluatedProperties can see annotations from if without then and else: valid in case if is evaluated",
		},
		"a metaschema is not looked at: its keywords count": {"vocabulary.json: schema that uses custom metaschema with with no validation vocabulary"},
		"multiples are written without an exponent":         {"optional/float-overflow.json"},
		"\\s and \\S are those of Unicode": {
			`optional/ecmascript-regex.json: ECMA 262 \s matches whitespace`,
			`optional/ecmascript-regex.json: ECMA 262 \S matches everything but whitespace`,
		},
	}
	exceptions := map[string]string{}
	for reason, keys := range reasons {
		for _, key := range keys {
			exceptions[key] = reason
		}
	}
	return exceptions
}()

// What of the official suite is accepted is enforced, and the rest is refused
// by name: with JSON Schema's own meaning, and with the narrower one of TGI,
// which must not admit more.
func TestOfficialSuite(t *testing.T) {
	c := compilerOfBytes(t)
	files := suite(t)
	used := map[string]bool{}
	excepted := func(keys ...string) bool {
		for i := range keys {
			key := strings.Join(keys[:i+1], ": ")
			if _, ok := suiteExceptions[key]; ok {
				used[key] = true
				return true
			}
		}
		return false
	}
	for _, open := range []bool{true, false} {
		accepted, refused, tests, narrower := 0, 0, 0, 0
		for name, groups := range files {
			for _, g := range groups {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				m, err := c.Compile(ctx, Spec{Kind: JSONSchema, Text: string(g.Schema), Open: open})
				cancel()
				if err != nil {
					var fault *Error
					if !errors.As(err, &fault) || fault.Place == "" {
						t.Errorf("%s: %s: %v names no place in %s", name, g.Description, err, g.Schema)
					}
					refused++
					continue
				}
				accepted++
				for _, tt := range g.Tests {
					v, err := decodeJSON(tt.Data)
					if err != nil {
						t.Fatal(err)
					}
					admitted := slices.ContainsFunc(spellings(v), func(text string) bool { return admits(t, m, text) })
					tests++
					switch {
					case admitted == tt.Valid || excepted(name, g.Description, tt.Description):
					case !admitted && !open:
						narrower++
					default:
						t.Errorf("%s: %s: %s: admits %s: %v, want %v by %.300s", name, g.Description, tt.Description, tt.Data, admitted, tt.Valid, g.Schema)
					}
				}
				m.Close()
			}
		}
		t.Logf("open %v: %d schemas are accepted and held in %d tests, %d refused by name; %d valid texts are not admitted", open, accepted, tests, refused, narrower)
	}
	for key := range suiteExceptions {
		if !used[key] {
			t.Errorf("the exception %q is not needed", key)
		}
	}
}
