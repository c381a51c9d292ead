package handler

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"slices"
	"testing"
	"time"
)

// A line is what CloudWatch's specification of the embedded metric format asks
// for: every metric and dimension that _aws names is a member of the line, a
// number or a text.
func TestEMF(t *testing.T) {
	for _, tt := range []struct {
		name, path, body string
		namespace        string
		outcome          string
		metrics          []string
	}{
		{"answer", "/generate", oneToken, "Millrace", "length",
			[]string{"cached_tokens", "generated_tokens", "prompt_tokens", "queue_ms", "total_ms", "ttft_ms"}},
		{"stream", "/generate_stream", oneToken, "Millrace", "length",
			[]string{"cached_tokens", "generated_tokens", "prompt_tokens", "queue_ms", "total_ms", "ttft_ms"}},
		{"failure", "/generate", `{"inputs":1}`, "Millrace", "422", []string{"total_ms"}},
		{"off", "/generate", oneToken, "", "", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var log bytes.Buffer
			s := newTestServer(&fake{}, func(o *Options) {
				o.Logger, o.MetricNamespace = slog.New(slog.NewJSONHandler(&log, nil)), tt.namespace
			})
			post(t, s, tt.path, tt.body)
			var line map[string]any
			if err := json.Unmarshal(log.Bytes(), &line); err != nil {
				t.Fatalf("%v: %s", err, log.String())
			}
			if tt.namespace == "" {
				if line["_aws"] != nil {
					t.Errorf("metadata without being asked: %s", log.String())
				}
				return
			}
			var meta struct {
				AWS struct {
					Timestamp         int64
					CloudWatchMetrics []struct {
						Namespace  string
						Dimensions [][]string
						Metrics    []struct{ Name, Unit string }
					}
				} `json:"_aws"`
			}
			if err := json.Unmarshal(log.Bytes(), &meta); err != nil || len(meta.AWS.CloudWatchMetrics) != 1 {
				t.Fatalf("%v: %s", err, log.String())
			}
			d := meta.AWS.CloudWatchMetrics[0]
			if age := time.Since(time.UnixMilli(meta.AWS.Timestamp)); d.Namespace != tt.namespace || age < 0 || age > time.Hour {
				t.Errorf("namespace %q, age %v", d.Namespace, age)
			}
			var metrics []string
			for _, m := range d.Metrics {
				metrics = append(metrics, m.Name)
				if _, ok := line[m.Name].(float64); !ok || !slices.Contains([]string{"Count", "Milliseconds"}, m.Unit) {
					t.Errorf("metric %s in %q is %v", m.Name, m.Unit, line[m.Name])
				}
			}
			slices.Sort(metrics)
			if !slices.Equal(metrics, tt.metrics) {
				t.Errorf("metrics %q, want %q", metrics, tt.metrics)
			}
			for _, set := range d.Dimensions {
				for _, name := range set {
					if v, _ := line[name].(string); v == "" {
						t.Errorf("dimension %s is %v", name, line[name])
					}
				}
			}
			if line["outcome"] != tt.outcome || line["model"] != "MODEL" {
				t.Errorf("model %v, outcome %v, want %q", line["model"], line["outcome"], tt.outcome)
			}
		})
	}
}
