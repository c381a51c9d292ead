package gguf

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode/utf8"
)

// Types of tokens.
const (
	tokenNormal  = 1
	tokenUnknown = 2
	tokenControl = 3
	tokenUser    = 4 // matched as a whole, yet text
)

// maxTokens bounds a vocabulary, and maxTokenBytes a token whose merges are looked
// for; the largest in use have 262,144 tokens of up to some hundred bytes.
const (
	maxTokens     = 4 << 20
	maxTokenBytes = 1024
)

// tokenizerFile is tokenizer.json. The model comes last, as in those of the hub.
type tokenizerFile struct {
	Version       string       `json:"version"`
	Truncation    any          `json:"truncation"`
	Padding       any          `json:"padding"`
	AddedTokens   []addedToken `json:"added_tokens"`
	Normalizer    any          `json:"normalizer"`
	PreTokenizer  any          `json:"pre_tokenizer"`
	PostProcessor any          `json:"post_processor"`
	Decoder       any          `json:"decoder"`
	Model         bpe          `json:"model"`
}

type addedToken struct {
	ID         int    `json:"id"`
	Content    string `json:"content"`
	SingleWord bool   `json:"single_word"`
	LStrip     bool   `json:"lstrip"`
	RStrip     bool   `json:"rstrip"`
	Normalized bool   `json:"normalized"`
	Special    bool   `json:"special"`
}

// bpe is a model of byte pairs.
type bpe struct {
	Type         string         `json:"type"`
	Dropout      any            `json:"dropout"`
	Unknown      any            `json:"unk_token"`
	Prefix       any            `json:"continuing_subword_prefix"`
	Suffix       any            `json:"end_of_word_suffix"`
	FuseUnknown  bool           `json:"fuse_unk"`
	ByteFallback bool           `json:"byte_fallback"`
	IgnoreMerges bool           `json:"ignore_merges"`
	Vocab        map[string]int `json:"vocab"`
	Merges       [][2]string    `json:"merges"`
}

// vocabulary is what the metadata say of tokens.
type vocabulary struct {
	tokens []string
	kinds  []int64
	ids    map[string]int
}

// tokenizer makes tokenizer.json.
func (m *model) tokenizer() (any, error) {
	f, err := m.tokenizerFile()
	if err != nil {
		return nil, fmt.Errorf("%w; put a tokenizer.json beside the file", err)
	}
	return f, nil
}

func (m *model) tokenizerFile() (*tokenizerFile, error) {
	v, err := m.vocabulary()
	if err != nil {
		return nil, err
	}
	f := &tokenizerFile{Version: "1.0", AddedTokens: v.added(), Model: bpe{Type: "BPE", Vocab: v.ids}}
	switch kind := m.string("tokenizer.ggml.model"); kind {
	case "gpt2":
		err = m.byteLevel(f, v)
	case "llama":
		err = m.sentencePiece(f, v)
	case "gemma4":
		m.spaces(f, v, false)
		f.Model.Merges = merges(m.strings("tokenizer.ggml.merges"), v)
	default:
		err = fmt.Errorf("a tokenizer of type %q is not supported, only gpt2, llama and gemma4", kind)
	}
	f.PostProcessor = m.frame(v, f.PostProcessor)
	return f, err
}

func (m *model) string(key string) string {
	text, _ := m.values[key].(string)
	return text
}

func (m *model) strings(key string) []string {
	list, _ := m.values[key].([]string)
	return list
}

func (m *model) vocabulary() (*vocabulary, error) {
	v := &vocabulary{tokens: slices.Clone(m.strings("tokenizer.ggml.tokens")), ids: map[string]int{}}
	v.kinds, _ = m.values["tokenizer.ggml.token_type"].([]int64)
	switch n := len(v.tokens); {
	case n == 0:
		return v, fmt.Errorf("the metadata have no vocabulary")
	case n > maxTokens:
		return v, fmt.Errorf("a vocabulary of %d tokens, expected at most %d", n, maxTokens)
	case v.kinds != nil && len(v.kinds) < n:
		return v, fmt.Errorf("%d types of tokens for %d tokens", len(v.kinds), n)
	}
	for i, token := range v.tokens {
		if token == "" || !utf8.ValidString(token) {
			token = fmt.Sprintf("[EMPTY_%d]", i)
			v.tokens[i] = token
		}
		v.ids[token] = i
	}
	return v, nil
}

func (v *vocabulary) kind(id int) int64 {
	if v.kinds == nil {
		return tokenNormal
	}
	return v.kinds[id]
}

