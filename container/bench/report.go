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
	Errors            map[string]int64 `json:"errors"` // by status or kind

	FirstToken Latency `json:"time_to_first_token"`
	InterToken Latency `json:"inter_token"` // between two tokens of a request
	Total      Latency `json:"total"`       // whole requests
}

func newReport(o *Options, clients []*client, elapsed time.Duration) *Report {
	r := &Report{
		URL: o.URL, API: o.API, Stream: o.Stream, Rate: o.Rate, MaxNewTokens: o.MaxNewTokens.String(), Seed: o.Seed,
		Seconds: elapsed.Seconds(), Errors: map[string]int64{}, PromptFile: o.Prompt,
	}
	if o.Rate == 0 {
		r.Concurrency = o.Concurrency
	}
	if o.Prompt == "" {
		r.PromptWords = o.PromptWords.String()
	}
	var first, inter, total Histogram
	for _, c := range clients {
		first.merge(&c.firstToken)
		inter.merge(&c.interToken)
		total.merge(&c.total)
		r.Requests += c.requests
		r.Tokens += c.tokens
		for kind, n := range c.errors {
			r.Errors[kind] += n
		}
	}
	r.RequestsPerSecond = float64(r.Requests) / r.Seconds
	r.TokensPerSecond = float64(r.Tokens) / r.Seconds
	r.FirstToken, r.InterToken, r.Total = first.Latency(), inter.Latency(), total.Latency()
	return r
}

// write prints the report as a table.
func (r *Report) write(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	load := fmt.Sprintf("%d clients", r.Concurrency)
	if r.Rate > 0 {
		load = fmt.Sprintf("%g requests/s arriving", r.Rate)
	}
	fmt.Fprintf(w, "%s\t%s, %s\n", r.URL, r.API, load)
	fmt.Fprintf(w, "requests\t%d in %.2f s\t%.1f /s\n", r.Requests, r.Seconds, r.RequestsPerSecond)
	fmt.Fprintf(w, "tokens\t%d\t%.1f /s\n", r.Tokens, r.TokensPerSecond)
	for _, kind := range slices.Sorted(maps.Keys(r.Errors)) {
		fmt.Fprintf(w, "failed\t%d\t%s\n", r.Errors[kind], kind)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(out)
	w = tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "ms\tmean\tp50\tp90\tp99\tmax\t")
	row := func(name string, l Latency) {
		if l.Count > 0 {
			fmt.Fprintf(w, "%s\t%.2f\t%.2f\t%.2f\t%.2f\t%.2f\t\n", name, l.Mean, l.P50, l.P90, l.P99, l.Max)
		}
	}
	if r.Stream {
		row("first token", r.FirstToken)
		row("between tokens", r.InterToken)
	}
	row("whole request", r.Total)
	return w.Flush()
}
