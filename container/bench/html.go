package bench

import (
	_ "embed"
	"html/template"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/millrace-ai/millrace/internal/chart"
)

//go:embed report.html
var pageText string

var page = template.Must(template.New("report").Funcs(template.FuncMap{
	"failures": func(r *Report) (list []string) {
		for _, kind := range slices.Sorted(maps.Keys(r.Errors)) {
			list = append(list, withReason(kind, r.ErrorTexts[kind]))
		}
		return list
	},
	"percent": func(share float64) float64 { return 100 * share },
	"failed":  (*Report).failed,
	"load":    (*Report).load,
}).Parse(pageText))

// writeHTML writes a page about the runs to a file: tables, and plots over the
// number of clients and over all requests.
func writeHTML(name string, all []*Report, now time.Time) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := page.Execute(f, map[string]any{"Date": now.Format(time.RFC1123), "Runs": all, "First": all[0], "Plots": plots(all)}); err != nil {
		return err
	}
	return f.Close()
}

// plots draws what grows with the number of clients, if several were measured,
// and how the latencies of each run are distributed.
func plots(all []*Report) (list []template.HTML) {
	draw := func(p chart.Lines) {
		if len(p.Series) > 0 {
			list = append(list, template.HTML(p.SVG())) // which escapes names
		}
	}
	if len(all) > 1 {
		var clients []float64
		for _, r := range all {
			clients = append(clients, float64(r.Concurrency))
		}
		over := func(name string, y func(*Report) float64) chart.Series {
			s := chart.Series{Name: name, X: clients}
			for _, r := range all {
				s.Y = append(s.Y, y(r))
			}
			return s
		}
		lines := func(title, y string, series ...chart.Series) {
			draw(chart.Lines{Title: title, X: "clients", Y: y, LogX: true, Series: series})
		}
		lines("Throughput", "tokens/s", over("tokens/s", func(r *Report) float64 { return r.TokensPerSecond }))
		rates := []chart.Series{over("requests/s", func(r *Report) float64 { return r.RequestsPerSecond })}
		if all[0].Goodput != nil {
			rates = append(rates, over("good/s: "+all[0].Goodput.SLO, func(r *Report) float64 { return r.Goodput.RequestsPerSecond }))
		}
		lines("Requests", "requests/s", rates...)
		for _, kind := range kinds(all[0]) {
			lines(kind.title, "ms",
				over("p50", func(r *Report) float64 { return kind.of(r).P50 }),
				over("p95", func(r *Report) float64 { return kind.of(r).P95 }),
				over("p99", func(r *Report) float64 { return kind.of(r).P99 }))
		}
	}
	for _, kind := range kinds(all[0]) {
		p := chart.Lines{Title: kind.title + ", by percentile", X: "percentile", Y: "ms"}
		for _, r := range all {
			s := chart.Series{Name: r.load()}
			for i, ms := range kind.of(r).curve {
				s.X, s.Y = append(s.X, 100*curveAt[i]), append(s.Y, ms)
			}
			if len(s.X) > 0 {
				p.Series = append(p.Series, s)
			}
		}
		draw(p)
	}
	return list
}

// kind is a latency that is plotted.
type kind struct {
	title string
	of    func(*Report) *Latency
}

func kinds(r *Report) []kind {
	total := kind{"Whole request (E2EL)", func(r *Report) *Latency { return &r.Total }}
	if !r.Stream {
		return []kind{total}
	}
	return []kind{
		{"First token (TTFT)", func(r *Report) *Latency { return &r.FirstToken }},
		{"Between tokens (ITL)", func(r *Report) *Latency { return &r.InterToken }},
		total,
	}
}
