package chat

import (
	"encoding/json"
	"strings"
)

// templateScan reads answers of a model that has a response_template.
type templateScan struct {
	*regionScan
	space [2]string // white space that may be the end of the reasoning, and of the content
	sent  [2]bool   // there was some
	fresh bool      // nothing of the open region was sent
	field *templateField
}

// inReasoning reports whether the open region is reasoning.
func (s *templateScan) inReasoning() bool {
	if s.current == nil || !s.explicit {
		return false
	}
	kind, ok := s.current.kind()
	return ok && kind == ofReasoning
}

// region reads a piece of an answer, or its end.
func (p *Parser) region(piece string, end bool) {
	s := p.regions
	s.text += piece
	s.process(end, p.regionClosed, p.regionText)
}

// regionText reads text of the open region.
func (p *Parser) regionText(f *templateField, text string) {
	s := p.regions
	kind, ok := f.kind()
	if !ok || kind == ofCall || f.content != "text" {
		return
	}
	if s.field != f || s.regionScan.body.Len() == len(text) {
		s.field, s.fresh = f, true
	}
	if f.args.Strip != nil && !*f.args.Strip {
		p.join(f, kind)
		p.put(kind, []byte(text)...)
		return
	}
	if s.fresh {
		s.space[kind] = ""
		text = strings.TrimLeft(text, " \t\r\n\v\f")
	}
	text = s.space[kind] + text
	inked := strings.TrimRight(text, " \t\r\n\v\f")
	s.space[kind] = text[len(inked):]
	if inked != "" {
		p.join(f, kind)
		p.put(kind, []byte(inked)...)
	}
}

// join separates a region from one of the same field before it.
func (p *Parser) join(f *templateField, kind deltaKind) {
	s := p.regions
	if s.fresh && s.sent[kind] {
		between := "\n"
		if f.join != nil {
			between = *f.join
		}
		p.put(kind, []byte(between)...)
	}
	s.fresh, s.sent[kind] = false, true
}

// regionClosed reads a region that has ended.
func (p *Parser) regionClosed(r region) {
	s := p.regions
	kind, ok := r.field.kind()
	s.space = [2]string{}
	switch {
	case !ok || kind != ofCall && r.field.content == "text":
		s.field = nil
		return
	case kind != ofCall:
		v, err := r.value()
		if err != nil {
			v = appendString(nil, r.body)
		}
		text, isString := scalar(v)
		if !isString {
			text = string(v)
		}
		s.fresh = true
		if text != "" {
			p.join(r.field, kind)
			p.put(kind, []byte(text)...)
		}
		return
	}
	s.field = nil
	var calls []Call
	v, err := r.value()
	if err == nil {
		calls = []Call{}
		list := []json.RawMessage{v}
		if v[0] == '[' {
			list = nil
			_ = json.Unmarshal(v, &list) // it is JSON
		}
		for _, v := range list {
			c, ok := templateCall(v, p.tools)
			if !ok {
				calls = nil
				break
			}
			calls = append(calls, c)
		}
	}
	for _, c := range calls {
		p.begun(c.Name, c.ID)
		p.put(ofCall, []byte(c.Arguments)...)
	}
	switch name := r.captures["name"]; {
	case calls != nil:
	case !r.whole && p.known[name]:
		p.begun(name, "")
		p.cut = true
	case !r.whole && p.required:
		if name := p.onlyName(""); name != "" && p.calls == 0 {
			p.begun(name, "")
			p.cut = true
		}
	default:
		s.fresh = true
		p.join(&templateField{}, ofContent)
		p.put(ofContent, []byte(r.raw)...)
	}
}
