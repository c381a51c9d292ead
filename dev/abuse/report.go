package abuse

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// Sample is what a server says of itself.
type Sample struct {
	At          time.Duration // since the phases began
	Attacked    bool
	Memory      int64 // bytes resident
	Goroutines  int
	Descriptors int
	PagesUsed   int
}

func (s Sample) String() string {
	return fmt.Sprintf("%d MB resident, %d goroutines, %d descriptors, %d pages", s.Memory/1e6, s.Goroutines, s.Descriptors, s.PagesUsed)
}

// sample reads /metrics.
func sample(ctx context.Context, client *http.Client, url string) (Sample, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/metrics", nil)
	if err != nil {
		return Sample{}, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return Sample{}, err
	}
	defer resp.Body.Close()
	found := map[string]float64{}
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), " ")
		if number, err := strconv.ParseFloat(value, 64); err == nil {
			found[name] = number
		}
	}
	return Sample{
		Memory: int64(found["process_resident_memory_bytes"]), Goroutines: int(found["go_goroutines"]),
		Descriptors: int(found["process_open_fds"]), PagesUsed: int(found["millrace_kv_pages_used"]),
	}, nil
}

// Report is what a run has found.
type Report struct {
	Before, After Sample // without clients
	Leaked        bool   // more goroutines, descriptors or pages after than before
	Samples       []Sample
	Statuses      map[string]map[int]int // of hostile requests, by attack
	Failures      []string

	phases [2]phase
}

// Growth is the share by which memory in use grew after the first quarter, in
// the time without attacks.
func (r *Report) Growth() float64 { return steadiness(r.Samples) }

// Peak is the most memory that was seen in use.
func (r *Report) Peak() int64 {
	peak := r.Before.Memory
	for _, s := range r.Samples {
		peak = max(peak, s.Memory)
	}
	return peak
}

func (r *Report) write(out io.Writer) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(w, "\t\tcount\tp50 ms\tp90 ms\tp99 ms\tmax ms\t\n")
	for kind, name := range []string{"quiet", "attacked"} {
		p := &r.phases[kind]
		l := p.good.Latency()
		fmt.Fprintf(w, "%s\tgood requests\t%d\t%.1f\t%.1f\t%.1f\t%.1f\t%d refused\n", name, l.Count, l.P50, l.P90, l.P99, l.Max, p.refused)
		l = p.gaps.Latency()
		fmt.Fprintf(w, "%s\tgaps of streams\t%d\t%.1f\t%.1f\t%.1f\t%.1f\t\n", name, l.Count, l.P50, l.P90, l.P99, l.Max)
		l = p.pings.Latency()
		fmt.Fprintf(w, "%s\tpings\t%d\t%.1f\t%.1f\t%.1f\t%.1f\t\n", name, l.Count, l.P50, l.P90, l.P99, l.Max)
	}
	w.Flush() //nolint:errcheck // the log's own
	if calm := r.phases[quiet].good.Latency().P99; calm > 0 {
		fmt.Fprintf(out, "good requests' p99 with attacks: %.2f times that without\n", r.phases[attacked].good.Latency().P99/calm)
	}
	fmt.Fprintf(out, "before: %s\nafter:  %s\npeak: %d MB; grown by %.1f %% after the first quarter\n", r.Before, r.After, r.Peak()/1e6, 100*r.Growth())
	for _, attack := range slices.Sorted(maps.Keys(r.Statuses)) {
		fmt.Fprintf(out, "%s:", attack)
		for _, status := range slices.Sorted(maps.Keys(r.Statuses[attack])) {
			fmt.Fprintf(out, "  %d x %d", r.Statuses[attack][status], status)
		}
		fmt.Fprintln(out)
	}
}
