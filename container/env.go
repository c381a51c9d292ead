package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"

	"github.com/alecthomas/kong"

	"github.com/millrace-ai/millrace/container/config"
)

// envCommand is the command that shows the configuration.
type envCommand struct {
	JSON    bool `name:"json" help:"Print JSON: a list of objects with flag, value and from."`
	Changed bool `name:"changed" help:"Print only what differs from the defaults."`

	config.Serve
}

// Run prints the configuration. What is left to the model and the memory is
// shown as it would be now, if the model is on this machine.
func (e *envCommand) Run(interrupted context.Context, ctx *kong.Context, loader *config.Loader) error {
	settings, notes, err := loader.Finish(ctx, &e.Serve)
	if err != nil {
		return usageError{err}
	}
	if auto, err := settleAuto(interrupted, &e.Serve); err != nil {
		notes = append(notes, fmt.Sprintf("auto values are not known: %v", err))
	} else {
		for i, s := range settings {
			if value, ok := auto[s.Flag]; ok && s.From == "default" {
				settings[i].Value = value
			}
		}
	}
	if e.Changed {
		changed := settings[:0]
		for _, s := range settings {
			if s.From != "default" {
				changed = append(changed, s)
			}
		}
		settings = changed
	}
	if e.JSON {
		return printJSON(settings)
	}
	return printSettings(ctx.Stdout, settings, notes)
}

// settleAuto returns what the server would put for flags that the model and the
// memory settle. A model that is elsewhere is not asked for: then those flags
// are missing.
func settleAuto(ctx context.Context, cfg *config.Serve) (map[string]string, error) {
	auto := map[string]string{"max-batch-size": strconv.Itoa(slotsOf(cfg))}
	place, err := locateModel(cfg.ModelID)
	if err != nil || arrivesSlowly(place) {
		return auto, err
	}
	d, err := describeModel(ctx, place, cfg)
	if err != nil {
		return nil, err
	}
	if cfg.ServedModelName == "" {
		auto["served-model-name"] = d.Name
	}
	auto["max-batch-prefill-tokens"] = strconv.Itoa(d.sizing.device.MaxTokens)
	auto["threads"] = strconv.Itoa(d.Threads)
	if d.Fits {
		auto["max-total-tokens"] = strconv.Itoa(d.MaxTotalTokens)
		auto["max-input-tokens"] = strconv.Itoa(d.MaxInputTokens)
		auto["max-batch-total-tokens"] = strconv.Itoa(d.CacheTokens)
	}
	return auto, nil
}

// printSettings writes the configuration as a table, long values last in line,
// then what was set without effect.
func printSettings(out io.Writer, settings []config.Setting, notes []string) error {
	const wide = 40 // a longer value does not push the column to the right
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, s := range settings {
		if len(s.Value) > wide {
			fmt.Fprintf(w, "%s\t%s  %s\n", s.Flag, s.Value, s.From)
		} else {
			fmt.Fprintf(w, "%s\t%s\t%s\n", s.Flag, s.Value, s.From)
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, n := range notes {
		fmt.Fprintln(out, "#", n)
	}
	return nil
}
