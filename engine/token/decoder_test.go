package token

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"unicode/utf8"
)

// randomIDs mixes all ids with a few that are common in broken text: the first
// ones (special, byte tokens), one repeated, and some beyond the vocabulary.
func randomIDs(r *rand.Rand, size int) []int32 {
	ids := make([]int32, r.IntN(14))
	limits := []int{8, min(300, size), size, size, size + 3}
	limit := limits[r.IntN(len(limits))]
	for i := range ids {
		switch r.IntN(8) {
		case 0:
			limit = limits[r.IntN(len(limits))]
		case 1:
			if i > 0 {
				ids[i] = ids[i-1]
				continue
			}
		}
		ids[i] = int32(r.IntN(limit))
	}
	return ids
}

func compareWithLibrary(t *testing.T, tok *Tokenizer, rounds int) {
	t.Helper()
	r := rand.New(rand.NewPCG(1, 2))
	for range rounds {
		ids := randomIDs(r, tok.VocabSize())
		for _, skip := range []bool{false, true} {
			if got, want := tok.Decode(ids, skip), tok.decodeByLibrary(ids, skip); got != want {
				t.Fatalf("Decode(%v, %v) = %q, the library says %q", ids, skip, got, want)
			}
		}
	}
}

func TestTableAsLibrary(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			tok := load(t, kind)
			if byTable := tok.table.scheme != schemeLibrary; byTable != (kind != "t5" && kind != "wordpiece") {
				t.Fatalf("decodes by table: %v", byTable)
			}
			compareWithLibrary(t, tok, 5000)
		})
	}
}

// reference is the rule of Decoder's documentation, written as it reads, on the library alone.
type reference struct {
	tok  *Tokenizer
	ids  []int32
	read int
}

func newReference(tok *Tokenizer, prompt []int32) *reference {
	context := tok.context(prompt, promptContext)
	return &reference{tok, append([]int32(nil), context...), len(context)}
}

func (r *reference) append(id int32) string {
	r.ids = append(r.ids, id)
	before, after := r.tok.decodeByLibrary(r.ids[:r.read], false), r.tok.decodeByLibrary(r.ids, false)
	n := utf8.RuneCountInString(before)
	if utf8.RuneCountInString(after) <= n || strings.HasSuffix(after, replacement) {
		return ""
	}
	r.ids = r.ids[r.read:]
	r.read = len(r.ids)
	return string([]rune(after)[n:])
}

func TestDecoderAsReference(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			tok := load(t, kind)
			rounds := 3000
			if tok.table.scheme == schemeLibrary {
				rounds = 300
			}
			r := rand.New(rand.NewPCG(3, 4))
			for range rounds {
				prompt, ids := randomIDs(r, tok.VocabSize()), randomIDs(r, tok.VocabSize())
				d, ref := NewDecoder(tok, prompt), newReference(tok, prompt)
				at := r.IntN(len(ids) + 1) // where to look ahead from
				var peeked, came string
				for i, id := range ids {
					if i == at {
						peeked = string(d.Peek(nil, ids[i:]...))
					}
					got, want := string(d.Append(nil, id)), ref.append(id)
					if got != want {
						t.Fatalf("prompt %v, ids %v: piece %d is %q, want %q", prompt, ids, i, got, want)
					}
					if i >= at {
						came += got
					}
				}
				if peeked != came {
					t.Fatalf("prompt %v, ids %v: %q was to come from token %d on, came %q", prompt, ids, peeked, at, came)
				}
			}
		})
	}
}

