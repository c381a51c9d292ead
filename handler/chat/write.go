package chat

import (
	"bytes"
	"encoding/json"
	"regexp"
	"strconv"
	"strings"
)

// write writes calls as the model does, for templates that do not show them.
// It reports false for arguments that cannot be written so.
func (f *Format) write(calls []Call) (string, bool) {
	form := &f.Calls
	if form.Begin == "" && form.Open == "" || len(calls) == 0 {
		return "", false
	}
	var b strings.Builder
	b.WriteString(form.Open)
	for i, call := range calls {
		if i > 0 {
			b.WriteString(form.Between)
		}
		args := strings.TrimSpace(call.Arguments)
		if args == "" {
			args = "{}"
		}
		if !isObject([]byte(args)) {
			return "", false
		}
		id := strconv.Itoa(i)
		if form.IDs != "" && form.IDs[len(form.IDs)-1] != '}' || strings.HasSuffix(form.IDs, "{9}") {
			w := contextWriter{habits: habits{shortIDs: true}}
			id = w.id("call_" + id)
		}
		text := strings.NewReplacer("{id}", id)
		b.WriteString(text.Replace(form.Begin) + call.Name + text.Replace(form.Middle))
		form.writeArguments(&b, json.RawMessage(args))
		b.WriteString(form.End)
	}
	b.WriteString(form.Close)
	return b.String(), true
}

func (f *CallForm) writeArguments(b *strings.Builder, args json.RawMessage) {
	switch f.Arguments {
	case JSONArguments:
		b.Write(args)
	case GemmaArguments:
		writeLiteral(b, args, true)
	case TagArguments:
		for _, m := range objectMembers(args) {
			text, isString := scalar(m.value)
			middle := f.Tags.Middle
			if isString && f.Tags.String != "" {
				middle = f.Tags.String
			}
			b.WriteString(f.Tags.Begin + m.key + middle + text + f.Tags.End)
		}
	case PythonArguments:
		for i, m := range objectMembers(args) {
			if i > 0 {
				b.WriteString(", ")
			}
			b.WriteString(m.key + "=")
			writeLiteral(b, m.value, false)
		}
		b.WriteString(")")
	}
}

var word = regexp.MustCompile(`^[\p{L}\p{N}_]+$`)

// gemmaKey writes the name of a member in Gemma's notation: in quotes only if
// it must be.
func gemmaKey(name string) string {
	if word.MatchString(name) {
		return name
	}
	return quoted(name)
}

// writeLiteral writes a value in the notation of Python or of Gemma.
func writeLiteral(b *strings.Builder, raw json.RawMessage, gemma bool) {
	raw = bytes.TrimSpace(raw)
	switch raw[0] {
	case '{':
		b.WriteByte('{')
		for i, m := range objectMembers(raw) {
			switch {
			case gemma:
				b.WriteString(strings.Repeat(",", min(i, 1)) + gemmaKey(m.key) + ":")
			default:
				b.WriteString(strings.Repeat(", ", min(i, 1)) + quoted(m.key) + ": ")
			}
			writeLiteral(b, m.value, gemma)
		}
		b.WriteByte('}')
	case '[':
		var list []json.RawMessage
		_ = json.Unmarshal(raw, &list) // it was read before
		b.WriteByte('[')
		for i, v := range list {
			switch {
			case i > 0 && gemma:
				b.WriteString(",")
			case i > 0:
				b.WriteString(", ")
			}
			writeLiteral(b, v, gemma)
		}
		b.WriteByte(']')
	case '"':
		text, _ := scalar(raw)
		if gemma {
			b.WriteString(gemmaQuote + text + gemmaQuote)
		} else {
			b.WriteString(quoted(text))
		}
	default:
		text := string(raw)
		if python := map[string]string{"true": "True", "false": "False", "null": "None"}[text]; python != "" && !gemma {
			text = python
		}
		b.WriteString(text)
	}
}
