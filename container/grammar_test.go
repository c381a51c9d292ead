package main

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"testing"
)

// What a real model writes under a grammar is what the grammar says, whatever
// it would rather say, and beside requests of other grammars and of none.
func TestGrammars(t *testing.T) {
	p := start(t, nil, "--model-id", tinyFolder(t)).ready()
	const person = `{"type":"object","properties":{"name":{"type":"string","maxLength":8},"age":{"type":"integer","minimum":0,"maximum":120}},"required":["name","age"],"additionalProperties":false}`
	isPerson := func(text string) error {
		var v struct {
			Name *string
			Age  *int
		}
		d := json.NewDecoder(strings.NewReader(text))
		d.DisallowUnknownFields()
		if err := d.Decode(&v); err != nil {
			return err
		}
		if v.Name == nil || v.Age == nil || *v.Age > 120 || strings.Index(text, "name") > strings.Index(text, "age") {
			return fmt.Errorf("no person")
		}
		return nil
	}
	matches := func(pattern string) func(string) error {
		re := regexp.MustCompile("^(?:" + pattern + ")$")
		return func(text string) error {
			if !re.MatchString(text) {
				return fmt.Errorf("does not match %s", pattern)
			}
			return nil
		}
	}
	var all sync.WaitGroup
	for _, tt := range []struct {
		name, grammar string
		check         func(string) error
	}{
		{"a schema", `{"type":"json","value":` + person + `}`, isPerson},
		{"a schema in a string", `{"type":"json_object","value":` + string(must(json.Marshal(person))) + `}`, isPerson},
		{"a schema with a name", `{"type":"json_schema","value":{"name":"person","schema":` + person + `}}`, isPerson},
		{"a date", `{"type":"regex","value":"[0-9]{4}-(0[1-9]|1[0-2])-[0-3][0-9]"}`, matches(`[0-9]{4}-(0[1-9]|1[0-2])-[0-3][0-9]`)},
		{"words", `{"type":"regex","value":"(yes|no), (yes|no)"}`, matches(`(yes|no), (yes|no)`)},
		{"one text", `{"type":"regex","value":"nothing else is possible"}`, matches(`nothing else is possible`)},
		{"none", `null`, func(string) error { return nil }},
	} {
		for _, more := range []string{``, `,"do_sample":true,"seed":7,"temperature":1.5`, `,"do_sample":true,"best_of":2,"details":true`} {
			all.Go(func() {
				body := `{"inputs":"the quick brown fox","parameters":{"max_new_tokens":200,"grammar":` + tt.grammar + more + `}}`
				status, answer := p.post("/generate", body)
				var a struct {
					Text    string `json:"generated_text"`
					Details struct {
						Finish string `json:"finish_reason"`
						Best   []struct {
							Text string `json:"generated_text"`
						} `json:"best_of_sequences"`
					}
				}
				if err := json.Unmarshal([]byte(answer), &a); status != 200 || err != nil {
					t.Errorf("%s: %d %s", tt.name, status, answer)
					return
				}
				texts := []string{a.Text}
				for _, b := range a.Details.Best {
					texts = append(texts, b.Text)
				}
				for _, text := range texts {
					if err := tt.check(text); err != nil {
						t.Errorf("%s%s: %q: %v", tt.name, more, text, err)
					}
				}
				if a.Details.Finish != "" && tt.name != "none" && a.Details.Finish != "eos_token" {
					t.Errorf("%s: ends with %s", tt.name, a.Details.Finish)
				}
			})
		}
	}
	all.Wait()
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