// added are the tokens that are matched as a whole.
func (v *vocabulary) added() []addedToken {
	list := []addedToken{}
	for id, token := range v.tokens {
		kind := v.kind(id)
		if kind != tokenControl && kind != tokenUser && kind != tokenUnknown || v.ids[token] != id {
			continue
		}
		list = append(list, addedToken{
			ID: id, Content: token, Special: kind != tokenUser,
			Normalized: strings.Contains(token, spaceMark), // else it is never found in text whose spaces are marks
		})
	}
	return list
}

// spaceMark stands for a space in SentencePiece's tokens.
const spaceMark = "▁"

// byteLevel is GPT-2's kind: letters stand for bytes, and regular expressions divide
// a text first.
func (m *model) byteLevel(f *tokenizerFile, v *vocabulary) error {
	name := cmp.Or(m.string("tokenizer.ggml.pre"), "default")
	pre, ok := splits[name]
	if !ok {
		return fmt.Errorf("the pre-tokenizer %q is not known", name)
	}
	list := m.strings("tokenizer.ggml.merges")
	if list == nil {
		return fmt.Errorf("the metadata have no merges")
	}
	f.Model.Merges, f.Model.IgnoreMerges = merges(list, v), pre.whole
	// A token begins with its space, as in the tokenizers of Llama 3 and Qwen.
	level := object{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false}
	steps := []any{}
	for _, pattern := range pre.patterns {
		steps = append(steps, object{"type": "Split", "pattern": object{"Regex": pattern}, "behavior": "Isolated", "invert": false})
	}
	f.PreTokenizer = object{"type": "Sequence", "pretokenizers": append(steps, level)}
	f.Decoder, f.PostProcessor = level, level
	if pre.composed {
		f.Normalizer = object{"type": "NFC"}
	}
	return nil
}

// spaces makes marks of spaces, one more in front of the text if prefix is true, and
// bytes of what the vocabulary lacks.
func (m *model) spaces(f *tokenizerFile, v *vocabulary, prefix bool) {
	replace := object{"type": "Replace", "pattern": object{"String": " "}, "content": spaceMark}
	decoders := []any{
		object{"type": "Replace", "pattern": object{"String": spaceMark}, "content": " "},
		object{"type": "ByteFallback"}, object{"type": "Fuse"},
	}
	f.Normalizer = replace
	if prefix {
		f.Normalizer = object{"type": "Sequence", "normalizers": []any{object{"type": "Prepend", "prepend": spaceMark}, replace}}
		decoders = append(decoders, object{"type": "Strip", "content": " ", "start": 1, "stop": 0})
	}
	f.Decoder = object{"type": "Sequence", "decoders": decoders}
	f.Model.FuseUnknown, f.Model.ByteFallback = true, true
	if id, ok := m.tokenID("unknown", v); ok {
		f.Model.Unknown = v.tokens[id]
	}
}

// sentencePiece is SentencePiece's kind of byte pairs: of two neighbours those are
// joined first that make the token with the best score.
func (m *model) sentencePiece(f *tokenizerFile, v *vocabulary) error {
	scores, _ := m.values["tokenizer.ggml.scores"].([]float64)
	if len(scores) < len(v.tokens) {
		return fmt.Errorf("%d scores for %d tokens", len(scores), len(v.tokens))
	}
	prefix := true
	if v, ok := m.values["tokenizer.ggml.add_space_prefix"].(bool); ok {
		prefix = v
	}
	m.spaces(f, v, prefix)
	type merge struct {
		score       float64
		left, right int
	}
	var all []merge
	for id, token := range v.tokens {
		if kind := v.kind(id); kind != tokenNormal && kind != tokenUser || v.ids[token] != id || len(token) > maxTokenBytes || math.IsNaN(scores[id]) {
			continue
		}
		for at := range token {
			left, ok := v.ids[token[:at]]
			if !ok {
				continue
			}
			if right, ok := v.ids[token[at:]]; ok {
				all = append(all, merge{scores[id], left, right})
			}
		}
	}
	slices.SortStableFunc(all, func(a, b merge) int {
		return cmp.Or(cmp.Compare(b.score, a.score), cmp.Compare(a.left, b.left), cmp.Compare(a.right, b.right))
	})
	for _, one := range all {
		f.Model.Merges = append(f.Model.Merges, [2]string{v.tokens[one.left], v.tokens[one.right]})
	}
	return nil
}

// merges divides merges into their halves. Those of tokens that the vocabulary lacks
// are left out: they never apply.
func merges(list []string, v *vocabulary) [][2]string {
	pairs := make([][2]string, 0, len(list))
	for _, merge := range list {
		if merge == "" {
			continue
		}
		// The first half may begin with a space, but not be one.
		at := strings.IndexByte(merge[1:], ' ') + 1
		if at == 0 {
			continue
		}
		left, right := merge[:at], merge[at+1:]
		_, hasLeft := v.ids[left]
		_, hasRight := v.ids[right]
		if _, ok := v.ids[left+right]; ok && hasLeft && hasRight {
			pairs = append(pairs, [2]string{left, right})
		}
	}
	return pairs
}

