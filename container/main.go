// Command millrace serves text generation over TGI's and OpenAI's APIs.
//
//	millrace [serve] [MODEL] [flags]  serve a model
//	millrace chat [MODEL|URL]         chat in the terminal
//	millrace pull SOURCE [FOLDER]     download a model
//	millrace inspect [MODEL]          describe a model, and whether it fits into memory
//	millrace prefix MODEL PROMPT FILE compute the beginning of prompts ahead
//	millrace sagemaker COMMAND        deploy, invoke, status, delete, local
//	millrace lambda [run|local]       serve as a Lambda function, or try one here
//	millrace bench [flags]            measure a server under load
//	millrace env [flags]              print the configuration that serve would use
//	millrace version, help, completion, man
//
// Each command has a file of its name. serve.go is the life of the server,
// model.go finds and opens the model, limits.go and memory.go fit it into
// memory, port.go and lambda.go are where requests come from. What answers them
// is in the packages handler and engine.
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

	"github.com/alecthomas/kong"

	"github.com/millrace-ai/millrace/container/config"
)

// cli is the command line. Without a command it is serve: SageMaker runs the
// image with the word, people without. Each command has a method Run, whose
// parameters are what run binds.
type cli struct {
	Version versionFlag `short:"V" help:"Print the version."`
	HelpAll helpAllFlag `help:"Show help with all flags, those for TGI's command lines too."`

	Serve      serveCommand      `cmd:"" default:"withargs" help:"Serve a model (the default command)."`
	Chat       chatCommand       `cmd:"" help:"Chat with a model in the terminal."`
	Pull       pull              `cmd:"" help:"Download a model of the Hugging Face hub, or from S3."`
	Inspect    inspectCommand    `cmd:"" help:"Describe a model: its size, and whether it fits into memory."`
	Quantize   quantizeCommand   `cmd:"" help:"Write a checkpoint in 8 or 4 bits, which is served as it is."`
	Prefix     prefixCommand     `cmd:"" help:"Write a prefix file: the beginning of prompts, computed ahead for serve --prefix-cache-file."`
	Bench      benchCommand      `cmd:"" help:"Measure a server that speaks TGI's or OpenAI's API under load."`
	SageMaker  sageMaker         `cmd:"" name:"sagemaker" help:"Deploy to SageMaker, call an endpoint, or try one on this machine."`
	Lambda     lambdaCommand     `cmd:"" help:"Serve as a Lambda function, deploy one, call it, or try it on this machine."`
	Env        envCommand        `cmd:"" help:"Print the configuration that serve would use, and where each value comes from."`
	Completion completionCommand `cmd:"" help:"Print the completion script of a shell."`
	Man        manCommand        `cmd:"" help:"Print the manual page."`
	VersionOf  versionCommand    `cmd:"" name:"version" help:"Print the version, what it was built with, and what CPU code it uses."`
	Help       helpCommand       `cmd:"" help:"Show the help of a command."`
	Complete   completeCommand   `cmd:"" hidden:"" name:"__complete" passthrough:"" help:"Print how a command line may go on, for the completion scripts."`
}

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
	loader := config.NewLoader(environ, modelFolders)
	loader.Terminal = isTerminal(os.Stderr)
	parser, err := newParser(&cli{}, loader, slices.Contains(args, "--help-all"))
	if err != nil {
		return err
	}
	if err := checkCommand(parser, args); err != nil {
		return usageError{err}
	}
	ctx, err := parser.Parse(args)
	if err != nil {
		var e *config.Error
		if errors.As(err, &e) {
			err = e // without kong's prefix: it names its source itself
		}
		return usageError{err}
	}
	ctx.Bind(loader)
	// Asked for only by commands that a signal ends through it; a server has a
	// way of its own.
	if err := ctx.BindToProvider(func() (context.Context, error) {
		interrupted, _ := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		return interrupted, nil
	}); err != nil {
		return err
	}
	return ctx.Run()
}

// newParser makes the parser of c. Flags that are only for TGI's command lines
// are hidden from help unless all are wanted.
func newParser(c *cli, loader *config.Loader, all bool) (*kong.Kong, error) {
	parser, err := kong.New(c,
		kong.Name("millrace"),
		kong.Description("Serves text generation over TGI's and OpenAI's APIs."),
		kong.Resolvers(loader),
		kong.ValueFormatter(config.Help),
		kong.ExplicitGroups(config.Groups),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, FlagsLast: true, NoExpandSubcommands: true, WrapUpperBound: 110}),
		kong.Help(printHelp),
	)
	if err != nil {
		return nil, err
	}
	return parser, kong.Visit(parser.Model, func(node kong.Visitable, next kong.Next) error {
		if f, ok := node.(*kong.Flag); ok && f.Group != nil && config.ForTGI(f.Group.Key) {
			f.Hidden = !all
		}
		return next(nil)
	})
}

// checkCommand refuses a first word that is neither a command nor, for serve
// without its name, a model.
func checkCommand(parser *kong.Kong, args []string) error {
	if len(args) == 0 || strings.HasPrefix(args[0], "-") {
		return nil
	}
	word := args[0]
	var names []string
	for _, command := range parser.Model.Children {
		if command.Name == word {
			return nil
		}
		if !command.Hidden {
			names = append(names, command.Name)
		}
	}
	if _, err := os.Stat(word); err == nil || strings.ContainsAny(word, "/:") {
		return nil
	}
	if near := config.Nearest(word, names); near != "" {
		return fmt.Errorf("unknown command %q, did you mean %q?", word, near)
	}
	return fmt.Errorf("unknown command %q; `millrace help` lists the commands", word)
}
