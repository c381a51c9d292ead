package engine

import (
	"context"
	"io"
	"testing"
	"time"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/page"
	"github.com/millrace-ai/millrace/engine/sample"
	"github.com/millrace-ai/millrace/engine/sim"
)

// TestRun sends requests through a running engine from the outside.
func TestRun(t *testing.T) {
	limits := device.Limits{MaxTokens: 64, MaxRows: 64, MaxSlots: 8, MaxPagesPerSlot: 16}
	model := sim.Model{Vocab: 1000, EOS: 2, EOSRate: 0.02}
	b := sim.New(limits, sim.Config{Model: model})
	e, err := New(Config{Backend: b, Device: limits, Pages: 40, Vocab: 1000, EOS: []int32{2}, Root: page.Root()})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() { done <- e.Run(context.Background()) }()
	for i := range 20 {
		prompt := make([]int32, 1+i*7)
		for j := range prompt {
			prompt[j] = int32(j * 31 % 1000)
		}
		p := sample.Greedy()
		s, err := e.Submit(context.Background(), &Request{Tokens: prompt, MaxNewTokens: 50, Params: p, TopN: i % 3})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		var got []Token
		for {
			toks, err := s.Next(context.Background())
			got = append(got, toks...)
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		want := model.Continue(prompt, p, i%3, 50, true)
		if len(got) != len(want) {
			t.Fatalf("request %d: %d tokens, want %d", i, len(got), len(want))
		}
		for k := range want {
			if got[k].ID != want[k].Token {
				t.Fatalf("request %d token %d: %d want %d", i, k, got[k].ID, want[k].Token)
			}
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := e.Drain(ctx); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", e.Stats())
}
