package handler

import (
	"fmt"
	"net/http"
)

// tokenize handles POST /tokenize: the tokens of inputs and where they stand.
func (s *Server) tokenize(x *exchange) error {
	req, err := s.receive(x, decodeGenerate)
	if err != nil {
		return err
	}
	m, err := s.ready()
	if err != nil {
		return err
	}
	if x.out, err = m.appendSpans(x.out[:0], req.inputs, true); err != nil {
		return err
	}
	writeJSON(x.w, http.StatusOK, x.out)
	return nil
}

// chatTokenize handles POST /chat_tokenize: the prompt that a chat's template
// makes, and its tokens.
func (s *Server) chatTokenize(x *exchange) error {
	m, err := s.ready()
	if err != nil {
		return err
	}
	if err := s.readBody(x); err != nil {
		return err
	}
	req, err := decodeChat(x.body)
	if err != nil {
		return badBody(err)
	}
	prompt, err := s.renderChat(m, &req)
	if err != nil {
		return err
	}
	x.out = append(x.out[:0], `{"tokenize_response":`...)
	if x.out, err = m.appendSpans(x.out, prompt.text, false); err != nil {
		return err
	}
	x.out = append(x.out, `,"templated_text":`...)
	x.out = appendString(x.out, prompt.text)
	x.out = append(x.out, '}')
	writeJSON(x.w, http.StatusOK, x.out)
	return nil
}

// appendSpans appends the list of the tokens of text, with those that the
// tokenizer adds if addSpecial is set.
func (m *model) appendSpans(dst []byte, text string, addSpecial bool) ([]byte, error) {
	dst = append(dst, '[')
	if text == "" {
		return append(dst, ']'), nil
	}
	spans, err := m.tok.EncodeSpans(text, addSpecial)
	if err != nil {
		return dst, invalid("tokenizer error %v", err)
	}
	start, stop := cursor{text: text}, cursor{text: text}
	for i, span := range spans {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = fmt.Appendf(dst, `{"id":%d,"text":`, span.ID)
		dst = appendString(dst, text[start.byteOf(span.Start):stop.byteOf(span.Stop)])
		dst = fmt.Appendf(dst, `,"start":%d,"stop":%d}`, span.Start, span.Stop)
	}
	return append(dst, ']'), nil
}

// cursor turns positions counted in characters into bytes. Positions that
// grow cost one walk through the text in all.
type cursor struct {
	text        string
	chars, byte int
}

// byteOf returns where the character with number n begins.
func (c *cursor) byteOf(n int) int {
	if n == 0 {
		return 0 // also where tokens stand that are not in the text
	}
	if n < c.chars {
		c.chars, c.byte = 0, 0
	}
	for ; c.chars < n && c.byte < len(c.text); c.chars++ {
		c.byte++
		for c.byte < len(c.text) && c.text[c.byte]&0xC0 == 0x80 {
			c.byte++
		}
	}
	return c.byte
}
