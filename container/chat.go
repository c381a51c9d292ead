package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/millrace-ai/millrace/container/repl"
	"github.com/millrace-ai/millrace/container/source"
)

// chatCommand is the command that chats with a model in the terminal.
type chatCommand struct {
	Model string   `arg:"" optional:"" name:"model|url" help:"A model as for serve, which is loaded for this chat, or the address of a running server. Default: the built-in demo model."`
	Args  []string `arg:"" optional:"" help:"After --: flags of serve for the model that is loaded."`

	URL       string `name:"url" placeholder:"URL" help:"Address of a running server; the argument is short for it."`
	APIKey    string `name:"api-key" env:"API_KEY" placeholder:"KEY" help:"Bearer token of the server."`
	ModelName string `name:"model" placeholder:"NAME" help:"Model of a server that has several. Default: the first that it lists."`

	Prompt      string   `name:"prompt" short:"p" placeholder:"TEXT" help:"Ask this, print the answer and end."`
	System      string   `name:"system" placeholder:"TEXT" help:"System message."`
	Temperature *float64 `name:"temperature" placeholder:"N" help:"0 is greedy. Default: the server's, as for all fields that /set knows."`
	MaxTokens   int      `name:"max-tokens" placeholder:"N" help:"Longest answer in tokens."`
	Seed        *int64   `name:"seed" placeholder:"N" help:"Draw the same answers again."`
	Verbose     bool     `name:"verbose" short:"v" help:"Print tokens and times after each answer."`
	NoHistory   bool     `name:"no-history" help:"Neither read nor keep the lines typed."`
}

// Run chats until the user ends it. Without a terminal it answers once.
func (c *chatCommand) Run() error {
	if strings.HasPrefix(c.Model, "-") { // after --, without a model
		c.Model, c.Args = "", append([]string{c.Model}, c.Args...)
	}
	if c.URL == "" && isServer(c.Model) {
		c.URL, c.Model = c.Model, ""
	}
	if c.URL != "" && (c.Model != "" || len(c.Args) > 0) {
		return usageError{errors.New("chat: a server's address and a model to load are both given; give one")}
	}
	interactive := c.Prompt == "" && isTerminal(os.Stdin) && isTerminal(os.Stdout)
	question := c.Prompt
	if question == "" && !interactive {
		text, err := io.ReadAll(os.Stdin)
		if err != nil {
			return fmt.Errorf("chat: standard input: %w", err)
		}
		if question = strings.TrimSpace(string(text)); question == "" {
			return usageError{errors.New("chat: standard input is empty; type a question into it, or give --prompt")}
		}
	}
	if c.URL == "" {
		stop, err := c.startServer()
		if err != nil {
			return err
		}
		defer stop()
	}

	client := repl.NewClient(c.URL, c.APIKey, c.ModelName)
	name, err := client.Model(context.Background())
	if err != nil {
		return fmt.Errorf("chat: %w", err)
	}
	s := &repl.Session{Client: client, Out: os.Stdout, Notes: os.Stderr, Verbose: c.Verbose, Parameters: c.parameters()}
	s.SetSystem(c.System)
	if !interactive {
		if err := s.Ask(context.Background(), question); err != nil {
			return fmt.Errorf("chat: %w", err)
		}
		return nil
	}
	fmt.Printf("%s. /help lists the commands, Ctrl-C stops an answer, Ctrl-D ends.\n", name)
	return repl.Interact(s, c.historyFile())
}

// isServer reports whether the argument is a server's address. Pages of the hub
// are models.
func isServer(argument string) bool {
	return (strings.HasPrefix(argument, "http://") || strings.HasPrefix(argument, "https://")) && !source.IsHub(argument)
}

func (c *chatCommand) parameters() map[string]any {
	p := map[string]any{}
	if c.Temperature != nil {
		p["temperature"] = *c.Temperature
	}
	if c.MaxTokens > 0 {
		p["max_tokens"] = c.MaxTokens
	}
	if c.Seed != nil {
		p["seed"] = *c.Seed
	}
	return p
}

// historyFile is where the lines typed are kept, "" for nowhere.
func (c *chatCommand) historyFile() string {
	dir, err := os.UserCacheDir()
	if c.NoHistory || err != nil {
		return ""
	}
	return filepath.Join(dir, "millrace", "chat_history")
}

// startServer serves the model in this process, on a port of its own that only
// this machine reaches, and returns once it is ready.
func (c *chatCommand) startServer() (stop func(), err error) {
	args := append([]string{"--hostname=127.0.0.1", "--port=0", "--log-level=error", "--no-json-output"}, c.Args...)
	if c.Model != "" {
		args = append([]string{c.Model}, args...)
	}
	cfg, settings, _, err := parseServe(args, os.Environ())
	if err != nil {
		return nil, usageError{fmt.Errorf("chat: %w", err)}
	}
	reportFaults()
	signals := make(chan os.Signal, 2)
	s, err := newServer(cfg, settings, nil, signals)
	if err != nil {
		return nil, usageError{err}
	}
	p, err := listen(cfg, s.log, s.hosted())
	if err != nil {
		return nil, usageError{err}
	}
	ready := make(chan struct{})
	p.ready = func() { close(ready) }
	ended := make(chan error, 1)
	go func() { ended <- s.run(p) }()

	show := isTerminal(os.Stderr) && !source.IsHub(s.place) // whose download has a bar
	for start := time.Now(); ; {
		select {
		case <-ready:
			if show {
				fmt.Fprint(os.Stderr, "\r\033[K")
			}
			c.URL, c.APIKey = p.url(), cfg.APIKey
			return func() {
				signals <- syscall.SIGTERM
				if err := <-ended; err != nil {
					fmt.Fprintln(os.Stderr, "millrace:", err)
				}
				p.Close()
			}, nil
		case err := <-ended:
			p.Close()
			return nil, err
		case <-time.After(200 * time.Millisecond):
			if show {
				fmt.Fprintf(os.Stderr, "\r\033[Kloading %s, %d s", s.name(), int(time.Since(start).Seconds()))
			}
		}
	}
}
