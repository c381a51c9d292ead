package engine_test

import (
	"context"
	"fmt"
	"io"

	"github.com/millrace-ai/millrace/engine"
	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/sample"
	"github.com/millrace-ai/millrace/engine/sim"
)

// An engine is made of a backend that has its model. Run is its loop; requests
// come from any goroutine. Here the backend is the simulated one, which needs no
// weights.
func Example() {
	limits := device.Limits{MaxTokens: 32, MaxRows: 32, MaxSlots: 4, MaxPagesPerSlot: 8}
	model := sim.Model{Vocab: 100, EOS: 0}
	e, err := engine.New(engine.Config{
		Backend: sim.New(limits, sim.Config{Model: model}),
		Device:  limits,
		Plan:    model.Plan(),
		Pages:   16, // for 256 tokens in all
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- e.Run(ctx) }()

	stream, err := e.Submit(ctx, &engine.Request{Tokens: []int32{1, 2, 3}, MaxNewTokens: 5, Params: sample.Greedy(), IgnoreEOS: true})
	if err != nil {
		fmt.Println(err)
		return
	}
	n := 0
	for {
		tokens, err := stream.Next(ctx) // all that are there, at least one
		if err == io.EOF {
			break
		}
		if err != nil {
			fmt.Println(err)
			return
		}
		n += len(tokens)
	}
	fmt.Println(n, "tokens")

	if err := e.Drain(ctx); err != nil { // lets what runs finish, then Run returns
		fmt.Println(err)
	}
	<-ended
	// Output: 5 tokens
}
