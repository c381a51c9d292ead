package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/klauspost/cpuid/v2"

	"github.com/millrace-ai/millrace/engine"
	"github.com/millrace-ai/millrace/engine/sample"
)

// warm computes a few tokens, so that a snapshot has read all weights and made
// all that the first request would have to.
func (s *server) warm(ctx context.Context, l *loadedModel) error {
	const prompt = 64 // more than a step of one token, which other code computes
	e := l.replicas[0].engine
	tokens := make([]int32, min(prompt, e.Limits().MaxInput, e.Limits().MaxTotal-2))
	stream, err := e.Submit(ctx, &engine.Request{ID: "warm", Tokens: tokens, MaxNewTokens: 2, IgnoreEOS: true, Params: sample.Greedy()})
	if err != nil {
		return fmt.Errorf("computing before the snapshot: %w", err)
	}
	defer stream.Close()
	for err == nil {
		_, err = stream.Next(ctx)
	}
	if !errors.Is(err, io.EOF) {
		return fmt.Errorf("computing before the snapshot: %w", err)
	}
	if _, err = l.tokenizer.Encode("Hello", true); err == nil && !s.cfg.DisableGrammarSupport {
		_, err = l.compiler.get()
	}
	s.phases.mark("warm")
	return err
}

// beforeSnapshot leaves nothing to do that each copy of the process would do again.
func (s *server) beforeSnapshot() {
	s.log.Info("ready for a snapshot", s.phases.list()...)
	s.tracing.flush()
	stderr.flush(lastLines)
}

// afterRestore begins the life of a copy of a snapshot. Ids, seeds, credentials
// and connections need no care: the kernel, which Lambda seeds again, is asked for
// each random number, and the others are made when they are needed.
func (s *server) afterRestore() error {
	s.phases.restart()
	return s.sameInstructions()
}

// needed are the instructions that the kernels, or libraries, may have been chosen by.
var needed = []cpuid.FeatureID{
	cpuid.AVX2, cpuid.BMI2, cpuid.F16C, cpuid.FMA3, cpuid.AVXVNNI, cpuid.AVX512F, cpuid.AVX512BW, cpuid.AVX512DQ, cpuid.AVX512VL, cpuid.AVX512VNNI,
	cpuid.AMXTILE, cpuid.AMXINT8,
	cpuid.ASIMDDP, cpuid.SVE,
}

// sameInstructions refuses a machine that lacks instructions of the one where the
// snapshot was taken: the process would end in the middle of an answer.
func (s *server) sameInstructions() error {
	before := slices.DeleteFunc(slices.Clone(needed), func(id cpuid.FeatureID) bool { return !cpuid.CPU.Has(id) })
	cpuid.Detect()
	var missing []string
	for _, id := range before {
		if !cpuid.CPU.Has(id) {
			missing = append(missing, id.String())
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("the snapshot was taken on a machine with %s, which this one lacks: publish a new version", strings.Join(missing, ", "))
	}
	return nil
}
