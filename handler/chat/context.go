package chat

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"slices"
)

// contextWriter writes the variables of a template as JSON, in the shapes that
// the template expects.
type contextWriter struct {
	habits
	images    []Image // in order
	tagImages bool    // in texts, instead of Markdown
	out       []byte
}

// context returns the variables, in transformers' order. tokens are the
// special tokens as members of an object.
func (w *contextWriter) context(messages []Message, r Request, tokens []byte, generate bool) []byte {
	w.add(`{"messages": [`)
	for i, m := range messages {
		if i > 0 {
			w.add(", ")
		}
		w.message(m)
	}
	w.add(`], "tools": `)
	if len(r.Tools) > 0 {
		w.out = append(w.out, specifications(r.Tools)...)
	} else {
		w.add("null")
	}
	if w.xmlTools && len(r.Tools) > 0 {
		w.add(`, "xml_tools": `)
		w.out = append(w.out, specifications(r.Tools)...)
	}
	w.add(`, "documents": null, "add_generation_prompt": `)
	if generate {
		w.add("true")
	} else {
		w.add("false")
	}
	w.out = append(w.out, tokens...)
	if r.Guideline != nil {
		w.text(`, "guideline": `, *r.Guideline)
	}
	if more := bytes.TrimSpace(r.Variables); isObject(more) && len(bytes.TrimSpace(more[1:])) > 1 {
		w.add(", ")
		w.out = append(w.out, more[1:len(more)-1]...) // the last of two members of one name counts
	}
	w.add("}")
	return w.out
}

func (w *contextWriter) add(s string) { w.out = append(w.out, s...) }

// text adds what comes before a string, and the string.
func (w *contextWriter) text(before, s string) {
	w.add(before)
	w.out = appendString(w.out, s)
}

// message writes a message. A template that knows no calls sees them as the
// text that the model wrote, and results as a user's message.
func (w *contextWriter) message(m Message) {
	if len(m.Calls) > 0 && !w.calls {
		text, ok := w.format.write(m.Calls)
		if !ok {
			text = callText(m.Calls)
		}
		m.Content = Content{Text: m.Content.plain() + text}
		m.Calls = nil
	}
	if m.Role == "tool" && !w.toolRole {
		m.Role = "user"
	}
	if m.Role == "developer" && !w.developer {
		m.Role = "system"
	}
	w.text(`{"role": `, m.Role)
	w.content(m.Content)
	if m.Name != "" {
		w.text(`, "name": `, m.Name)
	}
	if m.Reasoning != "" {
		w.text(`, "reasoning_content": `, m.Reasoning)
		w.text(`, "thinking": `, m.Reasoning) // gpt-oss' name
	}
	if len(m.Calls) > 0 {
		w.callList(m.Calls)
	}
	if m.ToolCallID != "" {
		w.text(`, "tool_call_id": `, w.id(m.ToolCallID))
	}
	w.add("}")
}

func (w *contextWriter) content(c Content) {
	switch {
	case c.Absent && w.absent == leftOut:
	case c.Absent && w.absent == asNull:
		w.add(`, "content": null`)
	case c.Chunks != nil && w.lists:
		w.chunks(c.Chunks)
	case w.lists && !w.strings:
		w.chunks([]Chunk{{Text: c.Text}})
	case w.tagImages:
		w.text(`, "content": `, w.tagged(c).plain())
	default:
		w.text(`, "content": `, c.plain())
	}
}

// tagged returns the content with tags for its images.
func (w *contextWriter) tagged(c Content) Content {
	if c.Chunks == nil {
		return c
	}
	chunks := slices.Clone(c.Chunks)
	for i := range chunks {
		if chunks[i].Image != "" {
			w.images = append(w.images, Image{chunks[i].Image, chunks[i].Detail})
			chunks[i] = Chunk{Text: imageTag}
		}
	}
	return Content{Chunks: chunks}
}

func (w *contextWriter) chunks(chunks []Chunk) {
	w.add(`, "content": [`)
	for i, chunk := range chunks {
		if i > 0 {
			w.add(", ")
		}
		if chunk.Image != "" {
			w.images = append(w.images, Image{chunk.Image, chunk.Detail})
			w.add(`{"type": "image"}`)
			continue
		}
		w.text(`{"type": "text", "text": `, chunk.Text)
		w.add("}")
	}
	w.add("]")
}

func (w *contextWriter) callList(calls []Call) {
	w.add(`, "tool_calls": [`)
	for i, call := range calls {
		if i > 0 {
			w.add(", ")
		}
		w.add("{")
		if call.ID != "" {
			w.text(`"id": `, w.id(call.ID))
			w.add(", ")
		}
		w.text(`"type": "function", "function": {"name": `, call.Name)
		w.add(`, "arguments": `)
		args := call.Arguments
		if args == "" {
			args = "{}"
		}
		if !w.textArguments && isObject([]byte(args)) {
			w.add(args)
		} else {
			w.out = appendString(w.out, args)
		}
		w.add("}}")
	}
	w.add("]")
}

// callText writes calls in the form that toolPrompt asks for.
func callText(calls []Call) string {
	var text []byte
	for _, call := range calls {
		if len(text) > 0 {
			text = append(text, '\n')
		}
		text = append(text, `{"name": `...)
		text = appendString(text, call.Name)
		text = append(text, `, "parameters": `...)
		if json.Valid([]byte(call.Arguments)) {
			text = append(text, call.Arguments...)
		} else {
			text = appendString(text, call.Arguments)
		}
		text = append(text, '}')
	}
	return string(text)
}

// id returns a call's id as the template takes it. Mistral's want nine letters
// and digits: others are hashed, so that a call and its result stay together.
func (w *contextWriter) id(id string) string {
	const length, alphabet = 9, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	if !w.shortIDs || len(id) == length {
		return id
	}
	hash := sha256.Sum256([]byte(id))
	short := make([]byte, length)
	for i := range short {
		short[i] = alphabet[int(hash[i])%len(alphabet)]
	}
	return string(short)
}
