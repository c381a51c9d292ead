package chat

import (
	"crypto/rand"
	"strings"
)

// Answer is a whole answer, put together from a Parser's deltas.
type Answer struct {
	Content   string
	Reasoning string
	Calls     []Call
}

// Add adds a delta.
func (a *Answer) Add(d Delta) {
	switch {
	case d.Call == nil:
		a.Content += d.Content
		a.Reasoning += d.Reasoning
	case d.Call.Name != "":
		a.Calls = append(a.Calls, Call{ID: d.Call.ID, Name: d.Call.Name})
	default:
		a.Calls[d.Call.Index].Arguments += d.Call.Arguments
	}
}

// Object returns the call's arguments as a JSON object, the form that TGI's
// contract has where OpenAI has a string. The error is TGI's for an answer
// that was cut off.
func (c Call) Object() ([]byte, error) {
	if args := strings.TrimSpace(c.Arguments); isObject([]byte(args)) {
		return []byte(args), nil
	}
	return nil, toolError("Failed to parse generated text: the arguments of %s are not a JSON object %s", c.Name, quoted(c.Arguments))
}

// FinishReason returns OpenAI's word for the end of an answer: length if the
// limit of tokens ended it, tool_calls if there are calls and the last is
// whole, else stop.
func FinishReason(limited bool, calls int, cut bool) string {
	switch {
	case limited:
		return "length"
	case calls > 0 && !cut:
		return "tool_calls"
	}
	return "stop"
}

// NewID returns an id for a call: call_ and 24 random letters and digits.
func NewID() string {
	const alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	id := []byte("call_")
	for len(id) < len("call_")+24 {
		var random [32]byte
		rand.Read(random[:]) //nolint:errcheck // never fails, by its contract
		for _, b := range random {
			// The bytes above the last multiple of 62 would favour some letters.
			if int(b) < 256/len(alphabet)*len(alphabet) && len(id) < len("call_")+24 {
				id = append(id, alphabet[int(b)%len(alphabet)])
			}
		}
	}
	return string(id)
}
