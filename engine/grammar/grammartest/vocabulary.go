// Package grammartest has a vocabulary small enough to think about, for tests
// of what is generated under a grammar.
package grammartest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/millrace-ai/millrace/engine/grammar"
)

// The special tokens.
const (
	Pad  int32 = iota
	Call       // spelled <call>
	EOS
	firstText
)

// texts are the tokens that are not special: the letters that JSON needs, and
// some that join them in ways that make forced text and overlapping triggers.
var texts = append(strings.Split(` {}[]":,_abcxytrue0123456789<>/l`, ""),
	`{"`, `":`, `"}`, `true`, `ab`, `abc`, `all>`, `<ca`, `l>{"`, ` "`, `tr`, `ue`, `xy`, `a{`, `b": 1`)

// MinSize is the least size of a Vocabulary.
var MinSize = int(firstText) + len(texts)

// Vocabulary is one of so many tokens; those past MinSize are words of the
// letter w and a number. It implements grammar.Vocabulary.
type Vocabulary int

// VocabSize implements grammar.Vocabulary.
func (v Vocabulary) VocabSize() int { return int(v) }

// IsSpecial implements grammar.Vocabulary.
func (v Vocabulary) IsSpecial(id int32) bool { return id < firstText }

// TokenBytes implements grammar.Vocabulary. Special tokens are spelled out.
func (v Vocabulary) TokenBytes(id int32) []byte { return v.Append(nil, id) }

var specials = [firstText]string{"<pad>", "<call>", "</s>"}

// Encode implements grammar.Vocabulary with the longest token first, again and
// again, of those below MinSize.
func (v Vocabulary) Encode(text string, _ bool) (ids []int32, err error) {
	for text != "" {
		best, n := int32(-1), 0
		for i, t := range texts {
			if len(t) > n && strings.HasPrefix(text, t) {
				best, n = firstText+int32(i), len(t)
			}
		}
		if best < 0 {
			return nil, fmt.Errorf("no token begins %q", text)
		}
		ids, text = append(ids, best), text[n:]
	}
	return ids, nil
}

// Text returns the text of tokens.
func (v Vocabulary) Text(ids ...int32) string {
	var b []byte
	for _, id := range ids {
		b = v.Append(b, id)
	}
	return string(b)
}

// Append implements engine.Detokenizer.
func (v Vocabulary) Append(dst []byte, id int32) []byte {
	switch {
	case id < firstText:
		return append(dst, specials[id]...)
	case int(id) < MinSize:
		return append(dst, texts[id-firstText]...)
	}
	return fmt.Appendf(dst, "w%d", id)
}

// Peek implements engine.Detokenizer.
func (v Vocabulary) Peek(dst []byte, ids ...int32) []byte {
	for _, id := range ids {
		dst = v.Append(dst, id)
	}
	return dst
}

// Flush implements engine.Detokenizer.
func (v Vocabulary) Flush(dst []byte) []byte { return dst }

// Compiler returns a Compiler for v that lives as long as t.
func (v Vocabulary) Compiler(t testing.TB) *grammar.Compiler {
	t.Helper()
	c, err := grammar.NewCompiler(v, int(v), []int32{EOS})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// Compile returns the matcher of a grammar.
func Compile(t testing.TB, c *grammar.Compiler, kind grammar.Kind, text string) *grammar.Matcher {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	m, err := c.Compile(ctx, grammar.Spec{Kind: kind, Text: text})
	for errors.Is(err, grammar.ErrBusy) && ctx.Err() == nil { // the machine is
		m, err = c.Compile(ctx, grammar.Spec{Kind: kind, Text: text})
	}
	if err != nil {
		t.Fatalf("%s %.200s: %v", kind, text, err)
	}
	return m
}

// CheckClosed fails the test if c has more grammars in memory than open. A
// matcher closed at work is gone a moment later.
func CheckClosed(t testing.TB, c *grammar.Compiler, open int) {
	t.Helper()
	for wait := time.Microsecond; c.Open() > open; wait *= 2 {
		if wait > time.Second {
			t.Fatalf("%d grammars are in memory, want %d", c.Open(), open)
		}
		time.Sleep(wait)
	}
}