func TestDecoderPieces(t *testing.T) {
	const held = ""
	for _, tt := range []struct {
		name, kind string
		prompt     []string // spellings
		ids        []string
		want       []string // a piece for each id, then Flush's
	}{
		{"words keep their spaces", "llama2", []string{"<s>", "▁the"}, []string{"▁the", "▁the"}, []string{" the", " the", ""}},
		{"first space is kept after a prompt", "llama2", []string{"<s>"}, []string{"▁the"}, []string{" the", ""}},
		{"first space is taken without one", "llama2", nil, []string{"▁", "▁the"}, []string{held, " the", ""}},
		{"special tokens as spelled", "llama2", []string{"<s>"}, []string{"▁the", "</s>"}, []string{" the", "</s>", ""}},
		{"a character in four bytes", "llama2", []string{"<s>"}, []string{"<0xF0>", "<0x9F>", "<0x98>", "<0x80>", "▁the"}, []string{held, held, held, "😀", " the", ""}},
		{"two characters in a run", "llama2", []string{"<s>"}, []string{"<0xC3>", "<0xA9>", "<0xC3>", "<0xA9>"}, []string{held, "é", held, "é", ""}},
		{"cut character is dropped", "llama2", []string{"<s>"}, []string{"▁the", "<0xF0>", "<0x9F>"}, []string{" the", held, held, ""}},
		{"cut run keeps its valid part", "llama2", []string{"<s>"}, []string{"<0xC3>", "<0xC3>", "<0xA9>"}, []string{held, held, held, strings.Repeat(replacement, 3)}},
		{"prompt ends in a run longer than the context", "llama2",
			[]string{"<0xF0>", "<0x9F>", "<0x98>", "<0x80>", "<0xF0>", "<0x9F>", "<0x98>", "<0x80>"},
			[]string{"<0xF0>", "<0x9F>", "<0x98>", "<0x80>"}, []string{held, held, held, "😀", ""}},
		{"byte-level character in pieces", "llama3", []string{"a"}, []string{"ð", "Ł", "ĺ", "Ģ", "a"}, []string{held, held, held, "😀", "a", ""}},
		{"invalid byte shows with the next text", "llama3", []string{"a"}, []string{"ð", "a"}, []string{held, replacement + "a", ""}},
		{"invalid byte at the end stays", "llama3", []string{"a"}, []string{"Ģ"}, []string{held, replacement}},
		{"only the cut character is dropped", "llama3", []string{"a"}, []string{"ð", "Ã"}, []string{held, held, replacement}},
		{"added token with a space", "llama3", []string{"a"}, []string{"<tool call>", "<|eot_id|>"}, []string{"<tool call>", "<|eot_id|>", ""}},
		{"prompt ends inside the character", "llama3", []string{"a", "Ã"}, []string{"©", "a"}, []string{held, "a", ""}},
		{"words by the library", "wordpiece", []string{"[CLS]", "the"}, []string{"the", "##s"}, []string{" the", "s", ""}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tok := load(t, tt.kind)
			id := func(spelling string) int32 {
				id, ok := tok.ID(spelling)
				if !ok {
					t.Fatalf("%s has no token %q", tt.kind, spelling)
				}
				return id
			}
			var prompt []int32
			for _, s := range tt.prompt {
				prompt = append(prompt, id(s))
			}
			d := NewDecoder(tok, prompt)
			var got []string
			for _, s := range tt.ids {
				got = append(got, string(d.Append(nil, id(s))))
			}
			got = append(got, string(d.Flush(nil)))
			if fmt.Sprintf("%q", got) != fmt.Sprintf("%q", tt.want) {
				t.Errorf("pieces %q, want %q", got, tt.want)
			}
			if again := d.Flush(nil); len(again) != 0 {
				t.Errorf("a second Flush gives %q", again)
			}
		})
	}
}

func TestGeneratedText(t *testing.T) {
	for _, tt := range []struct {
		name, kind  string
		prompt, ids []string
		skip        bool
		want        string
	}{
		{"leading space", "llama2", []string{"<s>", "▁the"}, []string{"▁the", "</s>"}, true, " the"},
		{"specials on demand", "llama2", []string{"<s>", "▁the"}, []string{"▁the", "</s>"}, false, " the</s>"},
		{"prompt's last token is skipped", "llama2", []string{"<s>"}, []string{"▁the"}, true, "the"},
		{"cut character", "llama3", []string{"a"}, []string{"Ġthe", "ð", "Ł"}, true, " the"},
		{"nothing but a cut character", "llama3", []string{"a"}, []string{"ð"}, true, ""},
		{"cut run keeps the valid part", "gemma", []string{"a"}, []string{"<0xC3>", "<0xA9>", "<0xC3>"}, true, "é"},
		{"run that begins in the prompt", "gemma", []string{"a", "<0xC3>", "<0xA9>"}, []string{"<0xC3>", "<0xA9>"}, true, "é"},
		{"nothing generated", "llama3", []string{"a"}, nil, true, ""},
		{"no prompt", "llama3", nil, []string{"Ġthe"}, true, " the"},
		{"by the library", "wordpiece", []string{"the"}, []string{"the", "##s", "[SEP]"}, true, " thes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tok := load(t, tt.kind)
			ids := func(spellings []string) (ids []int32) {
				for _, s := range spellings {
					id, ok := tok.ID(s)
					if !ok {
						t.Fatalf("%s has no token %q", tt.kind, s)
					}
					ids = append(ids, id)
				}
				return ids
			}
			if got := tok.GeneratedText(ids(tt.prompt), ids(tt.ids), tt.skip); got != tt.want {
				t.Errorf("GeneratedText = %q, want %q", got, tt.want)
			}
		})
	}
}

