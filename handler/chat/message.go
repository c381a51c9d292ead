package chat

import (
	"bytes"
	"encoding/json"
	"strings"

	"github.com/millrace-ai/millrace/handler/body"
)

// Message is one turn of a conversation, as the client sent it.
type Message struct {
	Role       string
	Name       string // "" if none
	Content    Content
	Calls      []Call // tool calls that the assistant made
	ToolCallID string // the call that a tool's answer is for, "" if none
	Reasoning  string // what the assistant thought before its content, "" if none
}

// Content is what a message says: a text, or a list of chunks.
type Content struct {
	Absent bool    // null or not there, as beside tool calls
	Text   string  // if Chunks is nil
	Chunks []Chunk // not nil: a list, perhaps empty
}

// Chunk is a part of a message: a text, or an image if Image is set.
type Chunk struct {
	Text  string
	Image string // URL
	// Detail is how closely the client wants the image read: "low", "high" or "auto";
	// "" if it does not say.
	Detail string
}

// Image is an image of a prompt: that of a chunk.
type Image struct{ URL, Detail string }

// Call is one call of a function.
type Call struct {
	ID        string // "" if the client gave none
	Name      string
	Arguments string // JSON, usually an object
}

// plain returns the content as one text, as TGI joins it: nothing between
// chunks, and images as Markdown.
func (c Content) plain() string {
	if c.Chunks == nil {
		return c.Text
	}
	var b strings.Builder
	for _, chunk := range c.Chunks {
		if chunk.Image != "" {
			b.WriteString("![](" + chunk.Image + ")")
			continue
		}
		b.WriteString(chunk.Text)
	}
	return b.String()
}

// with returns the content with text after it.
func (c Content) with(text string) Content {
	if c.Chunks == nil {
		return Content{Text: c.Text + text}
	}
	chunks := append([]Chunk{}, c.Chunks...)
	return Content{Chunks: append(chunks, Chunk{Text: text})}
}

var (
	messageFields  = []string{"role", "content", "name", "tool_calls", "tool_call_id", "reasoning_content", "reasoning", "thinking"}
	chunkFields    = []string{"type", "text", "image_url"}
	urlFields      = []string{"url", "detail"}
	callFields     = []string{"id", "type", "function"}
	functionFields = []string{"name", "arguments"}
)

// assistant is the role of the model's messages. OpenAI's clients, when they
// put a stream together, join the role that TGI's contract has in every chunk,
// and send it back as assistantassistant….
const assistant = "assistant"

// DecodeMessages reads the messages of a request.
func DecodeMessages(r *body.Reader) ([]Message, error) {
	messages := []Message{}
	err := r.Array("a sequence", func(int) error {
		m, err := decodeMessage(r)
		messages = append(messages, m)
		return err
	})
	return messages, err
}

// DecodePrediction reads a prediction, OpenAI's object, and returns its text: "" if it has
// none.
func DecodePrediction(r *body.Reader) (text string, err error) {
	err = r.Object("a prediction", predictionFields, func(field int) error {
		if null, err := r.Null(); null {
			return err
		}
		if predictionFields[field] == "content" {
			c, err := decodeContent(r)
			text = c.plain()
			return err
		}
		kind, err := r.String()
		if err == nil && kind != "content" {
			err = r.Errorf("unknown variant `%s`, expected `content`", body.Cut(kind))
		}
		return err
	})
	return text, err
}

var predictionFields = []string{"type", "content"}

func decodeMessage(r *body.Reader) (Message, error) {
	m := Message{Content: Content{Absent: true}}
	hasRole, hasContent := false, false
	err := r.Object("struct Message", messageFields, func(field int) (err error) {
		if null, err := r.Null(); null {
			hasContent = hasContent || messageFields[field] == "content"
			return err
		}
		switch messageFields[field] {
		case "role":
			hasRole = true
			m.Role, err = r.String()
			if m.Role != "" && strings.ReplaceAll(m.Role, assistant, "") == "" {
				m.Role = assistant
			}
		case "content":
			hasContent = true
			m.Content, err = decodeContent(r)
		case "name":
			m.Name, err = r.String()
		case "tool_calls":
			m.Calls, err = decodeCalls(r)
		case "tool_call_id":
			m.ToolCallID, err = r.String()
		default: // the names that servers have given to a model's reasoning
			m.Reasoning, err = r.String()
		}
		return err
	})
	switch {
	case err != nil:
	case !hasRole:
		err = r.Missing("role")
	case !hasContent && len(m.Calls) == 0:
		err = r.Missing("content")
	}
	return m, err
}

