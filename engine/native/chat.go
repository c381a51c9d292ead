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
//
// With marks, which may be nil, the text has the rune inside of what the context
// spells like a special token; 0 if there is nothing of the kind.
func (t *ChatTemplate) Render(context []byte, maxBytes int, marks *Marks) (text string, mark rune, err error) {
	p, n := raw(context)
	var m *C.mr_marks
	if marks != nil {
		m = marks.marks
	}
	var found C.uint32_t
	text, err = takeString(C.mr_chat_render((*C.mr_chat)(unsafe.Pointer(t.chat)), p, n, C.size_t(maxBytes), m, &found))
	runtime.KeepAlive(t)
	runtime.KeepAlive(marks)
	return text, rune(found), err
}

// Marks find what is spelled like special tokens. They may be used by any
// number of goroutines.
type Marks struct {
	marks *C.mr_marks
}

// NewMarks returns what finds these spellings, given as a JSON list.
func NewMarks(spellings []byte) (*Marks, error) {
	p, n := raw(spellings)
	o, err := takeObject(C.mr_marks_new(p, n))
	if err != nil {
		return nil, err
	}
	m := &Marks{(*C.mr_marks)(o)}
	runtime.AddCleanup(m, func(m *C.mr_marks) { C.mr_marks_free(m) }, m.marks)
	return m, nil
}
