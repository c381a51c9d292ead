package main

import (
	"context"
	"io"
	"math/rand/v2"
	"os/exec"
	"syscall"
	"time"

	"github.com/millrace-ai/millrace/dev/inprocess"
	"github.com/millrace-ai/millrace/engine"
	"github.com/millrace-ai/millrace/engine/plan"
	"github.com/millrace-ai/millrace/engine/sample"
	"github.com/millrace-ai/millrace/internal/child"
)

// server is our engine on a checkpoint.
type server struct {
	engine *inprocess.Engine
	random *rand.Rand
}

// pages that hold 32 streams, or a long prompt beside 8.
const pages = 4096

// start runs the engine on a model in a format.
func (m *model) start(format string) (*server, error) {
	o := inprocess.Options{Path: m.ours(format), Threads: m.settings.threads, Rows: 64, Slots: maxStreams + 1, Pages: pages}
	e, err := inprocess.Start(o)
	if err != nil {
		return nil, err
	}
	return &server{engine: e, random: rand.New(rand.NewPCG(1, 2))}, nil
}

// operations returns how many operations the matrix products of a token are, without
// the head.
func operations(p *plan.Plan) (n float64) {
	for _, op := range p.Ops {
		if op.Kind != plan.OpLinear {
			continue
		}
		shape := p.Tensors[op.Weight[0]].Shape
		n += 2 * float64(shape[0]) * float64(shape[1])
	}
	return n
}

// measureOurs runs the loads once, after a short one that warms up.
func (m *model) measureOurs(r *result, format string, main bool, round int) error {
	s, err := m.start(format)
	if err != nil {
		return err
	}
	defer func() { _ = s.engine.Stop() }() // the figures are what counts
	r.Kernels = s.engine.Caps.Detail
	add := func(test string, streams int, unit string, value float64) {
		r.add(measurement{Shape: m.name, Test: test, Streams: streams, Engine: millrace, Format: format, Unit: unit, Value: value})
	}
	add(testWeights, 1, megabytes, float64(s.engine.Info.WeightBytes)/1e6)
	if _, _, err = s.generate(1, shortPrompt, 4); err != nil {
		return err
	}
	if m.settings.wants(partPrefill) {
		d, _, err := s.generate(1, m.prompt(), 1)
		if err != nil {
			return err
		}
		r.Operations[m.name] = operations(s.engine.Plan)
		r.add(prefill(measurement{Shape: m.name, Engine: millrace, Format: format}, m.prompt(), float64(m.prompt())/d.Seconds()))
	}
	if m.settings.wants(partDecode) {
		for _, n := range m.streams() {
			_, d, err := s.generate(n, shortPrompt, newTokens+1)
			if err != nil {
				return err
			}
			add(testDecode, n, tokensPerSecond, float64(n*newTokens)/d.Seconds())
		}
	}
	if main && m.first && m.settings.wants(partBusy) {
		stop, err := busy()
		if err != nil {
			return err
		}
		_, d, err := s.generate(busyStreams, shortPrompt, newTokens+1)
		stop()
		if err != nil {
			return err
		}
		add(testBusy, busyStreams, tokensPerSecond, float64(busyStreams*newTokens)/d.Seconds())
	}
	if main && m.first && round == 0 && m.settings.wants(partLong) {
		long, decode, err := s.generate(1, longPrompt, longTokens+1)
		if err != nil {
			return err
		}
		r.add(prefill(measurement{Shape: m.name, Engine: millrace, Format: format}, longPrompt, longPrompt/long.Seconds()))
		add(testDecodeLong, 1, tokensPerSecond, longTokens/decode.Seconds())
	}
	if main && m.first && round == 0 && m.settings.wants(partPace) && r.Pace == nil {
		r.Pace, err = s.pace()
	}
	return err
}

// busy starts a process that takes all of a core that it can get, until stop.
func busy() (stop func(), err error) {
	p, err := child.Start(exec.Command("sh", "-c", "while :; do :; done"), nil)
	if err != nil {
		return nil, err
	}
	return func() { p.Signal(syscall.SIGKILL); <-p.Exited() }, nil
}

// generate runs n sequences at once and returns the time until all had their
// first token, and from then until all had their last.
func (s *server) generate(n, prompt, tokens int) (first, rest time.Duration, err error) {
	ctx := context.Background()
	begin := time.Now()
	var open []*engine.Stream
	for range n {
		ids := make([]int32, prompt)
		for i := range ids {
			ids[i] = s.random.Int32N(int32(s.engine.Plan.Vocab))
		}
		st, err := s.engine.Submit(ctx, &engine.Request{Tokens: ids, MaxNewTokens: tokens, Params: sample.Greedy(), IgnoreEOS: true})
		if err != nil {
			return 0, 0, err
		}
		defer st.Close()
		open = append(open, st)
	}
	for _, st := range open {
		if _, err := st.Next(ctx); err != nil {
			return 0, 0, err
		}
	}
	started := time.Now()
	for _, st := range open {
		for err == nil {
			_, err = st.Next(ctx)
		}
		if err != io.EOF {
			return 0, 0, err
		}
		err = nil
	}
	return started.Sub(begin), time.Since(started), nil
}
