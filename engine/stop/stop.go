// Package stop finds stop strings in text that arrives in pieces.
//
// A stop string matches wherever it stands: inside a piece, at its end, or
// across any number of pieces. What is found does not depend on how the text
// was cut into pieces: the match that is complete first wins, and of those
// complete at the same byte the one that began first.
//
// The algorithm is Knuth, Morris and Pratt's, one automaton per string: each
// byte is looked at once, nothing is buffered, and the state of an automaton
// is the length of the longest suffix of the text that is a prefix of its
// string. That suffix is exactly what a stream has to hold back.
package stop

// Matcher looks for a set of stop strings in one text. It is not safe for
// concurrent use. A nil Matcher has no strings and never matches.
type Matcher struct {
	words []word
	empty bool // one of the strings is "", which matches after any piece
}

// word is one stop string and how much of it the text ends with.
type word struct {
	text    string
	fail    []int32 // fail[i]: length of the longest proper border of text[:i+1]
	matched int
}

// New returns a Matcher for words. The empty string matches at the end of the
// first piece. New returns nil if there is nothing to look for.
func New(words []string) *Matcher {
	if len(words) == 0 {
		return nil
	}
	m := &Matcher{words: make([]word, 0, len(words))}
	for _, w := range words {
		if w == "" {
			m.empty = true
			continue
		}
		m.words = append(m.words, word{text: w, fail: borders(w)})
	}
	return m
}

// Find reads the next piece of the text. If a stop string is complete within
// it, end is the number of the piece's bytes up to and including the match,
// and length is the match's length in bytes, which may exceed end: then it
// began in an earlier piece. Without a match ok is false.
//
// Pieces of whole UTF-8 characters and valid stop strings give an end at a
// character's end. After a match the Matcher must not be used again.
func (m *Matcher) Find(piece []byte) (end, length int, ok bool) {
	if m == nil {
		return 0, 0, false
	}
	for i, c := range piece {
		for j := range m.words {
			w := &m.words[j]
			if w.step(c) && len(w.text) > length {
				end, length, ok = i+1, len(w.text), true
			}
		}
		if ok {
			return end, length, true
		}
	}
	if m.empty {
		return len(piece), 0, true
	}
	return 0, 0, false
}

// Held returns how many of the last bytes of the text so far may still turn
// out to be the beginning of a stop string.
func (m *Matcher) Held() int {
	if m == nil {
		return 0
	}
	held := 0
	for i := range m.words {
		held = max(held, m.words[i].matched)
	}
	return held
}

// step advances the automaton by one byte and reports whether the string is
// complete.
func (w *word) step(c byte) bool {
	for w.matched > 0 && w.text[w.matched] != c {
		w.matched = int(w.fail[w.matched-1])
	}
	if w.text[w.matched] == c {
		w.matched++
	}
	return w.matched == len(w.text)
}

// borders returns for each prefix of s the length of its longest proper
// prefix that is also its suffix.
func borders(s string) []int32 {
	fail := make([]int32, len(s))
	k := int32(0)
	for i := 1; i < len(s); i++ {
		for k > 0 && s[k] != s[i] {
			k = fail[k-1]
		}
		if s[k] == s[i] {
			k++
		}
		fail[i] = k
	}
	return fail
}