func decodeContent(r *body.Reader) (Content, error) {
	if r.IsString() {
		s, err := r.String()
		return Content{Text: s}, err
	}
	c := Content{Chunks: []Chunk{}}
	err := r.Array("a string or a sequence of chunks", func(int) error {
		chunk, err := decodeChunk(r)
		c.Chunks = append(c.Chunks, chunk)
		return err
	})
	return c, err
}

func decodeChunk(r *body.Reader) (Chunk, error) {
	var (
		chunk          Chunk
		kind           string
		hasText, hasIm bool
	)
	err := r.Object("a chunk of a message", chunkFields, func(field int) (err error) {
		switch chunkFields[field] {
		case "type":
			if kind, err = r.String(); err == nil && kind != "text" && kind != "image_url" {
				err = r.Errorf("unknown variant `%s`, expected `text` or `image_url`", body.Cut(kind))
			}
		case "text":
			hasText = true
			chunk.Text, err = r.String()
		case "image_url":
			hasIm = true
			chunk.Image, chunk.Detail, err = decodeURL(r)
		}
		return err
	})
	switch {
	case err != nil:
	case kind == "":
		err = r.Missing("type")
	case kind == "text":
		chunk.Image, chunk.Detail = "", ""
		if !hasText {
			err = r.Missing("text")
		}
	default:
		chunk.Text = ""
		if !hasIm || chunk.Image == "" {
			err = r.Missing("image_url")
		}
	}
	return chunk, err
}

// decodeURL reads {"url": …, "detail": …}, or the URL alone, which some clients send.
func decodeURL(r *body.Reader) (url, detail string, err error) {
	if r.IsString() {
		url, err = r.String()
		return url, "", err
	}
	err = r.Object("struct Url", urlFields, func(field int) (err error) {
		if urlFields[field] == "url" {
			url, err = r.String()
			return err
		}
		if null, err := r.Null(); null {
			return err
		}
		if detail, err = r.String(); err == nil && detail != "auto" && detail != "low" && detail != "high" {
			err = r.Errorf("unknown variant `%s`, expected one of `auto`, `low`, `high`", body.Cut(detail))
		}
		return err
	})
	if err == nil && url == "" {
		err = r.Missing("url")
	}
	return url, detail, err
}

// decodeCalls reads the calls of an assistant's message, with the arguments as
// a string (OpenAI) or as an object (TGI).
func decodeCalls(r *body.Reader) (calls []Call, err error) {
	err = r.Array("a sequence", func(int) error {
		var call Call
		err := r.Object("struct ToolCall", callFields, func(field int) (err error) {
			if null, err := r.Null(); null {
				return err
			}
			switch callFields[field] {
			case "id":
				call.ID, err = r.String()
			case "type":
				_, err = r.String()
			case "function":
				err = decodeFunction(r, &call)
			}
			return err
		})
		if err == nil && call.Name == "" {
			err = r.Missing("function")
		}
		calls = append(calls, call)
		return err
	})
	return calls, err
}

func decodeFunction(r *body.Reader, call *Call) error {
	err := r.Object("struct FunctionDefinition", functionFields, func(field int) (err error) {
		switch {
		case functionFields[field] == "name":
			call.Name, err = r.String()
		case r.IsString():
			call.Arguments, err = r.String()
		default:
			var raw []byte
			raw, err = r.Raw()
			call.Arguments = string(raw)
		}
		return err
	})
	if err == nil && call.Name == "" {
		err = r.Missing("name")
	}
	return err
}

// isObject reports whether text is a JSON object.
func isObject(text []byte) bool {
	return bytes.HasPrefix(bytes.TrimLeft(text, " \t\r\n"), []byte("{")) && json.Valid(text)
}
