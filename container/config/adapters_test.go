package config

import (
	"slices"
	"strings"
	"testing"
)

// TGI's list, and vLLM's objects.
func TestAdapters(t *testing.T) {
	for _, tt := range []struct {
		text string
		want []Adapter
		err  string
	}{
		{"", nil, ""},
		{"org/a, b=/data/b,,c=s3://bucket/c/", []Adapter{{"org/a", "org/a"}, {"b", "/data/b"}, {"c", "s3://bucket/c/"}}, ""},
		{"org/a@v2,b=org/b@main", []Adapter{{"org/a", "org/a@v2"}, {"b", "org/b@main"}}, ""},
		{`{"name":"a","path":"/a"} {"name":"b","path":"org/b"}`, []Adapter{{"a", "/a"}, {"b", "org/b"}}, ""},
		{`[{"name":"a","path":"/a","base_model_name":"x"}]`, []Adapter{{"a", "/a"}}, ""},
		{"a=b=c", nil, "Invalid LoRA adapter format: a=b=c"},
		{"a@b@c", nil, "Invalid LoRA adapter format: a@b@c"},
		{"=b", nil, "Invalid LoRA adapter format: =b"},
		{"a=/b,a=/c", nil, "two adapters are called a"},
		{`{"name":"a"}`, nil, "name and path"},
		{`{"name":`, nil, "JSON"},
	} {
		s := &Serve{LoraAdapters: tt.text}
		got, err := s.Adapters()
		if tt.err == "" && (err != nil || !slices.Equal(got, tt.want)) {
			t.Errorf("%q: %v, %v; want %v", tt.text, got, err, tt.want)
		}
		if tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
			t.Errorf("%q: %v, want %q", tt.text, err, tt.err)
		}
	}
}
