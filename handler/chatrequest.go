package handler

import (
	"slices"

	"github.com/millrace-ai/millrace/handler/body"
	"github.com/millrace-ai/millrace/handler/chat"
)

// chatRequest is the body of /v1/chat/completions, as sent. Fields that are
// null count as absent.
type chatRequest struct {
	openAIParameters
	prompt      chat.Request // Tools are those of the body, not of a selection
	tools       chat.SelectRequest
	logprobs    bool
	topLogprobs optional[uint32] // only read with logprobs
}

var chatFields = append([]string{
	"messages", "tools", "tool_choice", "tool_prompt", "parallel_tool_calls", "response_format", "guideline",
	"logprobs", "top_logprobs", "max_completion_tokens", "chat_template_kwargs",
}, openAIFields...)

// decodeChat reads the body of a chat.
func decodeChat(data []byte) (chatRequest, error) {
	return readChat(body.NewReader(data))
}

// readChat reads a chat that is part of a body.
func readChat(r *body.Reader) (req chatRequest, err error) {
	hasMessages := false
	var maxTokens optional[uint32] // OpenAI's newer name, which wins
	err = r.Object("struct ChatRequest", chatFields, func(field int) (err error) {
		name := chatFields[field]
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
		case "response_format":
			req.tools.Format, err = chat.DecodeResponseFormat(r)
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
			req.prompt.Variables, err = readObject(r, "a map of variables")
		default:
			return req.decode(r, name)
		}
		return err
	})
	if err == nil && !hasMessages {
		err = r.Missing("messages")
	}
	if maxTokens.set {
		req.maxTokens = maxTokens
	}
	return req, err
}

// readObject returns the text of an object.
func readObject(r *body.Reader, want string) ([]byte, error) {
	if !r.IsObject() {
		return nil, r.Object(want, nil, nil) // says what is there instead
	}
	return r.Raw()
}

// refuseImages refuses messages with images, which no model here reads.
func refuseImages(modelID string, messages []chat.Message) error {
	isImage := func(c chat.Chunk) bool { return c.Image != "" }
	for i, m := range messages {
		if at := slices.IndexFunc(m.Content.Chunks, isImage); at >= 0 {
			return invalid("messages[%d].content[%d] is an image, and the model %s reads no images", i, at, modelID)
		}
	}
	return nil
}
