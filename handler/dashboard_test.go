package handler

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The dashboard for Grafana may only show what /metrics has, with labels that
// it has there.
func TestDashboard(t *testing.T) {
	data, err := os.ReadFile("grafana/millrace.json")
	if err != nil {
		t.Fatal(err)
	}
	var board struct {
		Panels []struct {
			Type, Title, Description string

			Targets []struct{ Expr string }
		}
		Annotations struct {
			List []struct{ Expr string }
		}
		Templating struct {
			List []struct{ Query string }
		}
	}
	if err := json.Unmarshal(data, &board); err != nil {
		t.Fatal(err)
	}
	exposed := exposition(ask(t, newTestServer(&fake{}), "GET", "/metrics", "").body)
	seen := 0
	check := func(where, expr string) {
		for _, s := range selectors(expr) {
			seen++
			labels, ok := exposed[s.metric]
			if !ok {
				t.Errorf("%s: there is no metric %q in %s", where, s.metric, expr)
			}
			for _, l := range s.labels {
				if !slices.Contains(labels, l) && l != "instance" { // Prometheus' own
					t.Errorf("%s: %s has no label %q, only %q", where, s.metric, l, labels)
				}
			}
		}
	}
	for _, p := range board.Panels {
		if p.Type != "row" && p.Description == "" {
			t.Errorf("%s has no description", p.Title)
		}
		for _, target := range p.Targets {
			check(p.Title, target.Expr)
		}
	}
	for _, a := range board.Annotations.List {
		check("annotation", a.Expr)
	}
	if seen < 20 {
		t.Errorf("only %d selectors found", seen)
	}
	for _, v := range board.Templating.List {
		if m, ok := strings.CutPrefix(v.Query, "label_values("); ok {
			if name, _, _ := strings.Cut(m, ","); exposed[name] == nil {
				t.Errorf("a variable asks for %q", name)
			}
		}
	}
}

// The alerts, too, may only ask for what /metrics has, and each has a runbook.
// What they do is tested by promtool.
func TestAlerts(t *testing.T) {
	data, err := os.ReadFile("grafana/alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	cases, err := os.ReadFile("grafana/alerts_test.yaml")
	if err != nil {
		t.Fatal(err)
	}
	runbook, err := os.ReadFile("../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	exposed := exposition(ask(t, newTestServer(&fake{}), "GET", "/metrics", "").body)
	for _, name := range regexp.MustCompile(`\b(?:millrace|tgi|process)_\w+`).FindAllString(string(data), -1) {
		if _, ok := exposed[name]; !ok {
			t.Errorf("there is no metric %q", name)
		}
	}
	alerts := strings.Split(string(data), "- alert: ")[1:]
	if len(alerts) < 10 {
		t.Fatalf("only %d alerts found", len(alerts))
	}
	for _, alert := range alerts {
		name, rest, _ := strings.Cut(alert, "\n")
		if want := "/docs/operations.md#" + strings.ToLower(name) + "\n"; !strings.Contains(rest, want) {
			t.Errorf("%s: its runbook_url does not end in %s", name, want)
		}
		if !strings.Contains(string(runbook), "\n### "+name+"\n") {
			t.Errorf("%s: docs/operations.md has no section for it", name)
		}
		fires, quiet := false, false
		for _, c := range strings.Split(string(cases), "- name: ") {
			if strings.Contains(c, "alertname: "+name+"\n") {
				fires = fires || strings.Contains(c, "exp_labels:")
				quiet = quiet || strings.Contains(c, "exp_alerts: []")
			}
		}
		if !fires || !quiet {
			t.Errorf("%s: alerts_test.yaml has a case in which it fires: %v; one in which it does not: %v", name, fires, quiet)
		}
	}
}

// exposition returns the label names of every metric in a text of Prometheus'.
func exposition(text string) map[string][]string {
	all := map[string][]string{}
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		m := sampleLine.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		labels := append([]string{}, all[m[1]]...)
		for _, l := range matcher.FindAllStringSubmatch(m[2], -1) {
			labels = append(labels, l[1])
		}
		all[m[1]] = labels
	}
	return all
}

// selector is a metric in a PromQL expression, and the labels by which it is
// chosen or grouped.
type selector struct {
	metric string
	labels []string
}

var (
	sampleLine = regexp.MustCompile(`^([a-zA-Z_:][\w:]*)(?:\{([^}]*)\})? `)
	matcher    = regexp.MustCompile(`([a-zA-Z_]\w*)\s*[=!]~?\s*"`)
	grouping   = regexp.MustCompile(`\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)`)
	window     = regexp.MustCompile(`\[[^\]]*\]`)
	series     = regexp.MustCompile(`([a-zA-Z_:][\w:]*)\s*(\(|\{([^}]*)\})?`)
)

// selectors finds the metrics of an expression: the names that are neither a
// function's, a keyword nor a label's. Labels by which an expression groups
// count for each of its metrics.
func selectors(expr string) (all []selector) {
	var groups []string
	for _, g := range grouping.FindAllStringSubmatch(expr, -1) {
		for l := range strings.SplitSeq(g[1], ",") {
			groups = append(groups, strings.TrimSpace(l))
		}
	}
	rest := window.ReplaceAllString(grouping.ReplaceAllString(expr, ""), "")
	for _, m := range series.FindAllStringSubmatch(rest, -1) {
		if m[2] == "(" || slices.Contains([]string{"and", "or", "unless", "offset", "bool", "sum", "max", "min", "avg"}, m[1]) {
			continue
		}
		s := selector{metric: m[1], labels: slices.Clone(groups)}
		for _, l := range matcher.FindAllStringSubmatch(m[3], -1) {
			s.labels = append(s.labels, l[1])
		}
		all = append(all, s)
	}
	return all
}

// A test of the test: what it must find in an expression.
func TestSelectors(t *testing.T) {
	for _, tt := range []struct{ expr, want string }{
		{`up`, "up"},
		{`sum by (le) (rate(a_bucket{x="y{",z=~"$z"}[5m]))`, "a_bucket le x z"},
		{`histogram_quantile(0.9, sum(rate(a[$__rate_interval]))) / b:c`, "a; b:c"},
		{`sum(a) and on (x) b`, "a x; b x"},
	} {
		var got []string
		for _, s := range selectors(tt.expr) {
			got = append(got, strings.Join(append([]string{s.metric}, s.labels...), " "))
		}
		if g := strings.Join(got, "; "); g != tt.want {
			t.Errorf("%s: %q, want %q", tt.expr, g, tt.want)
		}
	}
}
