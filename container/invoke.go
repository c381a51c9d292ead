package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/millrace-ai/millrace/internal/call"
)

// callFlags are the flags of a call of a deployed server, whatever it is
// deployed to.
type callFlags struct {
	Prompt string `arg:"" optional:"" default:"-" help:"The prompt; @FILE reads it from a file, - from standard input."`

	Stream     *bool  `negatable:"" help:"Print the text as it comes (the default on a terminal)."`
	Chat       bool   `help:"Send the prompt as a user's message."`
	Parameters string `placeholder:"JSON" help:"Of the generation: {\"max_new_tokens\": 200}; with --chat {\"max_tokens\": 200}."`
	Raw        bool   `help:"Send the prompt as the whole body, and print the answer byte by byte."`
	Verbose    bool   `short:"v" help:"Say afterwards how many tokens it took."`
}

// describe is the call that the flags describe, still without the prompt.
func (f *callFlags) describe() (call.Call, error) {
	c := call.Call{Raw: f.Raw, Chat: f.Chat, Details: f.Verbose, Stream: isTerminal(os.Stdout)}
	if f.Stream != nil {
		c.Stream = *f.Stream
	}
	if f.Raw && (f.Chat || f.Parameters != "") {
		return c, errors.New("--raw sends the body as it is; leave --chat and --parameters out")
	}
	if f.Parameters == "" {
		return c, nil
	}
	if err := json.Unmarshal([]byte(f.Parameters), &c.Parameters); err != nil {
		return c, fmt.Errorf("--parameters %s: expected a JSON object such as {\"max_new_tokens\": 200}: %w", f.Parameters, err)
	}
	return c, nil
}

// read reads the prompt into the call.
func (f *callFlags) read(ctx context.Context, c *call.Call) (err error) {
	c.Input, err = interruptible(ctx, func() (string, error) { return prompt(f.Prompt) })
	if err != nil {
		return usageError{fmt.Errorf("invoke: %w", err)}
	}
	return nil
}

// report says with --verbose what there is besides the text.
func (f *callFlags) report(r *call.Result) {
	if !f.Verbose {
		return
	}
	for _, line := range []string{r.Usage, r.FinishReason, r.Attributes} {
		if line != "" {
			fmt.Fprintln(os.Stderr, "#", line)
		}
	}
}

// prompt is the text that the argument names.
func prompt(argument string) (string, error) {
	read, name := io.Reader(os.Stdin), "standard input"
	if path, ok := strings.CutPrefix(argument, "@"); ok {
		f, err := os.Open(path)
		if err != nil {
			return "", err
		}
		defer f.Close()
		read, name = f, path
	} else if argument != "-" {
		return argument, nil
	} else if isTerminal(os.Stdin) {
		fmt.Fprintln(os.Stderr, "the prompt, then Ctrl-D:")
	}
	text, err := io.ReadAll(read)
	switch {
	case err != nil:
		return "", fmt.Errorf("%s: %w", name, err)
	case len(text) == 0:
		return "", fmt.Errorf("%s is empty", name)
	}
	return strings.TrimSuffix(string(text), "\n"), nil
}
