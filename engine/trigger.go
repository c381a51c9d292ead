package engine

import (
	"bytes"
	"slices"
	"unicode/utf8"

	"github.com/millrace-ai/millrace/engine/grammar"
)

// Trigger starts a grammar in the middle of free text: behind the last byte of
// Text the output must match Grammar. Bytes of the same token behind Text are
// given to the matcher first; if it refuses them, the text goes on free. What
// is triggered first holds to the end of the sequence; of two texts that end at
// the same byte the longer one counts.
type Trigger struct {
	Text    string
	AtStart bool // only where nothing but white space came before
	Grammar *grammar.Matcher
}

// watch looks for triggers in the text of a sequence.
type watch struct {
	triggers []Trigger // the longest Text first; the watch's to close
	dec      Detokenizer
	text     []byte // the end of the text, as much as a trigger may begin in
	inked    bool   // what came before text was not all white space
}

func newWatch(triggers []Trigger, dec Detokenizer) *watch {
	w := &watch{triggers: slices.Clone(triggers), dec: dec}
	slices.SortStableFunc(w.triggers, func(a, b Trigger) int { return len(b.Text) - len(a.Text) })
	return w
}

// read takes in a token and returns the grammar that holds from behind it on,
// nil if the text goes on free. The caller closes the grammar.
func (w *watch) read(token int32) *grammar.Matcher {
	from := len(w.text)
	w.text = w.dec.Append(w.text, token)
	for end := from + 1; end <= len(w.text); end++ {
		for i := range w.triggers {
			t := &w.triggers[i]
			start := end - len(t.Text)
			if start < 0 || string(w.text[start:end]) != t.Text || t.AtStart && !w.blank(start) {
				continue
			}
			if m := t.begin(w.text[end:]); m != nil {
				return m
			}
		}
	}
	w.forget()
	return nil
}

// begin returns the grammar of t behind rest, nil if it refuses that.
func (t *Trigger) begin(rest []byte) *grammar.Matcher {
	m, err := t.Grammar.Clone()
	if err != nil {
		return nil
	}
	if len(rest) > 0 && m.AcceptText(rest) != nil {
		m.Close()
		return nil
	}
	return m
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

func (w *watch) close() {
	for _, t := range w.triggers {
		t.Grammar.Close()
	}
}
