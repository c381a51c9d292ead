package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"time"

	"github.com/millrace-ai/millrace/dev/inprocess"
	"github.com/millrace-ai/millrace/engine"
	"github.com/millrace-ai/millrace/engine/plan"
	"github.com/millrace-ai/millrace/engine/sample"
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
	o := inprocess.Options{Path: filepath.Join(m.dir, "hf"), Threads: m.settings.threads, Rows: 64, Slots: 33, Pages: pages}
	if isGGUF(format) {
		var err error
		if o.Path, err = m.quantized(format); err != nil {
			return nil, err
		}
	} else {
		var ok bool
		if o.Quantize, ok = quantized[format]; !ok {
			return nil, fmt.Errorf("%q: expected bf16, int8, int4 or a type of GGUF", format)
		}
	}
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

// quantized are our formats of a checkpoint in bf16.
var quantized = map[string]plan.Quantize{"bf16": plan.QuantizeNone, "int8": plan.QuantizeInt8, "int4": plan.QuantizeInt4}

// isGGUF reports whether a format of ours is a type of GGUF.
func isGGUF(format string) bool { return format == strings.ToUpper(format) }

// measureOurs runs the loads once, after a short one that warms up.
func (m *model) measureOurs(r *result, format string, first bool) error {
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
		for _, n := range m.settings.streams {
			_, d, err := s.generate(n, shortPrompt, newTokens+1)
			if err != nil {
				return err
			}
			add(testDecode, n, tokensPerSecond, float64(n*newTokens)/d.Seconds())
		}
	}
	if m.settings.wants(partLong) && m.long(format) {
		long, decode, err := s.generate(1, longPrompt, longTokens+1)
		if err != nil {
			return err
		}
		r.add(prefill(measurement{Shape: m.name, Engine: millrace, Format: format}, longPrompt, longPrompt/long.Seconds()))
		add(testDecodeLong, 1, tokensPerSecond, longTokens/decode.Seconds())
	}
	if m.settings.wants(partPace) && first && format == m.settings.pairs[0].ours {
		r.Pace, err = s.pace()
	}
	return err
}

// long reports whether a format is measured at long contexts: the slow ones would
// take minutes.
func (m *model) long(format string) bool {
	return m.name == m.settings.shapes[0] && format != "bf16" && format != "BF16"
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
