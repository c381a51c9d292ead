package native

/*
#include "millrace_native.h"
*/
import "C"

import (
	"runtime"
	"unsafe"
)

// A ChatTemplate is a compiled Jinja chat template. It renders as transformers
// does and may be used by any number of goroutines.
type ChatTemplate struct {
	chat *C.mr_chat
}

// NewChatTemplate compiles the text of a chat_template. Its memory is given
// back when the template becomes unreachable. One that is too large or too
// deep is a *LimitError.
func NewChatTemplate(source string) (*ChatTemplate, error) {
	p, n := text(source)
	o, err := takeObject(C.mr_chat_new(p, n))
	if err != nil {
		return nil, err
	}
	t := &ChatTemplate{(*C.mr_chat)(o)}
	runtime.AddCleanup(t, func(c *C.mr_chat) { C.mr_chat_free(c) }, t.chat)
	return t, nil
}

// Render renders the template with the members of a JSON object as its
// variables (messages, tools, add_generation_prompt, bos_token, ...). The
// object's key order is kept. An error raised by the template has the
// template's own words. A text of more than maxBytes is ErrTooLong, and is
// never held in full. A template that takes more steps, memory, stack or time
// than a context of this size can need is a *LimitError.
func (t *ChatTemplate) Render(context []byte, maxBytes int) (string, error) {
	p, n := raw(context)
	r := C.mr_chat_render((*C.mr_chat)(unsafe.Pointer(t.chat)), p, n, C.size_t(maxBytes))
	runtime.KeepAlive(t)
	return takeString(r)
}
