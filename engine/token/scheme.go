package token

import (
	"encoding/json"
	"slices"
	"unicode/utf8"
)

// decoderSpec is the decoder part of a tokenizer.json: the fields of the kinds that the table knows.
type decoderSpec struct {
	Type     string        `json:"type"`
	Decoders []decoderSpec `json:"decoders"` // Sequence

	Pattern json.RawMessage `json:"pattern"` // Replace
	Content string          `json:"content"` // Replace, Strip
	Start   int             `json:"start"`   // Strip
	Stop    int             `json:"stop"`    // Strip
}

// scheme returns how to decode, which spelling stands for a space ("" for
// none), and whether one space is taken off the beginning of a text.
func (d decoderSpec) scheme() (s scheme, space string, stripSpace bool) {
	steps := d.steps()
	if len(steps) == 1 && steps[0].Type == "ByteLevel" {
		return schemeByteLevel, "", false
	}
	if len(steps) > 0 && steps[0].Type == "Replace" {
		var pattern struct{ String string }
		if json.Unmarshal(steps[0].Pattern, &pattern) != nil || pattern.String == "" || steps[0].Content != " " {
			return schemeLibrary, "", false
		}
		space, steps = pattern.String, steps[1:]
	}
	if len(steps) == 3 && steps[2].Type == "Strip" {
		if strip := steps[2]; strip.Content != " " || strip.Start != 1 || strip.Stop != 0 {
			return schemeLibrary, "", false
		}
		stripSpace, steps = true, steps[:2]
	}
	if len(steps) == 2 && steps[0].Type == "ByteFallback" && steps[1].Type == "Fuse" {
		return schemeByteFallback, space, stripSpace
	}
	return schemeLibrary, "", false
}

// steps lists the decoders in order, those of nested sequences too.
func (d decoderSpec) steps() []decoderSpec {
	if d.Type != "Sequence" {
		return []decoderSpec{d}
	}
	var steps []decoderSpec
	for _, inner := range d.Decoders {
		steps = append(steps, inner.steps()...)
	}
	return steps
}

// byteOfLetter is GPT-2's table of the letters that stand for bytes: a
// printable Latin-1 letter for itself, U+0100 and on for the others in order.
// Other letters have -1. (openai/gpt-2, encoder.py, bytes_to_unicode.)
var byteOfLetter = func() []int16 {
	letters := slices.Repeat([]int16{-1}, 0x144)
	next := 0x100
	for b := range 0x100 {
		if b >= '!' && b <= '~' || b >= 0xA1 && b <= 0xAC || b >= 0xAE {
			letters[b] = int16(b)
		} else {
			letters[next] = int16(b)
			next++
		}
	}
	return letters
}()

// appendByteLevel appends the bytes that spelling stands for. A spelling with
// any letter that stands for no byte is an added token's, and is text.
func appendByteLevel(dst []byte, spelling string) []byte {
	start := len(dst)
	for _, r := range spelling {
		if r == utf8.RuneError || int(r) >= len(byteOfLetter) || byteOfLetter[r] < 0 {
			return append(dst[:start], spelling...)
		}
		dst = append(dst, byte(byteOfLetter[r]))
	}
	return dst
}
