package token

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestGrowthIsBounded(t *testing.T) {
	const model = `"model":{"type":"WordLevel","vocab":{"a":0,"[UNK]":1},"unk_token":"[UNK]"}`
	file := func(parts string) []byte { return []byte(`{"version":"1.0","added_tokens":[],` + parts + `}`) }
	doublings := func(n int) string {
		return strings.TrimSuffix(strings.Repeat(`{"type":"Replace","pattern":{"String":"a"},"content":"aa"},`, n), ",")
	}
	table := base64.StdEncoding.EncodeToString([]byte("\x00\x00\x00\x00x\x00" + strings.Repeat("y", 300) + "\x00"))
	for _, tt := range []struct {
		name, parts string
		want        string // in the error, "" for none
	}{
		{"none", model, ""},
		{"some doublings", `"normalizer":{"type":"Sequence","normalizers":[` + doublings(8) + `]},` + model, ""},
		{"doublings", `"normalizer":{"type":"Sequence","normalizers":[` + doublings(24) + `]},` + model, "its normalizer may make a text 16777216 times as long, the limit is 256"},
		{"doublings in sequences of their own", `"normalizer":{"type":"Sequence","normalizers":[` +
			strings.TrimSuffix(strings.Repeat(`{"type":"Sequence","normalizers":[`+doublings(2)+`]},`, 12), ",") + `]},` + model, "16777216 times"},
		{"after the model", model + `,"normalizer":{"type":"Sequence","normalizers":[` + doublings(24) + `]}`, "16777216 times"},
		{"twice", `"normalizer":null,` + model + `,"normalizer":{"type":"Sequence","normalizers":[` + doublings(24) + `]}`, "16777216 times"},
		{"after a model of quotes and braces", `"model":{"type":"WordLevel","vocab":{"\"}}{":2,"decoder":3,"\\\\":4,"[UNK]":1},"unk_token":"[UNK]"},"normalizer":{"type":"Sequence","normalizers":[` + doublings(24) + `]}`, "16777216 times"},
		{"by another spelling", model + `,"normali\u007aer":{"type":"Sequence","normalizers":[` + doublings(24) + `]}`, "16777216 times"},
		{"between two models", model + `,"normalizer":{"type":"Sequence","normalizers":[` + doublings(24) + `]},` + model, "16777216 times"},
		{"in the decoder", `"decoder":{"type":"Sequence","decoders":[` + doublings(24) + `]},` + model, "its decoder may make a text"},
		{"long replacement", fmt.Sprintf(`"normalizer":{"type":"Replace","pattern":{"Regex":"x*"},"content":%q},%s`, strings.Repeat("y", 300), model), "301 times"},
		{"table", fmt.Sprintf(`"normalizer":{"type":"Precompiled","precompiled_charsmap":%q},%s`, table, model), "300 times"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := LoadBytes(file(tt.parts), nil)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("%v; want %q in it", err, tt.want)
			}
		})
	}
}

// The tokenizers in use are far below the limit.
func TestGrowthOfRealTokenizers(t *testing.T) {
	files, err := filepath.Glob("testdata/*/tokenizer.json")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		rules, err := readRules(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := rules["normalizer"].growth() * rules["pre_tokenizer"].growth() * rules["decoder"].growth(); got > mostGrowth {
			t.Errorf("%s: %.0f times", file, got)
		}
	}
}
