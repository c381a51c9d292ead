package grammar

import (
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// moved waits for where m was sent.
func moved(t *testing.T, c *Compiler, m *Matcher) Move {
	t.Helper()
	c.Moves([]*Matcher{m}, time.Time{})
	move, ok, err := c.Moved(m)
	if !ok || err != nil {
		t.Fatalf("moved: %v, %v", ok, err)
	}
	return move
}

// Engines that share a Compiler wait each until its own deadline.
func TestWaitsAreApart(t *testing.T) {
	var c Compiler
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		c.wait([]*Matcher{{due: 1}}, 0, time.Now().Add(5*time.Millisecond)) // no result ever comes
	}()
	for giveUp := time.Now().Add(20 * time.Second); ; {
		select {
		case <-ended:
			return
		default:
		}
		if time.Now().After(giveUp) {
			t.Fatal("the deadline of one engine was lost to another's")
		}
		c.wait(nil, 0, time.Now().Add(time.Hour))
	}
}

func textOf(tokens []int32) string {
	var b []byte
	for _, t := range tokens {
		b = append(b, byte(t))
	}
	return string(b)
}

// A draft is followed as far as the grammar allows it, with what it forces, and the
// matcher stays where it is.
func TestDrafts(t *testing.T) {
	c := compilerOfBytes(t)
	m := mustCompile(t, c, Spec{Kind: Regex, Text: "(a(bcd|e)*;)+(x|y)z"})
	c.Start(m, 100)
	if move := moved(t, c, m); textOf(move.Forced) != "a" {
		t.Fatalf("started: %+v", move)
	}
	for _, tt := range []struct {
		guess, want string
		forced      string // a point for each that is not
		next        string // may come after it
	}{
		{"eee", "eee", "...", ";be"},
		{"ebcde", "ebcde", "..ff.", ";be"},
		{"ebxxe", "ebcd", "..ff", ";be"}, // what is forced takes the place of the guess
		{"ebc", "e", ".", ";be"},         // no room for all of it
		{"ez", "e", ".", ";be"},
		{"z", "", "", ";be"},
		{"e;abcd", "e;abcd", "....ff", ";be"},
		{"e;x", "e;", "..", "axy"}, // nothing but the end may come after x
	} {
		d := &Draft{Tokens: []int32{}, Room: 100}
		for _, b := range []byte(tt.guess) {
			d.Tokens = append(d.Tokens, int32(b))
		}
		c.Drafts([]*Matcher{m}, []*Draft{d}, time.Time{})
		if !d.Done || textOf(d.Tokens) != tt.want || len(d.Masks) != (len(d.Tokens)+1)*c.MaskWords() {
			t.Errorf("%q: %q of it, done %v, %d words of masks", tt.guess, textOf(d.Tokens), d.Done, len(d.Masks))
			continue
		}
		forced, next := "", ""
		for _, f := range d.Forced {
			forced += map[bool]string{false: ".", true: "f"}[f]
		}
		for id := range int32(128) {
			if isSet(d.Masks[len(d.Tokens)*c.MaskWords():], id) {
				next += string(id)
			}
		}
		if forced != tt.forced || next != tt.next {
			t.Errorf("%q: %s is forced, then %q may come, want %s and %q", tt.guess, forced, next, tt.forced, tt.next)
		}
	}
	c.Advance(m, []int32{'e', ';', 'a', 'b', 'c', 'd', 'b'}, 100) // past some and another
	if move := moved(t, c, m); textOf(move.Forced) != "cd" || move.End {
		t.Errorf("after that: %+v", move)
	}
	c.Advance(m, []int32{'e'}, 100)
	if err := m.settle(); err != nil {
		t.Fatal(err)
	}
	m.native.Slow.Store(true)
	defer m.native.Slow.Store(false)
	d := &Draft{Tokens: []int32{'e'}, Room: 100}
	c.Drafts([]*Matcher{m}, []*Draft{d}, time.Time{})
	if !d.Done || len(d.Tokens) > 0 {
		t.Errorf("a slow matcher's draft: %+v", d)
	}
}

