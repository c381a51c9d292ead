package handler

import (
	"bytes"
	"slices"
	"strconv"
	"strings"

	"github.com/millrace-ai/millrace/handler/body"
	"github.com/millrace-ai/millrace/handler/chat"
	"github.com/millrace-ai/millrace/handler/openapi"
)

// chatRequest is the body of /v1/chat/completions, as sent. Fields that are
// null count as absent.
type chatRequest struct {
	parameters
	prompt      chat.Request // Tools are those of the body, not of a selection
	tools       chat.SelectRequest
	logprobs    bool
	topLogprobs optional[uint32] // only read with logprobs
	prediction  string           // what the answer may be like
	documents   []byte           // JSON of a list, nil for none
}

var chatFields = fieldsOn(onChat,
	"messages", "tools", "tool_choice", "tool_prompt", "parallel_tool_calls", "guideline",
	"logprobs", "top_logprobs", "max_completion_tokens", "chat_template_kwargs",
	"documents", "reasoning_effort", "add_generation_prompt", "continue_final_message",
	"prediction",
)

// chatSchemas document those of chatFields that the contract lacks.
var chatSchemas = map[string]openapi.Object{
	"documents": {"type": "array", "items": openapi.Object{"type": "object"}, "description": "What the model is to draw on, if its chat template shows documents"},
	"prediction": {
		"type": "object", "description": "What the answer may be like: with --speculate, text that is as predicted comes faster. The answer is the same without it",
		"properties": openapi.Object{
			"type":    openapi.Object{"type": "string", "enum": []string{"content"}},
			"content": openapi.Object{"oneOf": []openapi.Object{{"type": "string"}, {"type": "array", "items": openapi.Object{"type": "object"}}}},
		},
	},
	"reasoning_effort":       {"type": "string", "enum": efforts, "description": "For chat templates that read it"},
	"add_generation_prompt":  openapi.Bool(true, "Whether the prompt ends with the beginning of an answer"),
	"continue_final_message": {"type": "boolean", "description": "Whether the answer continues the last message; by default, if it is the assistant's"},
}

// decodeChat reads the body of a chat.
func decodeChat(data []byte) (chatRequest, error) {
	return readChat(body.NewReader(data))
}

// readChat reads a chat that is part of a body.
func readChat(r *body.Reader) (req chatRequest, err error) {
	hasMessages := false
	var (
		maxTokens              optional[uint32] // OpenAI's newer name, which wins
		effort                 string
		generation, continuing optional[bool]
	)
	req.route = &chatNames
	err = r.Object("struct ChatRequest", chatFields.names, func(field int) (err error) {
		if field >= chatFields.own {
			return chatFields.set(&req.parameters, r, field)
		}
		name := chatFields.names[field]
		if name != "messages" {
			if null, err := r.Null(); null {
				return err
			}
		}
		switch name {
		case "messages":
			hasMessages = true
			req.prompt.Messages, err = chat.DecodeMessages(r)
		case "tools":
			req.tools.Tools, req.tools.Present, err = chat.DecodeTools(r)
		case "tool_choice":
			req.tools.Choice, err = chat.DecodeToolChoice(r)
		case "tool_prompt":
			req.prompt.ToolPrompt, err = r.String()
		case "parallel_tool_calls":
			var parallel bool
			parallel, err = r.Bool()
			req.tools.Single = !parallel
		case "guideline":
			var text string
			text, err = r.String()
			req.prompt.Guideline = &text
		case "logprobs":
			req.logprobs, err = r.Bool()
		case "top_logprobs":
			return set(&req.topLogprobs, r.Uint32)
		case "max_completion_tokens":
			return set(&maxTokens, r.Uint32)
		case "chat_template_kwargs":
			req.prompt.Variables, err = req.decodeVariables(r)
		case "documents":
			req.documents, err = decodeDocuments(r)
		case "prediction":
			req.prediction, err = chat.DecodePrediction(r)
		case "reasoning_effort":
			effort, err = decodeEffort(r)
		case "add_generation_prompt":
			return set(&generation, r.Bool)
		case "continue_final_message":
			return set(&continuing, r.Bool)
		}
		return err
	})
	if err == nil && !hasMessages {
		err = r.Missing("messages")
	}
	if maxTokens.set {
		req.maxNewTokens, req.route = maxTokens, &newerChatNames
	}
	req.tools.Format = req.format
	if effort != "" {
		// As vLLM: templates have the one variable or the other.
		req.setVariable("enable_thinking", strconv.AppendBool(nil, effort != "none"))
		req.setVariable("reasoning_effort", appendString(nil, effort))
	}
	req.setTurn(generation, continuing)
	return req, err
}

// setTurn says how the prompt ends. Unless the request tells, a last message
// of the assistant is continued, and any other is followed by a new turn.
func (req *chatRequest) setTurn(generation, continuing optional[bool]) {
	messages := req.prompt.Messages
	last := chat.Message{}
	if len(messages) > 0 {
		last = messages[len(messages)-1]
	}
	switch {
	case continuing.or(false) && generation.or(false):
		req.refuse(invalid("`continue_final_message` and `add_generation_prompt` are mutually exclusive"))
	case continuing.or(false) && !last.Continues():
		req.refuse(invalid("`continue_final_message` needs a last message of the assistant that has a text"))
	case continuing.or(false):
	case continuing.set || generation.set:
		req.prompt.NewTurn = true
		req.prompt.NoGenerationPrompt = !generation.or(true)
	}
}

// checkedVariables are those that a request sets by fields that are checked,
// or that the model's folder sets.
var checkedVariables = []string{
	"messages", "tools", "documents", "guideline", "add_generation_prompt", "continue_final_message", "chat_template", "tokenize",
	"bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token",
}

// decodeVariables reads chat_template_kwargs and returns its text.
func (req *chatRequest) decodeVariables(r *body.Reader) ([]byte, error) {
	if !r.IsObject() {
		return nil, r.Object("a map of variables", nil, nil) // says what is there instead
	}
	text, err := r.Raw()
	if err != nil {
		return nil, err
	}
	names := body.NewReader(text)
	return text, names.Map("", func(name string) error {
		if slices.Contains(checkedVariables, name) {
			req.refuse(unsupported("chat_template_kwargs", "cannot set `"+name+"`"))
		}
		return names.Skip()
	})
}

// setVariable sets a variable of the template, unless chat_template_kwargs
// have it.
func (req *chatRequest) setVariable(name string, value []byte) {
	rest := []byte("}")
	if _, members, ok := bytes.Cut(req.prompt.Variables, []byte("{")); ok {
		if rest = bytes.TrimSpace(members); rest[0] != '}' {
			rest = append([]byte(", "), rest...)
		}
	}
	// The template takes the last of two variables of one name.
	req.prompt.Variables = slices.Concat([]byte(`{"`+name+`": `), value, rest)
}

// decodeDocuments reads what a model is to draw on and returns its text, nil
// if there is none.
func decodeDocuments(r *body.Reader) ([]byte, error) {
	from, n := r.Offset(), 0
	err := r.Array("a sequence of documents", func(int) error {
		n++
		return r.Skip()
	})
	if n == 0 {
		return nil, err
	}
	return r.Since(from), err
}

var efforts = []string{"none", "minimal", "low", "medium", "high", "xhigh", "max"}

func decodeEffort(r *body.Reader) (string, error) {
	effort, err := r.String()
	if err == nil && !slices.Contains(efforts, effort) {
		err = r.Errorf("unknown variant `%s`, expected one of `%s`", body.Cut(effort), strings.Join(efforts, "`, `"))
	}
	return effort, err
}
