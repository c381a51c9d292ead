package deploy

import "bytes"

// events puts server-sent events together again. The platform cuts a stream
// into parts anywhere, also within a line or a letter.
type events struct {
	line []byte // of a line whose end has not come
	data []byte // of an event whose end has not come
	any  bool   // whether data is an event's, also if empty
}

// feed takes the next part and hands the data of each event that it completes
// to each.
func (e *events) feed(part []byte, each func(data []byte) error) error {
	for {
		end := bytes.IndexByte(part, '\n')
		if end < 0 {
			e.line = append(e.line, part...)
			return nil
		}
		e.line = append(e.line, part[:end]...)
		part = part[end+1:]
		line := bytes.TrimSuffix(e.line, []byte("\r"))
		e.line = e.line[:0]
		if len(line) > 0 {
			e.field(line)
			continue
		}
		if !e.any {
			continue
		}
		data := e.data
		e.data, e.any = nil, false
		if err := each(data); err != nil {
			return err
		}
	}
}

// field takes a line that is not empty. Names, ids and comments are nothing to
// the text.
func (e *events) field(line []byte) {
	name, value, _ := bytes.Cut(line, []byte(":"))
	if string(name) != "data" {
		return
	}
	if e.any {
		e.data = append(e.data, '\n')
	}
	e.data = append(e.data, bytes.TrimPrefix(value, []byte(" "))...)
	e.any = true
}
