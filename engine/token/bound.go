package token

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
)

// MinTokens returns how many tokens a text of so many bytes has at least; 0 if
// that is not known, because this tokenizer may drop or shorten text.
func (t *Tokenizer) MinTokens(bytes int) int {
	if t.longest == 0 {
		return 0
	}
	return (bytes + t.longest - 1) / t.longest
}

// MaxBytes returns how many bytes the text of so many tokens has at most, and
// whether that is known.
func (t *Tokenizer) MaxBytes(tokens int) (bytes int, known bool) {
	return t.longest * tokens, t.longest > 0
}

// What encoding takes for each byte of a text: of the piece that the library has
// before it, and of the whole, for the tokens.
const (
	bytesPerPieceByte = 300
	bytesPerByte      = 48
	pieceBytes        = 32 << 10 // as in engine/native
)

// Cost returns how many bytes of memory encoding text takes while it runs, at
// most. A byte of it costs at least MinCost.
func (t *Tokenizer) Cost(text string) int64 {
	piece := len(text)
	if t.cuts {
		piece = min(piece, max(pieceBytes, longestPiece(text)))
	}
	return bytesPerByte*int64(len(text)) + bytesPerPieceByte*int64(piece)
}

// MinCost is what a byte of text costs at least; see Cost.
const MinCost = bytesPerByte

// longestPiece returns the longest part of a text between two places where it
// may be cut: a letter before a space and a letter after.
func longestPiece(text string) (longest int) {
	from := 0
	for at := 1; at < len(text)-1; at++ {
		n := strings.IndexByte(text[at:len(text)-1], ' ')
		if n < 0 {
			break
		}
		at += n
		if isLetter(text[at-1]) && isLetter(text[at+1]) {
			longest = max(longest, at-from)
			from = at
		}
	}
	return max(longest, len(text)-from)
}

func isLetter(b byte) bool { return 'a' <= b|0x20 && b|0x20 <= 'z' }

// findCuts reports whether the library encodes long texts in pieces. Only what
// engine/native does not refuse to cut is said to be so.
func (p *pipeline) findCuts() bool {
	known := p.Normalizer.Type == "" || p.Normalizer.Type == "NFC"
	return known && p.PreTokenizer.stopsAtSpaces(new(bool)) && !p.PostProcessor.trims() &&
		!slices.ContainsFunc(p.Added, func(a addedToken) bool {
			return a.LStrip || a.RStrip || a.SingleWord || strings.Contains(a.Content, " ")
		})
}

// stopsAtSpaces reports whether a pre-tokenizer is one of those in use that cut
// before a space between letters, made of known parts: among them bytes.
func (s textStep) stopsAtSpaces(bytes *bool) bool {
	switch s.Type {
	case "Sequence":
		return !slices.ContainsFunc(s.PreTokenizers, func(s textStep) bool { return !s.stopsAtSpaces(bytes) }) && *bytes
	case "ByteLevel":
		*bytes = true
		return !s.AddPrefixSpace
	case "Digits":
		return true
	case "Split":
		var pattern struct{ Regex string }
		return json.Unmarshal(s.Pattern, &pattern) == nil && s.Behavior == "Isolated" && strings.Contains(pattern.Regex, `?\p{L}+`) && !strings.Contains(pattern.Regex, "(?<")
	}
	return false
}

// trims reports whether a post-processor moves the places of tokens.
func (s textStep) trims() bool {
	return s.TrimOffsets || slices.ContainsFunc(s.Processors, textStep.trims)
}

// findLongest returns the most bytes of a text that become one token. It is 0
// unless every part of the tokenizer is known to keep all text: each byte that
// comes in is in the text of a token that comes out.
func (t *Tokenizer) findLongest(tokenizerJSON []byte) int {
	spec, ok := readPipeline(tokenizerJSON)
	t.cuts = ok && spec.findCuts()
	if !ok || spec.Model.Type != "BPE" || spec.Model.Prefix != "" || spec.Model.Suffix != "" {
		return 0
	}
	for _, added := range spec.Added {
		if added.LStrip || added.RStrip { // takes any number of spaces in
			return 0
		}
	}
	shrinks, known := spec.Normalizer.shrinks()
	if !known || !spec.PreTokenizer.keepsText() {
		return 0
	}
	byteLevel := spec.Normalizer.has("ByteLevel") || spec.PreTokenizer.has("ByteLevel")
	longest := 0
	for id := range t.vocabulary.Len() {
		n := len(t.vocabulary.Spelling(id))
		if byteLevel {
			n = len(t.table.bytes(int32(id)))
		}
		longest = max(longest, n)
	}
	switch {
	case byteLevel && t.table.scheme == schemeByteLevel && t.hasAllBytes(byteLetter):
	case !byteLevel && spec.Model.ByteFallback && t.hasAllBytes(fallbackName):
	default:
		return 0 // letters that the vocabulary lacks are dropped, or one token together
	}
	return longest * shrinks
}

