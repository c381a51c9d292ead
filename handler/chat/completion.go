package chat

import "fmt"

// Completes reports whether the checkpoint has a completion template, which
// says how a text before and a text after a gap are put to the model. TGI's
// documents name it; models that fill gaps have tokens for the purpose.
func (t *Template) Completes() bool { return t.completion != nil }

// RenderCompletion makes the prompt for what belongs between two texts. The
// template has them as prompt and suffix. Completes must be true. maxBytes is
// as in Request.
func (t *Template) RenderCompletion(prompt, suffix string, maxBytes int) (string, error) {
	context := appendString([]byte(`{"prompt": `), prompt)
	context = appendString(append(context, `, "suffix": `...), suffix)
	text, _, err := render(t.completion, fmt.Appendf(context, "%s}", t.tokens), maxBytes, nil)
	return text, err
}
