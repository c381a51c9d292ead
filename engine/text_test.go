package engine

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/millrace-ai/millrace/engine/stop"
)

// letters spells id n as the n-th word; a word in <> is special, an empty one
// completes no character.
type letters []string

func (l letters) Append(dst []byte, id int32) []byte { return append(dst, l[id]...) }
func (l letters) Peek(dst []byte, ids ...int32) []byte {
	for _, id := range ids {
		dst = l.Append(dst, id)
	}
	return dst
}
func (l letters) Flush(dst []byte) []byte { return append(dst, "~"...) }
func (l letters) IsSpecial(id int32) bool { return strings.HasPrefix(l[id], "<") }

// read takes all pieces and joins them with bars; a last piece ends in a dot.
func read(t *testing.T, x *Text) (pieces string, err error) {
	t.Helper()
	for {
		got, err := x.Next(context.Background())
		if err != nil {
			return pieces, err
		}
		for _, p := range got {
			pieces += string(p.Text)
			if p.Last {
				pieces += "."
			}
			pieces += "|"
		}
	}
}

func TestText(t *testing.T) {
	for _, tt := range []struct {
		name   string
		words  letters
		stops  []string
		end    FinishReason
		pieces string // flushed text is ~
		text   string
		finish FinishReason
		tokens int
	}{
		{"length", letters{"a", " b"}, nil, FinishLength, "a| b~.|", "a b~", FinishLength, 2},
		{"an end token is shown, not generated", letters{"a", "<e>"}, nil, FinishEOS, "a|<e>~.|", "a", FinishEOS, 2},
		{"a token without text", letters{"a", "", "😀"}, nil, FinishLength, "a||😀~.|", "a😀~", FinishLength, 3},
		{"stop string within a token", letters{"a", "b. c", "d"}, []string{"."}, FinishLength, "a|b..|", "ab.", FinishStop, 2},
		{"stop string across tokens", letters{"a", "b", "c", "d"}, []string{"bc"}, FinishLength, "a|b|c.|", "abc", FinishStop, 3},
		{"stop string with the last token", letters{"a", "b"}, []string{"b"}, FinishLength, "a|b.|", "ab", FinishStop, 2},
		{"stop string beside a special token", letters{"a", "<x>", "b"}, []string{"a<x>b"}, FinishLength, "a|<x>|b.|", "ab", FinishStop, 3},
		{"stop string is a special token", letters{"a", "<x>", "b"}, []string{"<x>"}, FinishLength, "a|<x>.|", "a", FinishStop, 2},
		{"stop string is the end token", letters{"a", "<e>"}, []string{"<e>"}, FinishEOS, "a|<e>~.|", "a", FinishEOS, 2},
		{"beginning of a stop string at the end", letters{"a", "b"}, []string{"bc"}, FinishLength, "a|b~.|", "ab~", FinishLength, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, together := range []bool{true, false} {
				s := NewStreamWriter(len(tt.words))
				var tokens []Token
				for id := range tt.words {
					tokens = append(tokens, Token{ID: int32(id)})
				}
				var x Text
				x.Reset(s.Stream(), tt.words, tt.words, stop.New(tt.stops))
				if together {
					s.End(tt.end, nil, tokens...)
				} else {
					go func() {
						for _, token := range tokens[:len(tokens)-1] {
							s.Emit(token)
						}
						s.End(tt.end, nil, tokens[len(tokens)-1])
					}()
				}
				pieces, err := read(t, &x)
				if err != io.EOF || pieces != tt.pieces || string(x.Generated()) != tt.text || x.Finish() != tt.finish || x.Tokens() != tt.tokens {
					t.Errorf("together %v: %q, text %q, %v, %d tokens (%v); want %q, %q, %v, %d",
						together, pieces, x.Generated(), x.Finish(), x.Tokens(), err, tt.pieces, tt.text, tt.finish, tt.tokens)
				}
				if closed := s.Closed(); closed != (tt.finish == FinishStop) {
					t.Errorf("together %v: stream closed: %v", together, closed)
				}
			}
		})
	}
}

// TestStopAfter looks for stop strings only after the first tokens; what is in
// them begins none, and the next text is free of the bound.
func TestStopAfter(t *testing.T) {
	words := letters{"a", "b", "c", "b", "c", "d"}
	var x Text
	for _, tt := range []struct {
		after int
		want  string
	}{{1, "a|b|c.|"}, {2, "a|b|c|b|c.|"}, {4, "a|b|c|b|c|d~.|"}, {0, "a|b|c.|"}} {
		s := NewStreamWriter(len(words))
		x.Reset(s.Stream(), words, words, stop.New([]string{"bc"}))
		if tt.after > 0 {
			x.StopAfter(tt.after)
		}
		for id := range words[:len(words)-1] {
			s.Emit(Token{ID: int32(id)})
		}
		s.End(FinishLength, nil, Token{ID: int32(len(words) - 1)})
		if got, err := read(t, &x); err != io.EOF || got != tt.want {
			t.Errorf("after %d: %q (%v), want %q", tt.after, got, err, tt.want)
		}
	}
}

func TestTextOfFailure(t *testing.T) {
	s := NewStreamWriter(3)
	failure := &Error{Kind: Failed, Msg: "no"}
	s.End(NotFinished, failure, Token{ID: 0})
	var x Text
	x.Reset(s.Stream(), letters{"a"}, letters{"a"}, nil)
	if pieces, err := read(t, &x); pieces != "a|" || !errors.Is(err, failure) {
		t.Errorf("%q, %v; want one piece that is not the last, and the failure", pieces, err)
	}
}

func TestTextWaits(t *testing.T) {
	s := NewStreamWriter(3)
	var x Text
	x.Reset(s.Stream(), letters{"a"}, letters{"a"}, nil)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	var e *Error
	if _, err := x.Next(ctx); !errors.As(err, &e) || e.Kind != Cancelled {
		t.Errorf("%v, want cancelled", err)
	}
	s.End(FinishLength, nil, Token{ID: 0})
	if pieces, err := read(t, &x); pieces != "a~.|" || err != io.EOF {
		t.Errorf("after a wait that ended: %q, %v", pieces, err)
	}
}
