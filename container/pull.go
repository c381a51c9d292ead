package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"

	"github.com/millrace-ai/millrace/container/config"
	"github.com/millrace-ai/millrace/container/source"
)

// pull is the command that copies a model to a folder.
type pull struct {
	Source string `arg:"" help:"s3://BUCKET/PREFIX, or s3://BUCKET/KEY.tar.gz (also .tar, .tar.zst), which is unpacked."`
	Folder string `arg:"" help:"Where to put the files; made if need be. Interrupted, the same command goes on where it stopped."`
}

// Run copies until ctx ends.
func (p *pull) Run(ctx context.Context) error {
	if !source.IsS3(p.Source) {
		return usageError{fmt.Errorf("pull: %s: expected s3://BUCKET/PREFIX or s3://BUCKET/KEY.tar.gz", config.HideSecrets(p.Source))}
	}
	if err := source.Check(p.Source); err != nil {
		return usageError{fmt.Errorf("pull: %w", err)}
	}
	progress, finish := progressBar(os.Stderr)
	start, bytes := time.Now(), int64(0)
	err := source.Pull(ctx, p.Source, p.Folder, slog.New(slog.DiscardHandler), func(done, total int64) {
		bytes = total
		progress(done, total)
	})
	finish()
	if err != nil {
		return fmt.Errorf("pull: %w", err)
	}
	_, err = fmt.Fprintf(os.Stderr, "%s in %s, %.1f s\n", size(bytes), p.Folder, time.Since(start).Seconds())
	return err
}

// progressBar returns a function that moves a bar and one that ends it; they
// do nothing if f is no terminal.
func progressBar(f *os.File) (progress source.Progress, finish func()) {
	if info, err := f.Stat(); err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return func(int64, int64) {}, func() {}
	}
	var bar *progressbar.ProgressBar
	progress = func(done, total int64) {
		if bar == nil {
			bar = progressbar.NewOptions64(total, progressbar.OptionSetWriter(f), progressbar.OptionShowBytes(true),
				progressbar.OptionSetPredictTime(true), progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionClearOnFinish())
		}
		_ = bar.Set64(done) // a bar that cannot be drawn is no fault of the copy
	}
	return progress, func() {
		if bar != nil {
			_ = bar.Exit()
			fmt.Fprintln(f)
		}
	}
}
