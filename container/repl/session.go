package repl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
)

// Session is a conversation.
type Session struct {
	Client     *Client
	Out        io.Writer      // for answers, and what commands print
	Notes      io.Writer      // for what is said about answers
	Verbose    bool           // print tokens and times after each answer
	Parameters map[string]any // fields of requests; the server's defaults hold without

	system   string
	messages []Message // without the system message
	last     string    // the latest question, for /retry
}

// SetSystem sets the system message, "" for none.
func (s *Session) SetSystem(text string) { s.system = text }

// errQuit ends the session.
var errQuit = errors.New("quit")

// command is what a line with a slash may say.
type command struct {
	name, argument, help string
	run                  func(s *Session, ctx context.Context, argument string) error
}

// commands are all but /help, in the order that /help shows.
var commands = []command{
	{"/reset", "", "begin a new conversation", func(s *Session, _ context.Context, _ string) error {
		s.messages, s.last = nil, ""
		return s.print("New conversation.\n")
	}},
	{"/system", "[TEXT]", "set the system message; without TEXT, show it; - removes it", (*Session).setSystem},
	{"/set", "[NAME [VALUE]]", "set a field such as temperature or max_tokens; without VALUE, back to the server's default", (*Session).set},
	{"/retry", "", "ask the last question again", func(s *Session, ctx context.Context, _ string) error { return s.retry(ctx) }},
	{"/undo", "", "take the last question and its answer back", func(s *Session, _ context.Context, _ string) error {
		s.dropLast()
		return nil
	}},
	{"/save", "FILE", "write the conversation to FILE, as JSON", func(s *Session, _ context.Context, name string) error { return s.save(name) }},
	{"/load", "FILE", "go on with the conversation in FILE", func(s *Session, _ context.Context, name string) error { return s.load(name) }},
	{"/verbose", "", "print tokens and times after each answer, or stop doing so", func(s *Session, _ context.Context, _ string) error {
		s.Verbose = !s.Verbose
		return nil
	}},
	{"/quit", "", "end, as Ctrl-D does", func(*Session, context.Context, string) error { return errQuit }},
}

// aliases are what other chats call commands.
var aliases = map[string]string{"/?": "/help", "/new": "/reset", "/clear": "/reset", "/regenerate": "/retry", "/exit": "/quit", "/bye": "/quit"}

// Command runs a line that begins with a slash.
func (s *Session) Command(ctx context.Context, line string) error {
	name, argument, _ := strings.Cut(strings.TrimSpace(line), " ")
	if full, ok := aliases[name]; ok {
		name = full
	}
	if name == "/help" {
		return s.help()
	}
	for i := range commands {
		if commands[i].name == name {
			return commands[i].run(s, ctx, strings.TrimSpace(argument))
		}
	}
	return fmt.Errorf("unknown command %s; /help lists the commands", name)
}

func (s *Session) print(format string, args ...any) error {
	_, err := fmt.Fprintf(s.Out, format, args...)
	return err
}

// note says something about an answer that is not part of it.
func (s *Session) note(format string, args ...any) { fmt.Fprintf(s.Notes, "("+format+")\n", args...) }

func (s *Session) help() error {
	for _, c := range commands {
		if err := s.print("  %-22s %s\n", strings.TrimSpace(c.name+" "+c.argument), c.help); err != nil {
			return err
		}
	}
	return s.print("  %-22s %s\n  %-22s %s\n", `"""`, "begins and ends a message of several lines; so does \\ at a line's end", "Ctrl-C", "stop the answer")
}

func (s *Session) setSystem(_ context.Context, text string) error {
	switch text {
	case "":
		if s.system == "" {
			return s.print("No system message.\n")
		}
		return s.print("%s\n", s.system)
	case "-":
		text = ""
	}
	s.system = text
	return nil
}

// settable are the fields that /set knows.
var settable = []string{"temperature", "top_p", "top_k", "min_p", "typical_p", "repetition_penalty", "presence_penalty", "frequency_penalty", "max_tokens", "seed", "stop"}

