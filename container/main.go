// Command millrace serves text generation over TGI's API.
//
//	millrace [serve] [flags]      serve a model
//	millrace pull SOURCE FOLDER   copy a model from S3 to a folder
//	millrace sagemaker COMMAND    deploy, invoke, status, delete, local
//	millrace lambda [local]       serve as a Lambda function, or try one here
//	millrace bench [flags]        load a server and measure it
//	millrace env [flags]          print the configuration that serve would use
//	millrace version
//
// This package wires the rooms together and then waits: main.go reads the
// command line, serve.go is the life of the server, model.go finds the model
// and fits it into memory. It holds no logic of serving itself.
//
// Exit status: 0 after an orderly end, 1 if something failed while running, 2
// if the command line, the configuration or the model is wrong, which one line
// on standard error then names. A panic, and what Go's runtime calls fatal, end
// it with 2 and Go's report.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"

	"github.com/alecthomas/kong"

	"github.com/millrace-ai/millrace/container/bench"
	"github.com/millrace-ai/millrace/container/config"
)

// cli is the command line. Without a command it is serve: SageMaker runs the
// image with the word, people without.
type cli struct {
	Serve     config.Serve  `cmd:"" default:"withargs" help:"Serve a model (the default command)."`
	Pull      pull          `cmd:"" help:"Copy a model from S3 to a folder."`
	SageMaker sageMaker     `cmd:"" name:"sagemaker" help:"Deploy to SageMaker, call an endpoint, or try one on this machine."`
	Lambda    lambdaCommand `cmd:"" help:"Serve as a Lambda function, or try one on this machine."`
	Bench     bench.Options `cmd:"" help:"Load a server that speaks TGI's or OpenAI's API, and measure it."`
	Env       config.Serve  `cmd:"" help:"Print the configuration that serve would use, and where each value comes from."`
	Version   struct{}      `cmd:"" help:"Print the version."`
}

// absent are commands that belong to the product and not to this build.
var absent = []string{"quantize"}

// usageError is a fault of whoever started the process: exit status 2.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

func main() {
	err := run(os.Args[1:], os.Environ())
	if err == nil {
		exit(0)
	}
	say(fmt.Sprintf("millrace: %v\n", err))
	tellLambda(err)
	var usage usageError
	if errors.As(err, &usage) {
		exit(2)
	}
	exit(1)
}

func run(args, environ []string) error {
	if len(args) > 0 && slices.Contains(absent, args[0]) {
		return usageError{fmt.Errorf("%s is not available in this build", args[0])}
	}
	var c cli
	loader := config.NewLoader(environ, modelFolders)
	parser, err := kong.New(&c,
		kong.Name("millrace"),
		kong.Description("Serves text generation over TGI's API."),
		kong.Resolvers(loader),
		kong.ValueFormatter(config.Help),
		kong.ExplicitGroups([]kong.Group{{Key: "compat", Title: "Flags of TGI's launcher without effect in this build:"}}),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, FlagsLast: true}),
	)
	if err != nil {
		return err
	}
	ctx, err := parser.Parse(args)
	if err != nil {
		var e *config.Error
		if errors.As(err, &e) {
			err = e // without kong's prefix: it names its source itself
		}
		return usageError{err}
	}

	interrupted, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	switch ctx.Command() {
	case "version":
		fmt.Println(strings.TrimSpace("millrace " + version + " " + revision()))
		return nil
	case "bench":
		_, err := bench.Run(interrupted, c.Bench, os.Stdout, os.Stderr)
		return err
	case "pull <source> <folder>":
		return c.Pull.run(interrupted, os.Stderr)
	case "env":
		settings, notes, err := loader.Finish(ctx, &c.Env)
		if err != nil {
			return usageError{err}
		}
		return printSettings(settings, notes)
	case "serve":
		stop() // serve has its own way to end
		reportFaults()
		settings, notes, err := loader.Finish(ctx, &c.Serve)
		if err != nil {
			return usageError{err}
		}
		if os.Getenv(runtimeAPI) != "" {
			return serveLambda(&c.Serve, settings, notes)
		}
		return serve(&c.Serve, settings, notes)
	case "lambda run":
		stop()
		reportFaults()
		settings, notes, err := loader.Finish(ctx, &c.Lambda.Run)
		if err != nil {
			return usageError{err}
		}
		return serveLambda(&c.Lambda.Run, settings, notes)
	}
	// The other commands have a method Run(context.Context) error.
	ctx.BindTo(interrupted, (*context.Context)(nil))
	return ctx.Run()
}

// printSettings writes the configuration as a table, then what was set
// without effect.
func printSettings(settings []config.Setting, notes []string) error {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	for _, s := range settings {
		fmt.Fprintf(w, "%s\t%s\t%s\n", s.Flag, s.Value, s.From)
	}
	for _, n := range notes {
		fmt.Fprintln(w, "#", n)
	}
	return w.Flush()
}
