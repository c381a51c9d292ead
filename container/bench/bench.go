package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
)

// Options are the flags of `millrace bench`.
type Options struct {
	URL    string `name:"url" default:"http://127.0.0.1:8080" help:"Server to load."`
	API    string `name:"api" default:"tgi" enum:"tgi,chat,completions" placeholder:"tgi|chat|completions" help:"tgi: /generate_stream; chat: /v1/chat/completions; completions: /v1/completions."`
	Stream bool   `name:"stream" default:"true" negatable:"" help:"Ask for a stream of tokens; without it only whole requests are timed."`
	APIKey string `name:"api-key" env:"API_KEY" placeholder:"KEY" help:"Bearer token."`
	Model  string `name:"model" default:"tgi" help:"Model name for OpenAI's routes."`

	Requests    int           `name:"requests" short:"n" default:"200" help:"Requests to send, unless --duration is given."`
	Duration    time.Duration `name:"duration" placeholder:"30s" help:"Send for this long instead."`
	Clients     []int         `name:"concurrency" short:"c" default:"8" placeholder:"N,…" help:"Closed loop: clients that each wait for their answer. Several numbers, as 1,2,4,8, are measured one after the other."`
	Concurrency int           `kong:"-"` // the one of Clients that is measured
	Rate        float64       `name:"rate" placeholder:"N" help:"Open loop instead: requests started per second, at random times."`
	Warmup      int           `name:"warmup" default:"1" help:"Requests before the clock starts."`
	Timeout     time.Duration `name:"timeout" default:"10m" help:"Longest wait for one request."`

	Prompt       string  `name:"prompt" type:"existingfile" placeholder:"FILE" help:"File of prompts, one a line, sent in turn. Default: random words."`
	PromptWords  Lengths `name:"prompt-words" default:"64" placeholder:"64" help:"Words of a random prompt: 64; 16-512, each with the same chance; or 16-512~90, most of them near the median 90 and few far above, as in conversations."`
	MaxNewTokens Lengths `name:"max-new-tokens" default:"128" placeholder:"128" help:"Tokens to ask for: 128, 16-512 or 16-512~90."`
	Temperature  float64 `name:"temperature" default:"0" help:"0 is greedy."`
	Seed         uint64  `name:"seed" default:"1" help:"The same seed sends the same prompts and lengths."`
	IgnoreEOS    bool    `name:"ignore-eos" help:"Ask for all the tokens, past the model's end (Millrace, vLLM, llama.cpp)."`

	SLO    SLO    `name:"slo" placeholder:"ttft=500ms,itl=100ms" help:"Count the requests that meet it: ttft: time to the first token; itl: longest time between two tokens; tpot: mean time of a token after the first; e2el: whole request."`
	JSON   string `name:"json" type:"path" placeholder:"FILE" help:"Write the result here as well; - writes it to standard output instead of the table."`
	Report string `name:"report" type:"path" placeholder:"FILE.html" help:"Write a page with tables and plots here as well."`
}

func (o *Options) check() error {
	switch {
	case o.Concurrency < 1:
		return fmt.Errorf("--concurrency=%d: must be at least 1", o.Concurrency)
	case o.Rate < 0:
		return fmt.Errorf("--rate=%g: must be positive", o.Rate)
	case o.Duration < 0:
		return fmt.Errorf("--duration=%v: must be positive", o.Duration)
	case o.Duration == 0 && o.Requests < 1:
		return fmt.Errorf("--requests=%d: must be at least 1", o.Requests)
	case !o.Stream && o.SLO.needsStream():
		return fmt.Errorf("--slo=%v: without a stream only e2el is known", o.SLO)
	}
	return nil
}

// Run does what o says, shows progress on progress if that is a terminal, and
// writes a table to out, or JSON if asked: an object, or for several numbers of
// clients a list. It writes the page that o.Report names. When ctx ends the load stops and what there is counts.
func Run(ctx context.Context, o Options, out io.Writer, progress *os.File) error {
	clients := o.Clients
	if o.Rate > 0 || len(clients) == 0 {
		clients = []int{max(1, o.Concurrency)}
	}
	var all []*Report
	for _, n := range clients {
		if ctx.Err() != nil && len(all) > 0 {
			break
		}
		o.Concurrency = n
		add, clear := newBar(&o, progress)
		rep, err := Measure(ctx, o, add)
		clear()
		if err != nil {
			return err
		}
		all = append(all, rep)
	}
	table := func() error {
		if len(all) == 1 {
			return all[0].write(out)
		}
		return writeSweep(out, all)
	}
	if o.Report != "" {
		if err := writeHTML(o.Report, all, time.Now()); err != nil {
			return err
		}
	}
	if o.JSON == "" {
		return table()
	}
	var result any = all
	if len(all) == 1 {
		result = all[0]
	}
	data, err := json.MarshalIndent(result, "", "  ")
	if err != nil {
		return err
	}
	data = append(data, '\n')
	if o.JSON == "-" {
		_, err = out.Write(data)
		return err
	}
	if err := table(); err != nil {
		return err
	}
	return os.WriteFile(o.JSON, data, 0o644)
}

// Measure is Run without output; done, which may be nil, is called after each
// request.
func Measure(ctx context.Context, o Options, done func()) (*Report, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	load, err := newWorkload(&o)
	if err != nil {
		return nil, err
	}
	if done == nil {
		done = func() {}
	}
	h := &http.Client{Timeout: o.Timeout, Transport: &http.Transport{
		MaxIdleConnsPerHost: 4096, DisableCompression: true, ReadBufferSize: 32 << 10,
	}}
	defer h.CloseIdleConnections()

	warm := newClient(&o, h)
	for range o.Warmup {
		warm.do(ctx, load.next())
	}
	for kind := range warm.errors {
		return nil, fmt.Errorf("warm-up request to %s failed: %s", o.URL, withReason(kind, warm.reasons[kind]))
	}

	sending, cancel := context.WithCancel(ctx)
	if o.Duration > 0 {
		sending, cancel = context.WithTimeout(ctx, o.Duration)
	}
	defer cancel()
	r := &run{opts: &o, http: h, load: load, sending: sending, done: done}
	start := time.Now()
	if o.Rate > 0 {
		r.openLoop(ctx)
	} else {
		r.closedLoop(ctx)
	}
	return newReport(&o, r.clients, time.Since(start)), nil
}

// newBar returns a function that moves a progress bar and one that takes it off
// the screen; they do nothing if f is not a terminal.
func newBar(o *Options, f *os.File) (add, clear func()) {
	nothing := func() {}
	if f == nil {
		return nothing, nothing
	}
	if info, err := f.Stat(); err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return nothing, nothing
	}
	total := int64(o.Requests)
	if o.Duration > 0 {
		total = -1 // a spinner that counts
	}
	bar := progressbar.NewOptions64(total, progressbar.OptionSetWriter(f), progressbar.OptionSetDescription("requests"),
		progressbar.OptionShowCount(), progressbar.OptionClearOnFinish(), progressbar.OptionThrottle(100*time.Millisecond))
	// A bar that cannot be drawn does not make the run fail.
	return func() { _ = bar.Add(1) }, func() { _ = bar.Clear() }
}
