package main

import (
	"context"
	"os"

	"github.com/millrace-ai/millrace/container/bench"
)

// benchCommand is the command that measures a server.
type benchCommand struct{ bench.Options }

// Run measures until done or until ctx ends.
func (b *benchCommand) Run(ctx context.Context) error {
	return bench.Run(ctx, b.Options, os.Stdout, os.Stderr)
}