// tokenID is the id of a token that the metadata name.
func (m *model) tokenID(name string, v *vocabulary) (int, bool) {
	id, ok := m.values["tokenizer.ggml."+name+"_token_id"].(int64)
	if !ok || id < 0 || id >= int64(len(v.tokens)) {
		return 0, false
	}
	return int(id), true
}

// adds reports whether a token is put at an end of a text.
func (m *model) adds(name string) bool {
	if v, ok := m.values["tokenizer.ggml.add_"+name+"_token"].(bool); ok {
		return v
	}
	if name != "bos" {
		return false
	}
	switch m.string("tokenizer.ggml.model") {
	case "llama", "gemma4":
		return true
	}
	return splits[m.string("tokenizer.ggml.pre")].begins
}

// frame puts the tokens that begin and end a text around it, after step.
func (m *model) frame(v *vocabulary, step any) any {
	special := object{}
	text := func(name string, number int) []any {
		sequence := []any{object{"Sequence": object{"id": name, "type_id": number}}}
		for _, end := range []string{"bos", "eos"} {
			id, ok := m.tokenID(end, v)
			if !ok || !m.adds(end) {
				continue
			}
			token := v.tokens[id]
			special[token] = object{"id": token, "ids": []int{id}, "tokens": []string{token}}
			one := []any{object{"SpecialToken": object{"id": token, "type_id": number}}}
			if end == "bos" {
				sequence = append(one, sequence...)
			} else {
				sequence = append(sequence, one...)
			}
		}
		return sequence
	}
	single, pair := text("A", 0), append(text("A", 0), text("B", 1)...)
	if len(special) == 0 {
		return step
	}
	template := object{"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": special}
	if step == nil {
		return template
	}
	return object{"type": "Sequence", "processors": []any{step, template}}
}

// tokenizerConfig makes tokenizer_config.json: the chat templates and the names of
// tokens.
func (m *model) tokenizerConfig() (any, error) {
	c := object{}
	v, _ := m.vocabulary() //nolint:errcheck // said about tokenizer.json
	for _, name := range []string{"bos", "eos", "unk", "pad"} {
		if id, ok := m.tokenID(map[string]string{"unk": "unknown", "pad": "padding"}[name], v); ok {
			c[name+"_token"] = v.tokens[id]
		} else if id, ok := m.tokenID(name, v); ok {
			c[name+"_token"] = v.tokens[id]
		}
	}
	const key = "tokenizer.chat_template"
	if template, ok := m.values[key].(string); ok {
		list := []any{object{"name": "default", "template": template}}
		for other, text := range m.values {
			if name, found := strings.CutPrefix(other, key+"."); found && name != "default" {
				if text, ok := text.(string); ok {
					list = append(list, object{"name": name, "template": text})
				}
			}
		}
		if c["chat_template"] = template; len(list) > 1 {
			c["chat_template"] = list
		}
	}
	return c, nil
}

// endings are spellings of tokens that end a turn, for files that do not say which
// does.
var endings = []string{
	"<|eot_id|>", "<|eom_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<end_of_turn>", "<turn|>", "<|endoftext|>", "<|end_of_text|>",
	"<|END_OF_TURN_TOKEN|>", "<|eot|>", "<|eom|>", "[|endofturn|]", "<｜end▁of▁sentence｜>", "<end_of_utterance>", "<EOT>", "[EOT]",
}

// generation makes generation_config.json: all tokens that end an answer, and how its
// makers sample.
func (m *model) generation() (any, error) {
	g := object{}
	v, _ := m.vocabulary() //nolint:errcheck // said about tokenizer.json
	var ends []int
	add := func(id int) {
		if !slices.Contains(ends, id) {
			ends = append(ends, id)
		}
	}
	for _, name := range []string{"eos", "eot", "eom"} {
		if id, ok := m.tokenID(name, v); ok {
			add(id)
		}
	}
	for _, token := range endings {
		if id, ok := v.ids[token]; ok && (v.kind(id) == tokenControl || v.kind(id) == tokenUser) {
			add(id)
		}
	}
	if len(ends) > 0 {
		g["eos_token_id"] = ends
	}
	if id, ok := m.tokenID("bos", v); ok {
		g["bos_token_id"] = id
	}
	for key, from := range map[string]string{"temperature": "temp", "top_k": "top_k", "top_p": "top_p", "min_p": "min_p", "repetition_penalty": "penalty_repeat"} {
		switch n := m.values["general.sampling."+from].(type) {
		case float64:
			g[key] = float(n)
		case int64:
			g[key] = n
		}
	}
	return g, nil
}
