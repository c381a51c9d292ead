package handler

import (
	"strings"
	"testing"
)

func TestSamplingDefaults(t *testing.T) {
	for _, tt := range []struct{ name, config, want, err string }{
		{name: "none", config: `{"eos_token_id":2}`, want: `{}`},
		{name: "all", config: `{"do_sample":true,"temperature":0.7,"top_p":0.8,"top_k":20,"min_p":0.05,"typical_p":0.9,"repetition_penalty":1.05}`,
			want: `{"temperature":0.7,"top_p":0.8,"min_p":0.05,"typical_p":0.9,"repetition_penalty":1.05,"top_k":20}`},
		{name: "off", config: `{"temperature":null,"top_k":-1}`, want: `{}`},
		{name: "greedy", config: `{"temperature":0}`, want: `{"temperature":0}`},
		{name: "out of range", config: `{"temperature":0.5,"top_p":1.5}`, want: `{"temperature":0.5}`, err: "top_p 1.5 is not a sampling default"},
		{name: "half a token", config: `{"top_k":0.5}`, want: `{}`, err: "top_k 0.5"},
		{name: "not JSON", config: `[`, want: `{}`, err: "generation_config.json"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d, err := ParseSamplingDefaults([]byte(tt.config))
			if got := string(d.appendJSON(nil)); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
			if (err != nil) != (tt.err != "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("error %v, want %q", err, tt.err)
			}
		})
	}
}

// What a request says wins over the defaults; what it leaves out is theirs.
func TestSamplingDefaultsFill(t *testing.T) {
	d, err := ParseSamplingDefaults([]byte(`{"temperature":0.7,"top_p":0.8,"top_k":20}`))
	if err != nil {
		t.Fatal(err)
	}
	p := parameters{temperature: some[float32](0), topK: some[int32](-1)}
	d.fill(&p)
	if p.temperature.v != 0 || p.topK.v != -1 || p.topP.v != 0.8 || p.repetitionPenalty.set {
		t.Errorf("filled %+v", p)
	}
	p.settle(&completionNames)
	if got := p.sampling(); got.Sample == 1 || got.TopP != 1 || got.TopK != 0 {
		t.Errorf("temperature 0 is not greedy: %+v", got)
	}
}
