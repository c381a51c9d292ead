package contract

import (
	"encoding/json"
	"testing"
)

// TestExamples sends every body that the document shows, as a reader of /docs
// does, and validates it and its answer.
func TestExamples(t *testing.T) {
	url := serve(t)
	text := do(t, "GET", url+"/api-doc/openapi.json", "").body
	v := parse(t, text)
	var d struct {
		Paths map[string]map[string]struct {
			RequestBody *struct {
				Content map[string]struct {
					Examples map[string]struct{ Value json.RawMessage }
				}
			}
		}
	}
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	for path, operations := range d.Paths {
		body := operations["post"].RequestBody
		if body == nil {
			continue
		}
		examples := body.Content["application/json"].Examples
		if len(examples) == 0 {
			t.Errorf("%s has no example", path)
		}
		for name, e := range examples {
			t.Run(path+" "+name, func(t *testing.T) {
				if err := v.request("POST", path, "application/json", e.Value); err != nil {
					t.Errorf("%s: %v", e.Value, err)
				}
				got := do(t, "POST", url+path, string(e.Value))
				if got.status != 200 {
					t.Fatalf("%s: %d %s", e.Value, got.status, got.body)
				}
				if got.contentType == "application/json" {
					if err := v.answer("POST", path, got.status, got.contentType, got.body); err != nil {
						t.Errorf("%s: %v", got.body, err)
					}
				}
			})
		}
	}
}
