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

// pull is the command that downloads a model.
type pull struct {
	Source string `arg:"" help:"ORG/NAME[:TYPE][@REVISION] of the Hugging Face hub (also hf:ORG/NAME; TYPE chooses a GGUF file), s3://BUCKET/PREFIX, s3://BUCKET/KEY.gguf, or s3://BUCKET/KEY.tar.gz (also .tar, .tar.zst), which is unpacked."`
	Folder string `arg:"" optional:"" help:"Where to put the files; created if it does not exist. Without it, a model of the hub goes into the cache that it shares with Hugging Face's tools. After an interruption, the same command continues where it stopped."`
}

// Run downloads until ctx ends.
func (p *pull) Run(ctx context.Context) error {
	hub := source.IsHub(p.Source)
	switch {
	case !hub && !source.IsS3(p.Source):
		return usageError{fmt.Errorf("pull: %s: expected ORG/NAME of the Hugging Face hub, s3://BUCKET/PREFIX or s3://BUCKET/KEY.tar.gz", config.HideSecrets(p.Source))}
	case !hub && p.Folder == "":
		return usageError{fmt.Errorf("pull: %s: give the folder to copy it to", config.HideSecrets(p.Source))}
	}
	if err := source.Check(p.Source); err != nil {
		return usageError{fmt.Errorf("pull: %w", err)}
	}
	bar, finish := progressBar(os.Stderr)
	start, bytes := time.Now(), int64(0)
	progress := func(done, total int64) {
		bytes = total
		bar(done, total)
	}
	folder, err := p.Folder, error(nil)
	if folder == "" {
		folder, err = pullToCache(ctx, p.Source, progress)
	} else {
		err = source.Pull(ctx, p.Source, folder, slog.New(slog.DiscardHandler), progress)
	}
	finish()
	if err != nil {
		return fmt.Errorf("pull: %w", err)
	}
	if p.Folder == "" {
		fmt.Println(folder) // for scripts
	}
	if bytes == 0 {
		_, err = fmt.Fprintln(os.Stderr, "already in the cache")
		return err
	}
	_, err = fmt.Fprintf(os.Stderr, "%s in %s, %.1f s\n", size(bytes), folder, time.Since(start).Seconds())
	return err
}

// pullToCache brings a model of the hub into the cache and returns its folder.
func pullToCache(ctx context.Context, name string, progress source.Progress) (string, error) {
	hub, err := source.NewHub(os.Getenv, "", newLogger(&config.Serve{LogLevel: "info"}))
	if err != nil {
		return "", err
	}
	m, err := hub.ParseHub(name)
	if err != nil {
		return "", err
	}
	hub.Progress = progress
	return hub.Snapshot(ctx, m)
}

// progressBar returns a function that moves a bar and one that ends it; they
// do nothing if f is not a terminal.
func progressBar(f *os.File) (progress source.Progress, finish func()) {
	if !isTerminal(f) {
		return func(int64, int64) {}, func() {}
	}
	var bar *progressbar.ProgressBar
	progress = func(done, total int64) {
		if bar == nil {
			bar = progressbar.NewOptions64(total, progressbar.OptionSetWriter(f), progressbar.OptionShowBytes(true),
				progressbar.OptionSetPredictTime(true), progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionClearOnFinish())
		}
		_ = bar.Set64(done) // a bar that cannot be drawn must not fail the download
	}
	return progress, func() {
		if bar != nil {
			_ = bar.Clear()
		}
	}
}
