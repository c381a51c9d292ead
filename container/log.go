package main

import (
	"log/slog"
	"os"

	"github.com/millrace-ai/millrace/container/config"
)

// newLogger logs to standard error: text for people, or one JSON object a
// line, whose time, level and message are called as in TGI's.
func newLogger(cfg *config.Serve) *slog.Logger {
	level, _ := cfg.Level() // config has checked it
	opts := &slog.HandlerOptions{Level: level}
	if cfg.JSONOutput {
		opts.ReplaceAttr = nameAsTGI
		return slog.New(slog.NewJSONHandler(os.Stderr, opts))
	}
	return slog.New(slog.NewTextHandler(os.Stderr, opts))
}

func nameAsTGI(groups []string, a slog.Attr) slog.Attr {
	if len(groups) > 0 {
		return a
	}
	switch a.Key {
	case slog.TimeKey:
		a.Key = "timestamp"
	case slog.MessageKey:
		a.Key = "message"
	}
	return a
}

// logSettings logs the configuration, secrets hidden.
func logSettings(log *slog.Logger, settings []config.Setting) {
	attrs := make([]any, 0, len(settings))
	for _, s := range settings {
		attrs = append(attrs, slog.String(s.Flag, s.Value))
	}
	log.Info("configuration", attrs...)
}
