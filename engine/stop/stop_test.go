package stop

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"
)

// run feeds pieces until a match and returns the text up to the match's end,
// the matched string, and the most that was ever held back.
func run(m *Matcher, pieces ...string) (text, match string, held int) {
	var out []byte
	for _, p := range pieces {
		end, length, ok := m.Find([]byte(p))
		if ok {
			out = append(out, p[:end]...)
			return string(out), string(out[len(out)-length:]), held
		}
		out = append(out, p...)
		held = max(held, m.Held())
	}
	return string(out), "", held
}

func TestMatcher(t *testing.T) {
	for _, tt := range []struct {
		name   string
		words  []string
		pieces []string
		text   string
		match  string
		held   int
	}{
		{name: "no words", pieces: []string{"abc"}, text: "abc"},
		{name: "a whole piece", words: []string{"b"}, pieces: []string{"a", "b", "c"}, text: "ab", match: "b"},
		{name: "inside a piece", words: []string{"."}, pieces: []string{"end. Then"}, text: "end.", match: "."},
		{name: "across pieces", words: []string{"\n\nUser:"}, pieces: []string{"hi\n", "\nUs", "er: x"}, text: "hi\n\nUser:", match: "\n\nUser:", held: 4},
		{name: "a false start is given up", words: []string{"aab"}, pieces: []string{"aa", "aa", "c", "b"}, text: "aaaacb", held: 2},
		{name: "a false start overlaps the match", words: []string{"aab"}, pieces: []string{"aa", "ab!"}, text: "aaab", match: "aab", held: 2},
		{name: "first complete wins", words: []string{"bcd", "c"}, pieces: []string{"abcd"}, text: "abc", match: "c"},
		{name: "longest of those complete together", words: []string{"c", "abc", "bc"}, pieces: []string{"xa", "bc"}, text: "xabc", match: "abc", held: 1},
		{name: "longest held back", words: []string{"bx", "abcd"}, pieces: []string{"a", "b", "c"}, text: "abc", held: 3},
		{name: "characters of several bytes", words: []string{"京"}, pieces: []string{"東", "京都"}, text: "東京", match: "京"},
		{name: "the empty string ends the first piece", words: []string{""}, pieces: []string{"er", " t"}, text: "er", match: ""},
		{name: "a word beats the empty string", words: []string{"", "e"}, pieces: []string{"er"}, text: "e", match: "e"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			text, match, held := run(New(tt.words), tt.pieces...)
			if text != tt.text || match != tt.match || held != tt.held {
				t.Errorf("%q in %q: text %q, match %q, held %d; want %q, %q, %d",
					tt.words, tt.pieces, text, match, held, tt.text, tt.match, tt.held)
			}
		})
	}
}

// FuzzStop compares the Matcher with a search in the whole text, however the
// text is cut.
func FuzzStop(f *testing.F) {
	f.Add("the end. More", "end.", ".", uint8(3))
	f.Add("aaaaab", "aab", "ab", uint8(1))
	f.Add("東京都", "京", "都", uint8(4))
	f.Fuzz(func(t *testing.T, text, a, b string, size uint8) {
		if a == "" || b == "" {
			return
		}
		words := []string{a, b}
		want := len(text) + 1
		for _, w := range words {
			if i := strings.Index(text, w); i >= 0 {
				want = min(want, i+len(w))
			}
		}
		m := New(words)
		step := int(size)%5 + 1
		for at := 0; at < len(text); at += step {
			piece := []byte(text[at:min(at+step, len(text))])
			end, length, ok := m.Find(piece)
			if !ok {
				if at+len(piece) >= want {
					t.Fatalf("%q in %q: missed the match ending at %d", words, text, want)
				}
				seen := text[:at+len(piece)]
				if h := m.Held(); h != longestStart(seen, words) {
					t.Fatalf("%q after %q: held %d, want %d", words, seen, h, longestStart(seen, words))
				}
				continue
			}
			if at+end != want {
				t.Fatalf("%q in %q: match ends at %d, want %d", words, text, at+end, want)
			}
			got := []byte(text[want-length : want])
			if !bytes.Equal(got, []byte(a)) && !bytes.Equal(got, []byte(b)) {
				t.Fatalf("%q in %q: matched %q", words, text, got)
			}
			if utf8.ValidString(text) && utf8.ValidString(a) && utf8.ValidString(b) && !utf8.ValidString(text[:want]) {
				t.Fatalf("%q in %q: cut inside a character", words, text)
			}
			return
		}
		if want <= len(text) {
			t.Fatalf("%q in %q: no match", words, text)
		}
	})
}

// longestStart is the length of text's longest suffix that begins a word.
func longestStart(text string, words []string) int {
	for n := len(text); n > 0; n-- {
		for _, w := range words {
			if strings.HasPrefix(w, text[len(text)-n:]) {
				return n
			}
		}
	}
	return 0
}
