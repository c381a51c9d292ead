package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/millrace-ai/millrace/sagemaker/deploy"
)

// sageMakerInvoke is the command that calls an endpoint.
type sageMakerInvoke struct {
	Name string `arg:"" help:"The endpoint's name."`
	callFlags
	Session      string `placeholder:"ID|new" help:"Stay with one instance: a session's id, or new to open one."`
	CloseSession bool   `help:"Close the session; nothing is generated."`
	Async        bool   `help:"Call an asynchronous endpoint: print where the answer will be."`

	awsAccount
}

// Run calls the endpoint and prints the text.
func (i *sageMakerInvoke) Run(ctx context.Context) error {
	in, err := i.call()
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
	if err = i.read(ctx, &in.Call); err != nil {
		return err
	}
	if i.Session == "new" {
		if in.Session, err = c.OpenSession(ctx, i.Name); err != nil {
			return err
		}
		fmt.Fprintln(os.Stderr, "session", in.Session)
	}
	if i.Async {
		output, failure, err := c.InvokeAsync(ctx, in)
		if err != nil {
			return err
		}
		fmt.Println(output)
		if failure != "" {
			fmt.Fprintln(os.Stderr, "an error would be in", failure)
		}
		return nil
	}
	result, err := c.Invoke(ctx, in, os.Stdout)
	if err == nil {
		i.report(result)
	}
	return err
}

// call is what the flags describe, still without the prompt.
func (i *sageMakerInvoke) call() (*deploy.Call, error) {
	switch {
	case i.Async && (i.Session != "" || i.Stream != nil && *i.Stream):
		return nil, errors.New("--async has neither --session nor --stream")
	case i.CloseSession && (i.Session == "" || i.Session == "new"):
		return nil, errors.New("--close-session needs --session ID")
	}
	described, err := i.describe()
	if err != nil {
		return nil, err
	}
	if i.Async {
		described.Stream = false
	}
	return &deploy.Call{Call: described, Endpoint: i.Name, Session: i.Session}, deploy.CheckName(i.Name)
}
