package call

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/millrace-ai/millrace/internal/sse"
)

// answerBody is any of the container's answers: a generation, an event of one,
// a chat, a completion, an error. What an answer does not have is absent.
type answerBody struct {
	GeneratedText *string `json:"generated_text"`
	Token         *struct {
		Text    string `json:"text"`
		Special bool   `json:"special"`
	} `json:"token"`
	Details *struct {
		FinishReason    string            `json:"finish_reason"`
		GeneratedTokens int               `json:"generated_tokens"`
		InputLength     *int              `json:"input_length"` // of a stream
		Prefill         []json.RawMessage `json:"prefill"`
	} `json:"details"`
	Choices []struct {
		Text    string `json:"text"`
		Message struct {
			Content string `json:"content"`
		} `json:"message"`
		Delta struct {
			Content string `json:"content"`
		} `json:"delta"`
		FinishReason *string `json:"finish_reason"`
	} `json:"choices"`
	Usage *struct {
		Prompt     int `json:"prompt_tokens"`
		Completion int `json:"completion_tokens"`
	} `json:"usage"`
	Error json.RawMessage `json:"error"`
}

// Printer writes the text of an answer, and keeps what else is in it.
type Printer struct {
	Out    io.Writer
	Raw    bool    // write bytes as they are
	Result *Result // what is in the answer besides the text

	events sse.Events
	ended  bool // whether the stream's last event has come
	last   byte // that was written
}

func (p *Printer) write(text string) error {
	if text == "" {
		return nil
	}
	p.last = text[len(text)-1]
	_, err := io.WriteString(p.Out, text)
	return err
}

// newline ends the last line of the text.
func (p *Printer) newline() error {
	if p.last == '\n' {
		return nil
	}
	return p.write("\n")
}

// Whole takes an answer that is not a stream.
func (p *Printer) Whole(body []byte) error {
	if p.Raw {
		_, err := p.Out.Write(body)
		return err
	}
	trimmed := bytes.TrimSpace(body)
	var answers []answerBody
	err := json.Unmarshal(trimmed, &answers)
	if err != nil {
		answers = make([]answerBody, 1)
		err = json.Unmarshal(trimmed, &answers[0])
	}
	texts := 0
	for i := range answers {
		a := &answers[i]
		if a.GeneratedText != nil || len(a.Choices) > 0 {
			texts++
		}
		if fault := p.take(a, true); fault != nil {
			return fault
		}
	}
	if err != nil || texts == 0 {
		// Of a shape that is not known here: as it is.
		if err := p.write(string(trimmed)); err != nil {
			return err
		}
	}
	return p.newline()
}

// Part takes a piece of a stream.
func (p *Printer) Part(b []byte) error {
	if p.Raw {
		_, err := p.Out.Write(b)
		return err
	}
	return p.events.Feed(b, func(data []byte) error {
		if string(bytes.TrimSpace(data)) == "[DONE]" {
			p.ended = true
			return nil
		}
		a := &answerBody{}
		if err := json.Unmarshal(data, a); err != nil {
			return fmt.Errorf("an event of the stream is not JSON: %.200q", data)
		}
		return p.take(a, false)
	})
}

// End takes the end of the stream.
func (p *Printer) End() error {
	switch {
	case p.Raw:
		return nil
	case !p.ended:
		return errors.New("the stream broke off before its last event")
	}
	return p.newline()
}

// take writes what one answer or event adds to the text.
func (p *Printer) take(a *answerBody, whole bool) error {
	if len(a.Error) > 0 && string(a.Error) != "null" {
		full, err := json.Marshal(map[string]json.RawMessage{"error": a.Error})
		if err != nil {
			return err
		}
		message, _ := ContainerError(full)
		return fmt.Errorf("the container ended the generation: %s", message)
	}
	if d := a.Details; d != nil {
		p.Result.FinishReason = d.FinishReason
		p.Result.Usage = fmt.Sprintf("%d tokens generated", d.GeneratedTokens)
		switch {
		case d.InputLength != nil:
			p.Result.Usage = fmt.Sprintf("%d tokens in the prompt, ", *d.InputLength) + p.Result.Usage
		case len(d.Prefill) > 0:
			p.Result.Usage = fmt.Sprintf("%d tokens in the prompt, ", len(d.Prefill)) + p.Result.Usage
		}
	}
	if u := a.Usage; u != nil {
		p.Result.Usage = fmt.Sprintf("%d tokens in the prompt, %d tokens generated", u.Prompt, u.Completion)
	}
	if a.GeneratedText != nil {
		p.ended = true
		if whole {
			return p.write(*a.GeneratedText)
		}
	}
	if t := a.Token; t != nil && !t.Special {
		return p.write(t.Text)
	}
	if len(a.Choices) == 0 {
		return nil
	}
	choice := &a.Choices[0]
	if choice.FinishReason != nil {
		p.Result.FinishReason = *choice.FinishReason
	}
	return p.write(choice.Text + choice.Message.Content + choice.Delta.Content)
}

// ContainerError reads the container's error: TGI's {"error", "error_type"} or
// OpenAI's {"error": {"message", "type"}}. Other texts are themselves.
func ContainerError(body []byte) (message, kind string) {
	var flat struct {
		Error string `json:"error"`
		Type  string `json:"error_type"`
	}
	if json.Unmarshal(body, &flat) == nil && flat.Error != "" {
		return flat.Error, flat.Type
	}
	var nested struct {
		Error struct {
			Message string `json:"message"`
			Type    string `json:"type"`
		} `json:"error"`
	}
	if json.Unmarshal(body, &nested) == nil && nested.Error.Message != "" {
		return nested.Error.Message, nested.Error.Type
	}
	return strings.Join(strings.Fields(string(body)), " "), ""
}