func TestDecoderAllocatesNothing(t *testing.T) {
	for _, kind := range []string{"llama3", "llama2"} {
		tok := load(t, kind)
		r := rand.New(rand.NewPCG(5, 6))
		ids := make([]int32, 512)
		for i := range ids {
			ids[i] = int32(r.IntN(tok.VocabSize()))
		}
		d := NewDecoder(tok, nil)
		buf := make([]byte, 0, 1<<16)
		step := func() {
			for _, id := range ids {
				buf = d.Append(buf[:0], id)
			}
		}
		step() // scratch memory grows once
		if n := testing.AllocsPerRun(10, step); n != 0 {
			t.Errorf("%s: %v allocations for %d ids", kind, n, len(ids))
		}
	}
}

// FuzzDecoder: pieces are valid UTF-8, and together with Flush they are the
// text of prompt and ids less the prompt's, without a cut character.
func FuzzDecoder(f *testing.F) {
	toks := make([]*Tokenizer, 4)
	for i, kind := range kinds[:4] {
		toks[i] = load(f, kind)
	}
	f.Add(uint8(0), []byte{1, 0, 2, 0}, []byte{200, 0, 130, 1, 7, 2})
	f.Add(uint8(1), []byte{}, []byte{0xC3, 0, 0xA9, 0, 0xC3, 0})
	f.Add(uint8(2), []byte{1, 0}, []byte{0xC6, 0, 0xAC, 0, 3, 1, 0xC6, 0})
	f.Add(uint8(3), []byte{0xC7, 0, 0xAD, 0}, []byte{0xC7, 0, 0xAD, 0, 0xC7, 0})
	f.Fuzz(func(t *testing.T, which uint8, promptBytes, idBytes []byte) {
		tok := toks[int(which)%len(toks)]
		ids := func(b []byte) (ids []int32) {
			for ; len(b) >= 2; b = b[2:] {
				ids = append(ids, int32((int(b[0])|int(b[1])<<8)%(tok.VocabSize()+1)))
			}
			return ids
		}
		prompt, generated := ids(promptBytes), ids(idBytes)
		d := NewDecoder(tok, prompt)
		var got strings.Builder
		for i := range len(generated) + 1 {
			var piece []byte
			if i < len(generated) {
				piece = d.Append(nil, generated[i])
			} else {
				piece = d.Flush(nil)
			}
			if !utf8.Valid(piece) {
				t.Fatalf("prompt %v, ids %v: piece %d is %q", prompt, generated, i, piece)
			}
			got.Write(piece)
		}
		before := tok.Decode(prompt, false)
		all := tok.decodeUncut(append(append([]int32(nil), prompt...), generated...), false)
		if tok.table.scheme == schemeByteFallback && strings.Contains(all, replacement) {
			return // the exception in Decoder's documentation
		}
		if want := string(addition([]byte(before), []byte(all))); got.String() != want {
			t.Fatalf("prompt %v, ids %v: pieces make %q, want %q", prompt, generated, got.String(), want)
		}
	})
}

func BenchmarkDecoderAppend(b *testing.B) {
	for _, kind := range []string{"llama3", "llama2", "wordpiece"} {
		b.Run(kind, func(b *testing.B) {
			tok := load(b, kind)
			ids, err := tok.Encode(strings.Repeat("The miller turns the wheel, größer 水車 😀. ", 20), false)
			if err != nil {
				b.Fatal(err)
			}
			d := NewDecoder(tok, ids[:10])
			buf := make([]byte, 0, 1<<12)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				buf = d.Append(buf[:0], ids[i%len(ids)])
			}
		})
	}
}

func BenchmarkEncode(b *testing.B) {
	text := strings.Repeat("The miller turns the wheel, it's old, 水車 😀. ", 100)
	for _, kind := range []string{"llama3", "llama2"} {
		b.Run(kind, func(b *testing.B) {
			tok := load(b, kind)
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := tok.Encode(text, true); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
