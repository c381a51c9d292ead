package token

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
)

// mostGrowth is how many times as long the rules of a tokenizer.json may make a
// text. Those in use stay below 150, by this estimate: 33 for a table of
// compatibility characters, times 4 for runs of spaces.
const mostGrowth = 256

// rule is what is read of a normalizer, a pre-tokenizer or a decoder.
type rule struct {
	Type          string
	Normalizers   []rule
	Pretokenizers []rule
	Decoders      []rule
	Pattern       struct {
		String string
		Regex  *string
	}
	Content string // what matches of Pattern become
	Table   string `json:"precompiled_charsmap"` // base64
}

// checkGrowth refuses a tokenizer.json whose rules multiply a text: a chain of
// replacements that each double it makes gigabytes of a word.
func checkGrowth(tokenizerJSON []byte) error {
	rules, err := readRules(tokenizerJSON)
	if err != nil {
		return nil //nolint:nilerr // whoever uses the file says what is wrong with it
	}
	for name, times := range map[string]float64{
		"normalizer": rules["normalizer"].growth() * rules["pre_tokenizer"].growth(),
		"decoder":    rules["decoder"].growth(),
	} {
		if times > mostGrowth {
			return fmt.Errorf("its %s may make a text %.0f times as long, the limit is %d", name, times, mostGrowth)
		}
	}
	return nil
}

// readRules reads the rules of a tokenizer.json by the names of their members. The
// model, which is nearly all of the file, is passed over.
func readRules(tokenizerJSON []byte) (map[string]*rule, error) {
	rules := map[string]*rule{"normalizer": {}, "pre_tokenizer": {}, "decoder": {}}
	d := json.NewDecoder(bytes.NewReader(tokenizerJSON))
	if _, err := d.Token(); err != nil {
		return nil, err
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return nil, err
		}
		key, _ := name.(string)
		if r := rules[key]; r != nil {
			*r = rule{}
			err = d.Decode(r)
		} else {
			if key == "model" {
				d, tokenizerJSON = withoutValue(tokenizerJSON[d.InputOffset():])
			}
			var other json.RawMessage
			err = d.Decode(&other)
		}
		if err != nil {
			return nil, err
		}
	}
	return rules, nil
}

// withoutValue returns a decoder of what follows the name of an object's member, and its
// text, with null in place of the value if that is an object: several times as fast as a
// decoder, which looks at each byte twice.
func withoutValue(text []byte) (*json.Decoder, []byte) {
	after := bytes.TrimLeft(text, ": \t\r\n")
	if len(after) > 0 && after[0] == '{' {
		after = slices.Concat([]byte("null"), after[objectLen(after):])
	}
	text = slices.Concat([]byte(`{"":`), after)
	d := json.NewDecoder(bytes.NewReader(text))
	_, _ = d.Token()
	_, _ = d.Token()
	return d, text
}

// objectLen returns the length of the JSON object that text begins with.
func objectLen(text []byte) int {
	depth, quoted := 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\\': // in a string, like the byte after it
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{':
			depth++
		case c == '}':
			if depth--; depth == 0 {
				return i + 1
			}
		}
	}
	return len(text)
}

// growth is a bound on how many times as long the rule makes a text.
func (r *rule) growth() float64 {
	times := 1.0
	for _, list := range [][]rule{r.Normalizers, r.Pretokenizers, r.Decoders} {
		for i := range list {
			times *= list[i].growth()
		}
	}
	switch {
	case r.Type == "Replace" && r.Pattern.Regex != nil:
		times *= float64(1 + len(r.Content)) // which may match between any two characters
	case r.Type == "Replace" && r.Pattern.String != "":
		times *= max(1, float64(len(r.Content))/float64(len(r.Pattern.String)))
	case r.Type == "Replace":
		times *= float64(1 + len(r.Content))
	case r.Type == "Precompiled":
		times *= max(1, float64(longestOfTable(r.Table)))
	}
	return times
}

// longestOfTable is the longest text that a character becomes by a compiled
// table of SentencePiece's: the size of an index, the index, and texts that end
// in zero bytes.
func longestOfTable(encoded string) (longest int) {
	table, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil || len(table) < 4 {
		return 0 // the library refuses it
	}
	index := binary.LittleEndian.Uint32(table)
	if table = table[4:]; int64(index) > int64(len(table)) {
		return 0
	}
	for text := range bytes.SplitSeq(table[index:], []byte{0}) {
		longest = max(longest, len(text))
	}
	return longest
}
