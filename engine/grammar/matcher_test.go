package grammar

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestMaskHasOnlyText(t *testing.T) {
	c := compilerOfBytes(t)
	mask := make([]uint32, c.MaskWords())
	m := mustCompile(t, c, Spec{Kind: Regex, Text: `(?s:.*)`})
	if err := m.Mask(mask); err != nil {
		t.Fatal(err)
	}
	for id := range int32(bytesSize) {
		switch {
		case id < 0x80 && !isSet(mask, id):
			t.Errorf("ASCII %d is not allowed", id)
		case id == 0xFF || id == bytesSpecial || id > bytesEOT:
			if isSet(mask, id) {
				t.Errorf("token %d, which is not text, is allowed", id)
			}
		case id >= bytesEOS && !isSet(mask, id):
			t.Errorf("end %d is not allowed where the text may end", id)
		}
	}
}

func TestMatcher(t *testing.T) {
	c := compilerOfBytes(t)
	mask := make([]uint32, c.MaskWords())
	spec := Spec{Kind: Regex, Text: "ab(c|d)"}
	accept := func(t *testing.T, m *Matcher, text string) {
		t.Helper()
		for _, b := range []byte(text) {
			if err := m.Accept(int32(b)); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Run("forced", func(t *testing.T) {
		m := mustCompile(t, c, spec)
		if got := fmt.Sprint(m.Forced([]int32{7})); got != "[7 97 98]" {
			t.Errorf("forced %v, want a and b after 7", got)
		}
		accept(t, m, "ab")
		if got := m.Forced(nil); len(got) != 0 {
			t.Errorf("forced %v at a choice", got)
		}
	})
	t.Run("end", func(t *testing.T) {
		m := mustCompile(t, c, spec)
		accept(t, m, "ab")
		if m.Accepting() || m.Done() {
			t.Error("ends too early")
		}
		accept(t, m, "c")
		if !m.Accepting() || !m.Done() {
			t.Error("does not end")
		}
		if err := m.Mask(mask); err != nil || !isSet(mask, bytesEOS) || isSet(mask, 'c') {
			t.Error("after the end, more than the end is allowed", err)
		}
	})
	t.Run("refused token", func(t *testing.T) {
		m := mustCompile(t, c, spec)
		if err := m.Accept('x'); err == nil {
			t.Fatal("accepts x")
		}
		if m.Mask(mask) == nil || m.Accept('a') == nil || !m.Done() || m.Accepting() || m.Reset() == nil || m.Forced(nil) != nil {
			t.Error("a failed matcher goes on")
		}
		if _, err := m.Clone(); err == nil {
			t.Error("a failed matcher is cloned")
		}
	})
	t.Run("end too early, ids outside", func(t *testing.T) {
		for _, id := range []int32{bytesEOS, bytesSpecial, bytesSize - 1, bytesSize + 100, -1} {
			if m := mustCompile(t, c, spec); m.Accept(id) == nil {
				t.Errorf("accepts token %d", id)
			}
		}
	})
	t.Run("reset and clone", func(t *testing.T) {
		m := mustCompile(t, c, spec)
		accept(t, m, "ab")
		fork, err := m.Clone()
		if err != nil {
			t.Fatal(err)
		}
		defer fork.Close()
		accept(t, m, "c")
		accept(t, fork, "d")
		if err := m.Reset(); err != nil {
			t.Fatal(err)
		}
		accept(t, m, "abd")
		if !m.Done() || !fork.Done() {
			t.Error("reset or fork is not at its end")
		}
	})
	t.Run("closed", func(t *testing.T) {
		m := mustCompile(t, c, spec)
		c.Begin(m)
		m.Close()
		m.Close()
		if m.Mask(mask) == nil || m.Accept('a') == nil || !m.Done() {
			t.Error("a closed matcher goes on")
		}
	})
	t.Run("mask of a wrong length", func(t *testing.T) {
		if mustCompile(t, c, spec).Mask(mask[1:]) == nil {
			t.Error("taken")
		}
	})
}

func TestMasksAreThoseOfEachMatcher(t *testing.T) {
	c := compilerOfBytes(t)
	var ms []*Matcher
	var rows [][]uint32
	for i := range 20 {
		ms = append(ms, mustCompile(t, c, Spec{Kind: Regex, Text: fmt.Sprintf("%c.", 'a'+i)}))
		rows = append(rows, make([]uint32, c.MaskWords()))
	}
	ms[3].Accept('?')
	ms[4].Close()
	errs := make([]error, len(ms))
	c.Begin(ms[5])
	c.Masks(ms, rows, errs, time.Time{})
	for i := range ms {
		if i == 3 || i == 4 {
			if errs[i] == nil || errors.Is(errs[i], ErrLate) {
				t.Errorf("row %d: %v, want its matcher's failure", i, errs[i])
			}
			continue
		}
		for id := range int32(256) {
			if want := id == int32('a'+i); errs[i] != nil || isSet(rows[i], id) != want {
				t.Fatalf("row %d, token %d: %v, want allowed %v", i, id, errs[i], want)
			}
		}
	}
	// A passed deadline: each row is there or late, and the late ones come.
	for _, i := range []int{0, 1, 2} {
		if err := ms[i].Accept(int32('a' + i)); err != nil {
			t.Fatal(err)
		}
	}
	c.Masks(ms[:3], rows, errs, time.Now().Add(-time.Second))
	for i := range 3 {
		if errs[i] != nil && !errors.Is(errs[i], ErrLate) {
			t.Errorf("row %d: %v", i, errs[i])
		}
	}
	c.Masks(ms[:3], rows, errs, time.Now().Add(time.Minute))
	for i := range 3 {
		if errs[i] != nil || !isSet(rows[i], 'z') {
			t.Errorf("row %d after the deadline: %v", i, errs[i])
		}
	}
}

func TestCompileEndsWithItsContext(t *testing.T) {
	c := compilerOfBytes(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for len(c.slots) < cap(c.slots) { // no slot is free
		c.slots <- struct{}{}
	}
	_, err := c.Compile(ctx, Spec{Kind: Regex, Text: "never compiled before"})
	for len(c.slots) > 0 {
		<-c.slots
	}
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want the context's", err)
	}
}

func TestCache(t *testing.T) {
	c, err := NewCompiler(bytesVocabulary{}, bytesSize, []int32{bytesEOS})
	if err != nil {
		t.Fatal(err)
	}
	c.cache.maxEntries = 2
	compile := func(regex string) {
		m, err := c.Compile(t.Context(), Spec{Kind: Regex, Text: regex})
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Accept(int32(regex[0])); err != nil { // the cached one does not move
			t.Error(err)
		}
		m.Close()
	}
	has := func(regex string) bool {
		_, ok := c.cache.entries[Spec{Kind: Regex, Text: regex}.key()]
		return ok
	}
	compile("a")
	compile("b")
	compile("a")
	compile("c") // drops b, the one not used for the longest time
	if !has("a") || has("b") || !has("c") || c.users.Load() != 3 {
		t.Errorf("a %v, b %v, c %v, %d users; want a, c and 3", has("a"), has("b"), has("c"), c.users.Load())
	}
	c.cache.maxBytes = c.cache.bytes
	compile("a")
	compile("d" + strings.Repeat("d", 100)) // too large beside both others
	if n := len(c.cache.entries); n != 1 || c.cache.bytes > c.cache.maxBytes {
		t.Errorf("%d entries of %d bytes, want 1 within %d", n, c.cache.bytes, c.cache.maxBytes)
	}
	if (Spec{Kind: Regex, Text: "a"}).key() == (Spec{Kind: Lark, Text: "a"}).key() {
		t.Error("kinds share a key")
	}
	c.Close()
	c.Close()
	if n := c.users.Load(); n != 0 {
		t.Errorf("%d grammars are left after Close", n)
	}
}

// Many sequences at once, of few grammars and of many, some ending in failure
// or in the middle: each must see its own grammar only.
func TestConcurrentSequences(t *testing.T) {
	c, err := NewCompiler(bytesVocabulary{}, bytesSize, []int32{bytesEOS})
	if err != nil {
		t.Fatal(err)
	}
	c.cache.maxEntries = 3
	c.limit = time.Minute // eight wait for two cores, which others may share
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(g), 0))
			for range 40 {
				text := strings.Repeat(string(rune('a'+r.IntN(6))), 1+r.IntN(5))
				m, err := c.Compile(t.Context(), Spec{Kind: JSONSchema, Text: fmt.Sprintf(`{"const":%q}`, text)})
				if err != nil {
					t.Error(err)
					return
				}
				c.Begin(m)
				for i, b := range []byte(`"` + text + `"`) {
					if r.IntN(20) == 0 {
						break
					}
					if err := m.Accept(int32(b)); err != nil {
						t.Errorf("%q at %d: %v", text, i, err)
					}
					c.Begin(m)
				}
				m.Close()
			}
		})
	}
	wg.Wait()
	c.Close()
}
