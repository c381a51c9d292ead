package bench

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The page has a row for each number of clients, plots of both kinds, what failed
// as text, and needs nothing else to be read.
func TestHTMLReport(t *testing.T) {
	o := options(serve(t, &fakeServer{limit: 3}))
	o.Clients, o.Requests = []int{1, 2}, 4
	o.Prompt = promptFile(t, "fine", "overload me")
	o.SLO = SLO{FirstToken: time.Minute}
	o.Report = filepath.Join(t.TempDir(), "report.html")
	if err := Run(context.Background(), o, &bytes.Buffer{}, nil); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(o.Report)
	if err != nil {
		t.Fatal(err)
	}
	text := string(data)
	for _, want := range []string{"<td>1 client<", "<td>2 clients", "Throughput", "First token (TTFT)", "ttft=1m0s", "<td>50.0", "429 overloaded: Model is overloaded", "good/s"} {
		if !strings.Contains(text, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	// Throughput, requests, three latencies over clients, and three distributions.
	if n := strings.Count(text, "<svg "); n != 8 {
		t.Errorf("%d plots, want 8", n)
	}
	for _, elsewhere := range []string{"<script", "src=", "href=", "@import"} {
		if strings.Contains(text, elsewhere) {
			t.Errorf("the page has %q: it must be one file", elsewhere)
		}
	}
	if strings.Contains(text, "NaN") || strings.Contains(text, "ZgotmplZ") {
		t.Error("a number or an attribute is missing")
	}
}

// What a server says cannot become markup.
func TestHTMLEscapes(t *testing.T) {
	name := filepath.Join(t.TempDir(), "report.html")
	r := &Report{URL: `http://x/"><script>`, API: "tgi", Concurrency: 1, Errors: map[string]int64{"500 <script>": 1}}
	if err := writeHTML(name, []*Report{r}, time.Now()); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(name); err != nil || bytes.Contains(data, []byte("<script>")) {
		t.Errorf("err %v, page:\n%s", err, data)
	}
}

func TestSLO(t *testing.T) {
	for _, tt := range []struct {
		text, err string
		want      SLO
	}{
		{text: "ttft=500ms,itl=100ms", want: SLO{FirstToken: 500 * time.Millisecond, InterToken: 100 * time.Millisecond}},
		{text: "tpot=50ms,e2el=10s", want: SLO{PerToken: 50 * time.Millisecond, Total: 10 * time.Second}},
		{text: "ttft", err: "ttft=200ms"},
		{text: "ttft=0s", err: "ttft=200ms"},
		{text: "p99=1s", err: "expected ttft, itl, tpot or e2el"},
		{text: "", err: "expected ttft"},
	} {
		var s SLO
		err := s.UnmarshalText([]byte(tt.text))
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%q: err %v, want %q in it", tt.text, err, tt.err)
			}
			continue
		}
		if err != nil || s != tt.want || s.String() != tt.text {
			t.Errorf("%q: %v, err %v", tt.text, s, err)
		}
	}
	s := SLO{FirstToken: 3, InterToken: 2, Total: 9}
	for _, tt := range []struct {
		first, gap, mean, total time.Duration
		want                    bool
	}{{3, 2, 100, 9, true}, {4, 2, 1, 9, false}, {3, 3, 1, 9, false}, {3, 2, 1, 10, false}} {
		if got := s.met(tt.first, tt.gap, tt.mean, tt.total); got != tt.want {
			t.Errorf("%v: %v, want %v", tt, got, tt.want)
		}
	}
}

// Every request waits at least a millisecond for each token: an SLO below that is
// met by none, one far above by all that do not fail.
func TestGoodput(t *testing.T) {
	for _, tt := range []struct {
		slo  SLO
		want int64
	}{
		{SLO{FirstToken: time.Microsecond}, 0},
		{SLO{InterToken: time.Nanosecond}, 0},
		{SLO{Total: 5 * time.Millisecond}, 0},
		{SLO{FirstToken: time.Hour, InterToken: time.Hour, PerToken: time.Hour, Total: time.Hour}, 5},
	} {
		o := options(serve(t, &fakeServer{limit: 5, wait: time.Millisecond}))
		o.Prompt, o.SLO = promptFile(t, "fine", "overload me"), tt.slo
		rep, err := Measure(context.Background(), o, nil)
		if err != nil {
			t.Fatal(err)
		}
		if g := rep.Goodput; g == nil || g.Requests != tt.want || g.Share != float64(tt.want)/10 {
			t.Errorf("%v: %+v, want %d good of 10", tt.slo, g, tt.want)
		}
	}
	o := options("http://unused")
	o.Stream, o.SLO = false, SLO{FirstToken: time.Second}
	if _, err := Measure(context.Background(), o, nil); err == nil || !strings.Contains(err.Error(), "only e2el") {
		t.Errorf("an SLO that whole answers do not tell: err %v", err)
	}
}
