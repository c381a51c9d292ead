package openapi

import (
	"encoding/json"
	"testing"
)

// The edits name objects of the contract: every document can be made of it, and
// none changes what the next one starts from.
func TestDocument(t *testing.T) {
	plain := string(Document(&Options{Version: "1"}))
	for _, o := range []Options{
		{ToolCalls: true}, {Grammars: true}, {ErrorObject: true},
		{Fields: map[string]map[string]Object{"ChatRequest": {"min_p": Number(0, 1, "a share")}}},
	} {
		var doc Object
		if err := json.Unmarshal(Document(&o), &doc); err != nil {
			t.Fatal(err)
		}
		if o.Fields != nil {
			if p := at(doc, "components", "schemas", "ChatRequest", "properties", "min_p"); p["nullable"] != true || p["maximum"] != 1.0 {
				t.Errorf("the field that was added is %v", p)
			}
		}
		if at(doc, "info")["title"] != "Millrace" {
			t.Errorf("info is %v", doc["info"])
		}
	}
	if again := string(Document(&Options{Version: "1"})); again != plain {
		t.Error("a second document differs from the first")
	}
}
