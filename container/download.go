package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/millrace-ai/millrace/container/source"
)

// progressEvery is how often a log that no terminal shows tells how far a
// download is.
const progressEvery = 10 * time.Second

// download returns the folder of a model of the Hugging Face hub, after it has
// brought what is missing of it to this machine.
func (s *server) download(ctx context.Context) (dir string, err error) {
	hub, err := source.NewHub(os.Getenv, s.cfg.HuggingfaceHubCache, s.log)
	if err != nil {
		return "", err
	}
	m, err := hub.ParseHub(s.place)
	if err != nil {
		return "", err
	}
	terminal := isTerminal(os.Stderr) && !s.cfg.JSONOutput
	bar, finish := func(int64, int64) {}, func() {}
	if terminal {
		bar, finish = progressBar(os.Stderr)
	}
	start, told := time.Now(), time.Now()
	var bytes int64 // to download
	hub.Progress = func(done, total int64) {
		if bytes == 0 {
			if bytes = total - done; bytes == 0 {
				return
			}
			s.log.Info("downloading the model", "model", m.String(), "from", hub.Endpoint, "size", size(bytes))
		}
		percent := 100 * done / max(1, total)
		s.api.SetPending(fmt.Sprintf("downloading %s, %d %% of %s", m.Repo, percent, size(total)))
		bar(done, total)
		if !terminal && time.Since(told) >= progressEvery {
			told = time.Now()
			s.log.Info("downloading the model", "model", m.String(), "percent", percent)
		}
	}
	dir, err = hub.Snapshot(ctx, m)
	finish()
	if err == nil && bytes > 0 {
		seconds := time.Since(start).Seconds()
		s.log.Info("the model is downloaded", "model", m.String(), "folder", dir, "bytes", bytes, "seconds", seconds, "mb_per_second", int(float64(bytes)/1e6/max(seconds, 1e-3)))
	}
	return dir, err
}
