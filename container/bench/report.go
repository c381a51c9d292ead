package bench

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"
	"time"
)

// Report is the result of a run.
type Report struct {
	URL          string  `json:"url"`
	API          string  `json:"api"`
	Stream       bool    `json:"stream"`
	Concurrency  int     `json:"concurrency,omitempty"` // closed loop
	Rate         float64 `json:"rate,omitempty"`        // open loop, requests per second
	PromptWords  string  `json:"prompt_words,omitempty"`
	PromptFile   string  `json:"prompt_file,omitempty"`
	MaxNewTokens string  `json:"max_new_tokens"`
	Seed         uint64  `json:"seed"`

	Seconds           float64          `json:"seconds"`
	Requests          int64            `json:"requests"` // with a complete answer
	Tokens            int64            `json:"tokens"`   // generated
	RequestsPerSecond float64          `json:"requests_per_second"`
	TokensPerSecond   float64          `json:"tokens_per_second"`
	Goodput           *Goodput         `json:"goodput,omitempty"`
	Errors            map[string]int64 `json:"errors"` // by status or kind
	// ErrorTexts are what the server said first about each kind of error.
	ErrorTexts map[string]string `json:"error_texts,omitempty"`

	// Beside each, what `vllm bench serve` calls it.
	FirstToken Latency `json:"time_to_first_token"`   // TTFT
	PerToken   Latency `json:"time_per_output_token"` // TPOT: of each request, the mean after its first token
	InterToken Latency `json:"inter_token"`           // ITL: between two tokens of a request
	Total      Latency `json:"total"`                 // E2EL: whole requests
}

// Goodput is what met the service level objective.
type Goodput struct {
	SLO               string  `json:"slo"`
	Requests          int64   `json:"requests"`
	RequestsPerSecond float64 `json:"requests_per_second"`
	Share             float64 `json:"share"` // of all requests, failed ones included
}

// failed returns how many requests got no complete answer.
func (r *Report) failed() (n int64) {
	for _, m := range r.Errors {
		n += m
	}
	return n
}

// load says what was measured.
func (r *Report) load() string {
	if r.Rate > 0 {
		return fmt.Sprintf("%g requests/s arriving", r.Rate)
	}
	if r.Concurrency == 1 {
		return "1 client"
	}
	return fmt.Sprintf("%d clients", r.Concurrency)
}

func newReport(o *Options, clients []*client, elapsed time.Duration) *Report {
	r := &Report{
		URL: o.URL, API: o.API, Stream: o.Stream, Rate: o.Rate, MaxNewTokens: o.MaxNewTokens.String(), Seed: o.Seed,
		Seconds: elapsed.Seconds(), Errors: map[string]int64{}, ErrorTexts: map[string]string{}, PromptFile: o.Prompt,
	}
	if o.Rate == 0 {
		r.Concurrency = o.Concurrency
	}
	if o.Prompt == "" {
		r.PromptWords = o.PromptWords.String()
	}
	var first, per, inter, total Histogram
	good := int64(0)
	for _, c := range clients {
		first.merge(&c.firstToken)
		per.merge(&c.perToken)
		inter.merge(&c.interToken)
		total.merge(&c.total)
		r.Requests += c.requests
		r.Tokens += c.tokens
		good += c.good
		for kind, n := range c.errors {
			r.Errors[kind] += n
			if r.ErrorTexts[kind] == "" && c.reasons[kind] != "" {
				r.ErrorTexts[kind] = c.reasons[kind]
			}
		}
	}
	r.RequestsPerSecond = float64(r.Requests) / r.Seconds
	r.TokensPerSecond = float64(r.Tokens) / r.Seconds
	if o.SLO != (SLO{}) {
		r.Goodput = &Goodput{SLO: o.SLO.String(), Requests: good, RequestsPerSecond: float64(good) / r.Seconds}
		if all := r.Requests + r.failed(); all > 0 {
			r.Goodput.Share = float64(good) / float64(all)
		}
	}
	r.FirstToken, r.PerToken, r.InterToken, r.Total = first.Latency(), per.Latency(), inter.Latency(), total.Latency()
	return r
}

// write prints the report as a table.
func (r *Report) write(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "%s\t%s, %s\n", r.URL, r.API, r.load())
	fmt.Fprintf(w, "requests\t%d in %.2f s\t%.1f /s\n", r.Requests, r.Seconds, r.RequestsPerSecond)
	fmt.Fprintf(w, "tokens\t%d\t%.1f /s\n", r.Tokens, r.TokensPerSecond)
	if g := r.Goodput; g != nil {
		fmt.Fprintf(w, "goodput\t%d with %s (%.1f %%)\t%.1f /s\n", g.Requests, g.SLO, 100*g.Share, g.RequestsPerSecond)
	}
	for _, kind := range slices.Sorted(maps.Keys(r.Errors)) {
		fmt.Fprintf(w, "failed\t%d\t%s\n", r.Errors[kind], withReason(kind, r.ErrorTexts[kind]))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(out)
	w = tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "ms\tmean\tp50\tp90\tp95\tp99\tmax\t")
	row := func(name string, l Latency) {
		if l.Count > 0 {
			fmt.Fprintf(w, "%s\t%.2f\t%.2f\t%.2f\t%.2f\t%.2f\t%.2f\t\n", name, l.Mean, l.P50, l.P90, l.P95, l.P99, l.Max)
		}
	}
	if r.Stream {
		row("first token (TTFT)", r.FirstToken)
		row("per token (TPOT)", r.PerToken)
		row("between tokens (ITL)", r.InterToken)
	}
	row("whole request (E2EL)", r.Total)
	return w.Flush()
}

// writeSweep prints a line for each number of clients.
func writeSweep(out io.Writer, all []*Report) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	goodput := ""
	if all[0].Goodput != nil {
		goodput = "good/s\t"
	}
	fmt.Fprintln(w, "clients\trequests/s\t"+goodput+"tokens/s\tTTFT p50\tTTFT p95\tTPOT p50\tITL p99\tE2EL p50\tE2EL p95\tfailed\t")
	for _, r := range all {
		if r.Goodput != nil {
			goodput = fmt.Sprintf("%.1f\t", r.Goodput.RequestsPerSecond)
		}
		fmt.Fprintf(w, "%d\t%.1f\t%s%.1f\t%.1f ms\t%.1f ms\t%.2f ms\t%.2f ms\t%.1f ms\t%.1f ms\t%d\t\n", r.Concurrency, r.RequestsPerSecond, goodput, r.TokensPerSecond,
			r.FirstToken.P50, r.FirstToken.P95, r.PerToken.P50, r.InterToken.P99, r.Total.P50, r.Total.P95, r.failed())
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, r := range all {
		for _, kind := range slices.Sorted(maps.Keys(r.Errors)) {
			fmt.Fprintf(out, "%d clients: failed %d: %s\n", r.Concurrency, r.Errors[kind], withReason(kind, r.ErrorTexts[kind]))
		}
	}
	return nil
}
