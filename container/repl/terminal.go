package repl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"

	"github.com/peterh/liner"
)

const (
	prompt     = ">>> "
	promptMore = "... "
	quotes     = `"""` // around a message of several lines
)

// Interact reads lines from the terminal until the session ends. historyFile
// keeps them for the next time; "" keeps none.
func Interact(s *Session, historyFile string) error {
	line := liner.NewLiner()
	defer line.Close()
	line.SetCtrlCAborts(true)
	line.SetCompleter(func(begun string) (found []string) {
		for _, c := range commands {
			if strings.HasPrefix(c.name, begun) && strings.HasPrefix(begun, "/") {
				found = append(found, c.name)
			}
		}
		return found
	})
	if historyFile != "" {
		readHistory(line, historyFile)
		defer writeHistory(line, historyFile)
	}
	for {
		text, err := readMessage(line)
		switch {
		case errors.Is(err, liner.ErrPromptAborted):
			fmt.Fprintln(s.Out, "(Ctrl-D or /quit ends)")
			continue
		case errors.Is(err, io.EOF):
			fmt.Fprintln(s.Out)
			return nil
		case err != nil:
			return err
		case strings.TrimSpace(text) == "":
			continue
		}
		if err := s.turn(text); errors.Is(err, errQuit) {
			return nil
		} else if err != nil {
			fmt.Fprintln(s.Out, "error:", err)
		}
	}
}

// turn runs a command or asks a question, which Ctrl-C stops.
func (s *Session) turn(text string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if strings.HasPrefix(text, "/") {
		return s.Command(ctx, text)
	}
	err := s.Ask(ctx, text)
	if errors.Is(err, context.Canceled) {
		s.note("stopped; /retry asks again")
		return nil
	}
	return err
}

// readMessage reads a line, or several: between quotes, or while each ends in a
// backslash.
func readMessage(line *liner.State) (string, error) {
	text, err := line.Prompt(prompt)
	if err != nil {
		return "", err
	}
	remember := func(text string) {
		if strings.TrimSpace(text) != "" {
			line.AppendHistory(text)
		}
	}
	remember(text)
	more := func() error {
		next, err := line.Prompt(promptMore)
		remember(next)
		text += "\n" + next
		return err
	}
	if rest, ok := strings.CutPrefix(strings.TrimSpace(text), quotes); ok {
		for text = rest; !strings.HasSuffix(text, quotes); {
			if err := more(); err != nil {
				return "", err
			}
		}
		return strings.Trim(strings.TrimSuffix(text, quotes), "\n"), nil
	}
	for strings.HasSuffix(text, `\`) {
		text = strings.TrimSuffix(text, `\`)
		if err := more(); err != nil {
			return "", err
		}
	}
	return text, nil
}

// readHistory reads what earlier sessions have left, if they have.
func readHistory(line *liner.State, name string) {
	f, err := os.Open(name)
	if err != nil {
		return
	}
	defer f.Close()
	_, _ = line.ReadHistory(f) // lines that cannot be read are only missed
}

// writeHistory keeps the lines for this user alone.
func writeHistory(line *liner.State, name string) {
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return
	}
	defer f.Close()
	_, _ = line.WriteHistory(f) // the chat does not fail when its history is not kept
}