func (s *Session) set(_ context.Context, argument string) error {
	name, text, _ := strings.Cut(argument, " ")
	text = strings.TrimSpace(text)
	switch {
	case name == "":
		for _, name := range slices.Sorted(maps.Keys(s.Parameters)) {
			if err := s.print("%s %v\n", name, s.Parameters[name]); err != nil {
				return err
			}
		}
		return s.print("Fields: %s\n", strings.Join(settable, ", "))
	case !slices.Contains(settable, name):
		return fmt.Errorf("%s: unknown field; there are %s", name, strings.Join(settable, ", "))
	case text == "":
		delete(s.Parameters, name)
		return nil
	}
	var value any
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.UseNumber() // a seed may have more digits than a float
	if err := decoder.Decode(&value); err != nil || decoder.More() {
		if name != "stop" {
			return fmt.Errorf("%s: %q is not a number", name, text)
		}
		value = text
	}
	if s.Parameters == nil {
		s.Parameters = map[string]any{}
	}
	s.Parameters[name] = value
	return nil
}

// Ask adds a question to the conversation and prints the answer. After an error
// the conversation is as it was before; an answer that ctx stopped stays in it.
func (s *Session) Ask(ctx context.Context, question string) error {
	s.last = question
	before := len(s.messages)
	s.messages = append(s.messages, Message{"user", question})
	all := s.messages
	if s.system != "" {
		all = append([]Message{{"system", s.system}}, s.messages...)
	}
	var broken error
	answer, err := s.Client.Ask(ctx, all, s.Parameters, func(piece string) {
		if _, failed := io.WriteString(s.Out, piece); failed != nil {
			broken = failed
		}
	})
	if answer.Text != "" && !strings.HasSuffix(answer.Text, "\n") {
		broken = errors.Join(broken, s.print("\n"))
	}
	if err != nil && (answer.Text == "" || ctx.Err() == nil) {
		s.messages = s.messages[:before]
		return err
	}
	s.messages = append(s.messages, Message{"assistant", answer.Text})
	switch {
	case err != nil:
		s.note("stopped; /retry asks again")
		return broken
	case answer.FinishReason == "length":
		s.note("cut: the answer reached its longest length")
	}
	if s.Verbose {
		seconds := (answer.Total - answer.First).Seconds()
		s.note("%d tokens, first after %.2f s, then %.1f tokens/s",
			answer.Tokens, answer.First.Seconds(), float64(max(0, answer.Tokens-1))/max(seconds, 1e-9))
	}
	return broken
}

// retry asks the last question again, instead of keeping its answer.
func (s *Session) retry(ctx context.Context) error {
	if s.last == "" {
		return errors.New("there is no question to ask again")
	}
	if n := len(s.messages); n >= 2 && s.messages[n-2].Content == s.last {
		s.dropLast()
	}
	return s.Ask(ctx, s.last)
}

// dropLast takes the last question and its answer out.
func (s *Session) dropLast() { s.messages = s.messages[:max(0, len(s.messages)-2)] }

// saved is a conversation in a file; its messages are as in requests.
type saved struct {
	Messages   []Message      `json:"messages"`
	Parameters map[string]any `json:"parameters,omitempty"`
}

func (s *Session) save(name string) error {
	if name == "" {
		return errors.New("/save needs the name of a file")
	}
	all := saved{Messages: s.messages, Parameters: s.Parameters}
	if s.system != "" {
		all.Messages = append([]Message{{"system", s.system}}, s.messages...)
	}
	data, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(name, append(data, '\n'), 0o600); err != nil {
		return err
	}
	return s.print("%d messages in %s\n", len(all.Messages), name)
}

func (s *Session) load(name string) error {
	if name == "" {
		return errors.New("/load needs the name of a file")
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	var all saved
	if err := json.Unmarshal(data, &all); err != nil {
		return fmt.Errorf("%s: not a saved conversation: %w", name, err)
	}
	s.system, s.last, s.messages, s.Parameters = "", "", nil, all.Parameters
	for _, m := range all.Messages {
		switch m.Role {
		case "system":
			s.system = m.Content
			continue
		case "user":
			s.last = m.Content
		}
		s.messages = append(s.messages, m)
	}
	return s.print("%d messages from %s\n", len(all.Messages), name)
}
