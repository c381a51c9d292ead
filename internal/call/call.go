// Package call is one call of a deployed server, whatever carries it there: its
// body, and the text in the answer.
package call

import (
	"encoding/json"
	"maps"
)

// Call is one call.
type Call struct {
	Input      string         // the prompt; with Raw the body as it is
	Parameters map[string]any // of the generation
	Raw        bool           // send and print bytes as they are
	Chat       bool           // the prompt is a user's message
	Stream     bool
	Details    bool // ask for what Result.Usage needs
}

// Result is what a call returned besides the text.
type Result struct {
	FinishReason string
	Usage        string // tokens, "" if the answer does not say
	Attributes   string // custom attributes that the container has set
}

// Body writes the request's body.
func (call *Call) Body() ([]byte, error) {
	if call.Raw {
		return []byte(call.Input), nil
	}
	if call.Chat {
		body := maps.Clone(call.Parameters)
		if body == nil {
			body = map[string]any{}
		}
		body["messages"] = []map[string]string{{"role": "user", "content": call.Input}}
		body["stream"] = call.Stream
		if call.Stream && call.Details {
			body["stream_options"] = map[string]bool{"include_usage": true}
		}
		return json.Marshal(body)
	}
	parameters := map[string]any{"return_full_text": false}
	if call.Details {
		parameters["details"] = true
	}
	maps.Copy(parameters, call.Parameters)
	return json.Marshal(map[string]any{"inputs": call.Input, "parameters": parameters, "stream": call.Stream})
}