func TestMoves(t *testing.T) {
	c := compilerOfBytes(t)
	mask := make([]uint32, c.MaskWords())
	allowed := func(m *Matcher) string {
		errs := make([]error, 1)
		c.Masks([]*Matcher{m}, [][]uint32{mask}, errs, time.Time{})
		if errs[0] != nil {
			t.Fatal(errs[0])
		}
		text := ""
		for id := range int32(128) {
			if isSet(mask, id) {
				text += string(id)
			}
		}
		return text
	}
	m := mustCompile(t, c, Spec{Kind: Regex, Text: "ab(c|d)ef(g|h)|ab(c|d)eg"})
	c.Start(m, 100)
	if move := moved(t, c, m); textOf(move.Forced) != "ab" || move.End || allowed(m) != "cd" {
		t.Errorf("started: %+v, then %q may come", move, allowed(m))
	}
	for _, text := range []string{"cx", "\xff", "de" + "z"} {
		c.Enter(m, []byte(text), 100)
		if move := moved(t, c, m); !move.Refused || move.Forced != nil || allowed(m) != "cd" {
			t.Errorf("%q: %+v, then %q may come", text, move, allowed(m))
		}
	}
	fork, err := m.Clone()
	if err != nil {
		t.Fatal(err)
	}
	defer fork.Close()
	c.Enter(m, []byte("ce"), 100)
	if move := moved(t, c, m); move.Refused || move.Forced != nil || allowed(m) != "fg" {
		t.Errorf("entered: %+v, then %q may come", move, allowed(m))
	}
	c.Advance(m, []int32{'g'}, 100)
	if move := moved(t, c, m); !move.End || move.Forced != nil || allowed(m) != "" || !isSet(mask, bytesEOS) {
		t.Errorf("at the end: %+v, then %q may come", move, allowed(m))
	}
	c.Advance(fork, []int32{'d'}, 100)
	if move := moved(t, c, fork); textOf(move.Forced) != "e" || allowed(fork) != "fg" {
		t.Errorf("the fork: %+v, then %q may come", move, allowed(fork))
	}
	c.Advance(fork, []int32{'x'}, 100)
	c.Moves([]*Matcher{fork}, time.Time{})
	if _, ok, err := fork.c.Moved(fork); !ok || err == nil || !strings.Contains(err.Error(), "does not allow token 120") {
		t.Errorf("a token that is not allowed: %v, %v", ok, err)
	}
	c.Start(fork, 100)
	if _, ok, err := fork.c.Moved(fork); !ok || err == nil {
		t.Errorf("a failed matcher is moved: %v, %v", ok, err)
	}

	// No more than there is room for.
	m = mustCompile(t, c, Spec{Kind: Regex, Text: "abcdef"})
	c.Start(m, 3)
	if move := moved(t, c, m); textOf(move.Forced) != "abc" || move.End {
		t.Errorf("with room for three: %+v", move)
	}
}

// blockingVocabulary waits before it makes tokens of a long text, if it is told to.
type blockingVocabulary struct {
	bytesVocabulary
	waits *atomic.Bool
	begin chan struct{}
	bytes *atomic.Int64
}

func (v blockingVocabulary) Encode(text string, special bool) ([]int32, error) {
	if len(text) > longText && v.waits.Load() {
		<-v.begin
		v.bytes.Add(int64(len(text)))
	}
	return v.bytesVocabulary.Encode(text, special)
}

// Long forced texts keep neither the masks of others waiting nor more than one
// worker busy, and what sequences have in common is read once.
func TestLongTextsKeepNobodyWaiting(t *testing.T) {
	v := blockingVocabulary{waits: new(atomic.Bool), begin: make(chan struct{}), bytes: new(atomic.Int64)}
	c, err := NewCompiler(v, bytesSize, []int32{bytesEOS})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.limit = time.Minute
	text := strings.Repeat("0123456789", longText/5)
	long := []*Matcher{mustCompile(t, c, Spec{Kind: JSONSchema, Text: fmt.Sprintf(`{"const":%q}`, text)})}
	for range 2 * runtime.GOMAXPROCS(0) {
		m, err := long[0].Clone()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(m.Close)
		long = append(long, m)
	}
	v.waits.Store(true)
	for _, m := range long {
		c.Start(m, 1<<20)
	}

	short := mustCompile(t, c, Spec{Kind: Regex, Text: "a[bc]*"})
	for i := range 50 { // would wait forever if the long ones had the workers
		if i == 0 {
			c.Start(short, 100)
		} else {
			c.Advance(short, []int32{'b'}, 100)
		}
		moved(t, c, short)
		masks, errs := [][]uint32{make([]uint32, c.MaskWords())}, make([]error, 1)
		if c.Masks([]*Matcher{short}, masks, errs, time.Time{}); errs[0] != nil {
			t.Fatal(errs[0])
		}
	}
	closed := long[len(long)-1]
	closed.Close() // before it is looked at
	for _, m := range long[:len(long)-1] {
		if _, ok, err := m.c.Moved(m); ok || err != nil {
			t.Errorf("moved: %v, %v; want nothing yet", ok, err)
		}
	}
	close(v.begin)
	for i, m := range long[:len(long)-1] {
		if move := moved(t, c, m); textOf(move.Forced) != `"`+text+`"` || !move.End {
			t.Errorf("matcher %d: %d tokens, end %v", i, len(move.Forced), move.End)
		}
	}
	if n := v.bytes.Load(); n > int64(len(text))+2 {
		t.Errorf("%d bytes were read of %d sequences of %d", n, len(long), len(text)+2)
	}
}
