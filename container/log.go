package main

import (
	"log/slog"
	"os"

	"github.com/millrace-ai/millrace/container/config"
)

// newLogger logs to standard error: text for people, or one JSON object a
// line.
func newLogger(cfg *config.Serve) *slog.Logger {
	level, _ := cfg.Level() // config has checked it
	opts := &slog.HandlerOptions{Level: level}
	if cfg.JSONOutput {
		return slog.New(slog.NewJSONHandler(os.Stderr, opts))
	}
	return slog.New(slog.NewTextHandler(os.Stderr, opts))
}

// logSettings logs the configuration, secrets hidden.
func logSettings(log *slog.Logger, settings []config.Setting) {
	attrs := make([]any, 0, len(settings))
	for _, s := range settings {
		attrs = append(attrs, slog.String(s.Flag, s.Value))
	}
	log.Info("configuration", attrs...)
}
