package engine

import (
	"bytes"
	"slices"
	"unicode/utf8"

	"github.com/millrace-ai/millrace/engine/grammar"
)

// Trigger starts a grammar in the middle of free text: after Text the output must
// match Grammar. Bytes after Text that belong to its last token are given to the
// matcher first; if it refuses them, the text goes on free. The first grammar that is
// triggered holds to the end of the sequence; of two texts that end at the same byte
// the longer one wins.
type Trigger struct {
	Text    string
	AtStart bool // only where nothing but white space came before
	Grammar *grammar.Matcher
}

// watch looks for triggers in the text of a sequence.
type watch struct {
	triggers []Trigger // the longest Text first; the watch's to close
	text     []byte    // the end of the text, as much as a trigger may begin in
	inked    bool      // what came before text was not all white space

	// Where to look on for what the token read last completes.
	end int // of a Text
	at  int // in triggers
}

func newWatch(triggers []Trigger) *watch {
	w := &watch{triggers: slices.Clone(triggers)}
	slices.SortStableFunc(w.triggers, func(a, b Trigger) int { return len(b.Text) - len(a.Text) })
	return w
}

// read takes in what a token completes.
func (w *watch) read(text []byte) {
	w.end, w.at = len(w.text)+1, 0
	w.text = append(w.text, text...)
}

// next returns the next trigger that the token read last completes, and what of the
// text is after its Text; nil if there are no more.
func (w *watch) next() (t *Trigger, rest []byte) {
	for ; w.end <= len(w.text); w.end, w.at = w.end+1, 0 {
		for w.at < len(w.triggers) {
			t := &w.triggers[w.at]
			w.at++
			start := w.end - len(t.Text)
			if start >= 0 && string(w.text[start:w.end]) == t.Text && (!t.AtStart || w.blank(start)) {
				return t, w.text[w.end:]
			}
		}
	}
	w.forget()
	return nil, nil
}

// within reports whether a trigger may come in a text that begins with w.text, after
// that.
func (w *watch) within(text []byte) bool {
	return slices.ContainsFunc(w.triggers, func(t Trigger) bool {
		return bytes.Contains(text[max(0, len(w.text)-len(t.Text)+1):], []byte(t.Text))
	})
}

// blank reports whether the text before w.text[n] is white space.
func (w *watch) blank(n int) bool { return !w.inked && len(bytes.TrimSpace(w.text[:n])) == 0 }

// forget drops the text that no trigger can begin in.
func (w *watch) forget() {
	n := max(0, len(w.text)-len(w.triggers[0].Text)+1)
	for n > 0 && n < len(w.text) && !utf8.RuneStart(w.text[n]) {
		n--
	}
	w.inked = !w.blank(n)
	w.text = w.text[:copy(w.text, w.text[n:])]
}

// over reports whether no trigger can match any more.
func (w *watch) over() bool {
	return w.inked && !slices.ContainsFunc(w.triggers, func(t Trigger) bool { return !t.AtStart })
}

// close closes the grammars, but for that of one trigger.
func (w *watch) close(but *Trigger) {
	for i := range w.triggers {
		if t := &w.triggers[i]; t != but {
			discard(t.Grammar)
		}
	}
}
