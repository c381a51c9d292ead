package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/millrace-ai/millrace/sagemaker/deploy"
)

// sageMakerInvoke is the command that calls an endpoint.
type sageMakerInvoke struct {
	Name   string `arg:"" help:"The endpoint's name."`
	Prompt string `arg:"" optional:"" default:"-" help:"The prompt; @FILE reads it from a file, - from standard input."`

	Stream       *bool  `negatable:"" help:"Print the text as it comes (the default on a terminal)."`
	Chat         bool   `help:"Send the prompt as a user's message."`
	Parameters   string `placeholder:"JSON" help:"Of the generation: {\"max_new_tokens\": 200}; with --chat {\"max_tokens\": 200}."`
	Raw          bool   `help:"Send the prompt as the whole body, and print the answer byte by byte."`
	Session      string `placeholder:"ID|new" help:"Stay with one instance: a session's id, or new to open one."`
	CloseSession bool   `help:"Close the session; nothing is generated."`
	Async        bool   `help:"Call an asynchronous endpoint: print where the answer will be."`
	Verbose      bool   `short:"v" help:"Say afterwards how many tokens it took."`

	awsAccount
}

// Run calls the endpoint and prints the text.
func (i *sageMakerInvoke) Run(ctx context.Context) error {
	call, err := i.call()
	if err != nil {
		return usageError{fmt.Errorf("invoke: %w", err)}
	}
	c, err := i.dial(ctx, false)
	if err != nil {
		return err
	}
	if i.CloseSession {
		return c.CloseSession(ctx, i.Name, i.Session)
	}
	call.Input, err = interruptible(ctx, func() (string, error) { return prompt(i.Prompt) })
	if err != nil {
		return usageError{fmt.Errorf("invoke: %w", err)}
	}
	if i.Session == "new" {
		if call.Session, err = c.OpenSession(ctx, i.Name); err != nil {
			return err
		}
		fmt.Fprintln(os.Stderr, "session", call.Session)
	}
	if i.Async {
		output, failure, err := c.InvokeAsync(ctx, call)
		if err != nil {
			return err
		}
		fmt.Println(output)
		if failure != "" {
			fmt.Fprintln(os.Stderr, "an error would be in", failure)
		}
		return nil
	}
	result, err := c.Invoke(ctx, call, os.Stdout)
	if err != nil || !i.Verbose {
		return err
	}
	for _, line := range []string{result.Usage, result.FinishReason, result.Attributes} {
		if line != "" {
			fmt.Fprintln(os.Stderr, "#", line)
		}
	}
	return nil
}

// call is what the flags describe, still without the prompt.
func (i *sageMakerInvoke) call() (*deploy.Call, error) {
	call := &deploy.Call{Endpoint: i.Name, Raw: i.Raw, Chat: i.Chat, Session: i.Session, Details: i.Verbose, Stream: isTerminal(os.Stdout)}
	if i.Stream != nil {
		call.Stream = *i.Stream
	}
	if i.Async {
		call.Stream = false
	}
	switch {
	case i.Raw && (i.Chat || i.Parameters != ""):
		return nil, errors.New("--raw sends the body as it is; leave --chat and --parameters out")
	case i.Async && (i.Session != "" || i.Stream != nil && *i.Stream):
		return nil, errors.New("--async has neither --session nor --stream")
	case i.CloseSession && (i.Session == "" || i.Session == "new"):
		return nil, errors.New("--close-session needs --session ID")
	case i.Parameters == "":
		return call, deploy.CheckName(i.Name)
	}
	if err := json.Unmarshal([]byte(i.Parameters), &call.Parameters); err != nil {
		return nil, fmt.Errorf("--parameters %s: expected a JSON object such as {\"max_new_tokens\": 200}: %w", i.Parameters, err)
	}
	return call, deploy.CheckName(i.Name)
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