// hasAllBytes reports whether each byte has a token of its own.
func (t *Tokenizer) hasAllBytes(name func(byte) string) bool {
	for b := range 256 {
		if _, ok := t.ID(name(byte(b))); !ok {
			return false
		}
	}
	return true
}

func byteLetter(b byte) string { return string(rune(slices.Index(byteOfLetter, int16(b)))) }

func fallbackName(b byte) string {
	const digits = "0123456789ABCDEF"
	return string([]byte{'<', '0', 'x', digits[b>>4], digits[b&15], '>'})
}

// pipeline is what is read of a tokenizer.json to know what it does to a text.
type pipeline struct {
	Added         []addedToken
	Normalizer    textStep
	PreTokenizer  textStep
	PostProcessor textStep
	Model         struct {
		Type, Prefix, Suffix string
		ByteFallback         bool
	}
}

type addedToken struct {
	Content    string `json:"content"`
	LStrip     bool   `json:"lstrip"`
	RStrip     bool   `json:"rstrip"`
	SingleWord bool   `json:"single_word"`
}

// textStep is a normalizer, pre-tokenizer or post-processor, or several in a sequence; Type is
// "" for none.
type textStep struct {
	Type          string          `json:"type"`
	Normalizers   []textStep      `json:"normalizers"`
	PreTokenizers []textStep      `json:"pretokenizers"`
	Pattern       json.RawMessage `json:"pattern"`  // Replace, Split
	Content       string          `json:"content"`  // Replace
	Behavior      string          `json:"behavior"` // Split, Punctuation
	Processors    []textStep      `json:"processors"`

	AddPrefixSpace bool `json:"add_prefix_space"` // ByteLevel
	TrimOffsets    bool `json:"trim_offsets"`     // ByteLevel as a post-processor
}

func (s textStep) steps() []textStep { return append(s.Normalizers, s.PreTokenizers...) }

func (s textStep) has(kind string) bool {
	return s.Type == kind || slices.ContainsFunc(s.steps(), func(s textStep) bool { return s.has(kind) })
}

// shrinks returns how many bytes become one at most, and whether that is known.
func (s textStep) shrinks() (times int, known bool) {
	switch s.Type {
	case "", "ByteLevel", "Prepend":
		return 1, true
	case "NFC":
		return 3, true // three letters of Hangul, or the Kelvin sign that becomes K
	case "Replace":
		var pattern struct{ String string }
		err := json.Unmarshal(s.Pattern, &pattern)
		return 1, err == nil && pattern.String != "" && len(s.Content) >= len(pattern.String)
	case "Sequence":
		times = 1
		for _, step := range s.Normalizers {
			n, known := step.shrinks()
			if !known {
				return 0, false
			}
			times *= n
		}
		return times, true
	}
	return 0, false
}

// keepsText reports whether a pre-tokenizer is known to drop nothing.
func (s textStep) keepsText() bool {
	switch s.Type {
	case "", "ByteLevel", "Metaspace", "Digits":
		return true
	case "Split":
		return s.Behavior == "Isolated" || s.Behavior == "Contiguous" || strings.HasPrefix(s.Behavior, "MergedWith")
	case "Sequence":
		return !slices.ContainsFunc(s.PreTokenizers, func(s textStep) bool { return !s.keepsText() })
	}
	return false
}

// readPipeline reads a tokenizer.json up to its vocabulary, which is by far the
// most of it and stands last in every file that the library writes. It reports
// whether all that has to be known came before.
func readPipeline(tokenizerJSON []byte) (p pipeline, ok bool) {
	d := json.NewDecoder(bytes.NewReader(tokenizerJSON))
	seen := map[string]bool{}
	object := func(value func(name string) (more bool)) bool {
		if open, err := d.Token(); err != nil || open != json.Delim('{') {
			return false
		}
		for d.More() {
			name, err := d.Token()
			if err != nil {
				return false
			}
			seen[name.(string)] = true
			if !value(name.(string)) {
				return false
			}
		}
		return true
	}
	into := func(v any) bool { return d.Decode(v) == nil }
	var skipped json.RawMessage
	object(func(name string) bool {
		switch name {
		case "added_tokens":
			return into(&p.Added)
		case "normalizer":
			return into(&p.Normalizer)
		case "pre_tokenizer":
			return into(&p.PreTokenizer)
		case "post_processor":
			return into(&p.PostProcessor)
		case "model":
			return object(func(name string) bool {
				switch name {
				case "type":
					return into(&p.Model.Type)
				case "continuing_subword_prefix":
					return into(&p.Model.Prefix)
				case "end_of_word_suffix":
					return into(&p.Model.Suffix)
				case "byte_fallback":
					return into(&p.Model.ByteFallback)
				case "vocab", "merges":
					return false
				}
				return into(&skipped)
			})
		}
		return into(&skipped)
	})
	for _, name := range []string{"added_tokens", "normalizer", "pre_tokenizer", "post_processor", "type", "byte_fallback"} {
		if !seen[name] {
			return p, false
		}
	}
	return p, true
}
