package handler

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/millrace-ai/millrace/engine/token"
	"github.com/millrace-ai/millrace/internal/web"
)

// tokenize answers req to POST /tokenize: the tokens of inputs and where they stand.
func (s *Server) tokenize(x *exchange, m *model, req *generateRequest) error {
	if err := s.takePermits(x, 1); err != nil {
		return err
	}
	text, seen, err := s.readImages(x, m, req.inputs)
	if err != nil {
		return err
	}
	spans, err := s.encodeSpans(x, m, text, 0, m.addSpecial(true, seen))
	if err != nil {
		return err
	}
	x.out = x.out[:0]
	if err := s.appendSpans(x, text, spans); err != nil {
		return err
	}
	return s.endParts(x)
}

// chatTokenize answers req to POST /chat_tokenize: the prompt that a chat's
// template makes, and its tokens.
func (s *Server) chatTokenize(x *exchange, m *model, req *chatRequest) error {
	if err := s.takePermits(x, 1); err != nil {
		return err
	}
	prompt, err := s.renderChat(x, m, req)
	if err != nil {
		return err
	}
	if len(prompt.seen) > 0 { // with the image tokens, as spans count
		if prompt.text = prompt.marked; prompt.mark != 0 {
			prompt.text = strings.ReplaceAll(prompt.marked, string(prompt.mark), "")
		}
	}
	spans, err := s.encodeSpans(x, m, prompt.marked, prompt.mark, m.addSpecial(req.addSpecial.or(false), prompt.seen))
	if err != nil {
		return err
	}
	x.out = append(x.out[:0], `{"tokenize_response":`...)
	if err := s.appendSpans(x, prompt.text, spans); err != nil {
		return err
	}
	x.out = append(x.out, `,"templated_text":`...)
	x.out = appendString(x.out, prompt.text)
	x.out = append(x.out, '}')
	return s.endParts(x)
}

// appendSpans appends the list of the tokens of text. What is appended may be
// fifty times as long as the text, so it leaves in parts.
func (s *Server) appendSpans(x *exchange, text string, spans []token.Span) error {
	x.out = append(x.out, '[')
	start, stop := cursor{text: text}, cursor{text: text}
	for i, span := range spans {
		if i > 0 {
			x.out = append(x.out, ',')
		}
		x.out = fmt.Appendf(x.out, `{"id":%d,"text":`, span.ID)
		x.out = appendString(x.out, text[start.byteOf(int(span.Start)):stop.byteOf(int(span.Stop))])
		x.out = fmt.Appendf(x.out, `,"start":%d,"stop":%d}`, span.Start, span.Stop)
		if len(x.out) >= partBytes {
			if err := s.sendPart(x); err != nil {
				return err
			}
		}
	}
	x.out = append(x.out, ']')
	return nil
}

// partBytes is what is kept of a long answer before it leaves in parts. One
// that is shorter leaves in one piece, with its length.
const partBytes = 64 << 10

// sendPart writes what x.out has, with the status and the headers before the
// first part. No error can be answered after that.
func (s *Server) sendPart(x *exchange) error {
	if !x.inParts {
		x.inParts = true
		x.w.Header()["Content-Type"] = jsonType
		x.w.WriteHeader(http.StatusOK)
	}
	s.mayWrite(x, time.Now())
	if _, err := x.w.Write(x.out); err != nil {
		return errClientGone
	}
	x.out = x.out[:0]
	return nil
}

// endParts writes the rest of an answer, which may be all of it.
func (s *Server) endParts(x *exchange) error {
	if x.inParts {
		return s.sendPart(x)
	}
	web.WriteJSON(x.w, http.StatusOK, x.out)
	return nil
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
