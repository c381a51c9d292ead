package chat

import (
	"bytes"
	"regexp"
	"strings"
)

// channelScan reads an answer in OpenAI's harmony: messages with a header each,
// whose channel says what they are.
//
//	<|channel|>analysis<|message|>reasoning<|end|>
//	<|start|>assistant<|channel|>final<|message|>content<|return|>
//	<|start|>assistant<|channel|>commentary to=functions.f <|constrain|>json<|message|>{"a": 1}<|call|>
type channelScan struct {
	header  []byte // of the message, while it is read
	inside  bool   // after the header
	kind    deltaKind
	name    string    // of the function, of a call
	call    *callScan // its arguments
	held    []byte    // what may be a mark
	thought bool      // an earlier message was reasoning
	fresh   bool      // nothing of the message was sent
}

// What ends a message, and what the next one of the assistant begins with.
const (
	ChannelEnd   = "<|end|>"
	ChannelStart = "<|start|>assistant"
)

// channelMarks are harmony's.
var channelMarks = []string{"<|start|>", "<|channel|>", "<|message|>", "<|constrain|>", "<|end|>", "<|call|>", "<|return|>"}

var (
	channelRecipient = regexp.MustCompile(`\bto=functions\.([^\s<]+)`)
	channelName      = regexp.MustCompile(`<\|channel\|>\s*(\w+)`)
)

// maxHeader bounds the header of a message.
const maxHeader = 512

// channel reads a byte of an answer in channels.
func (p *Parser) channel(c byte) {
	s := &p.channels
	if s.inside && s.call != nil && !s.call.done() { // a string may have any text
		p.channelText([]byte{c})
		return
	}
	s.held = append(s.held, c)
	partly := false
	for _, mark := range channelMarks {
		if string(s.held) == mark {
			s.held = nil
			p.channelMark(mark)
			return
		}
		partly = partly || strings.HasPrefix(mark, string(s.held))
	}
	if partly {
		return
	}
	held := s.held
	s.held = nil
	if at := bytes.LastIndexByte(held, '<'); at > 0 { // another mark may begin
		s.held = held[at:]
		held = held[:at]
	}
	p.channelText(held)
}

func (p *Parser) channelText(text []byte) {
	s := &p.channels
	if !s.inside {
		s.header = append(s.header, text...)
		plain := strings.TrimLeft(string(s.header), " \n")
		if len(s.header) > maxHeader || plain != "" && !s.channelled(plain) {
			// The model answers without a header.
			s.inside, s.fresh, s.kind = true, true, ofContent
			text, s.header = s.header, nil
		} else {
			return
		}
	}
	if s.kind != ofCall {
		if s.fresh && s.kind == ofReasoning && s.thought {
			p.put(ofReasoning, '\n')
		}
		s.thought = s.thought || s.kind == ofReasoning
		s.fresh = false
		p.put(s.kind, text...)
		return
	}
	for _, c := range text {
		if s.call == nil || s.call.done() && isSpace(c) {
			continue
		}
		if !s.call.next(c) {
			p.cut = !s.call.done()
			s.call = nil
			continue
		}
		p.put(ofCall, s.call.take()...)
	}
}

// channelled reports whether text may be the beginning of a header.
func (s *channelScan) channelled(text string) bool {
	for _, begin := range []string{"<|", "assistant", "to="} {
		if strings.HasPrefix(text, begin) || strings.HasPrefix(begin, text) {
			return true
		}
	}
	return false
}

// channelMark reads a mark.
func (p *Parser) channelMark(mark string) {
	s := &p.channels
	switch {
	case mark == "<|message|>" && !s.inside:
		s.inside, s.fresh, s.kind, s.call = true, true, ofContent, nil
		header := string(s.header)
		s.header = nil
		if m := channelRecipient.FindStringSubmatch(header); m != nil && p.known[m[1]] {
			s.kind, s.name = ofCall, m[1]
			s.call = newArgumentScan(s.name)
			p.begun(s.name, "")
			p.cut = true // until its arguments have ended
		} else if m := channelName.FindStringSubmatch(header); m != nil && m[1] == "analysis" || strings.Contains(header, "to=") {
			s.kind = ofReasoning
		}
	case !s.inside:
		s.header = append(s.header, mark...)
	case mark == "<|message|>" || mark == "<|constrain|>": // out of place
	default:
		p.channelEnd()
		if mark == "<|channel|>" {
			s.header = []byte(mark)
		}
	}
}

// channelEnd ends a message.
func (p *Parser) channelEnd() {
	s := &p.channels
	if s.inside && s.kind == ofCall && s.call != nil && s.call.done() {
		p.put(ofCall, s.call.take()...)
		p.cut = false
	}
	s.inside, s.header, s.call = false, nil, nil
}

// closeChannels reads the end of the answer.
func (p *Parser) closeChannels() {
	s := &p.channels
	if s.inside && len(s.held) > 0 && !p.required {
		p.channelText(s.held)
	}
	s.held = nil
	p.channelEnd()
}
