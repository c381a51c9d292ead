// Package sse puts server-sent events together again from pieces that end
// anywhere, also within a line or a letter. See the event stream format of the
// HTML standard; only data counts here: names, ids and comments are nothing to
// a text.
package sse

import "bytes"

// Events reads one stream. Its zero value is at the stream's beginning.
type Events struct {
	line []byte // the beginning of a line whose end has not come
	data []byte // of an event whose end has not come
	open bool   // whether data is an event's, also if empty
}

// Feed reads the next piece and calls each with the data of every event that
// it completes; lines of data are joined by line feeds. Data is the callee's
// until it returns; its error ends the call.
func (e *Events) Feed(piece []byte, each func(data []byte) error) error {
	for {
		end := bytes.IndexByte(piece, '\n')
		if end < 0 {
			e.line = append(e.line, piece...)
			return nil
		}
		line := piece[:end]
		if len(e.line) > 0 {
			e.line = append(e.line, line...)
			line = e.line
		}
		piece = piece[end+1:]
		err := e.take(bytes.TrimSuffix(line, []byte("\r")), each)
		e.line = e.line[:0]
		if err != nil {
			return err
		}
	}
}

// take reads one line.
func (e *Events) take(line []byte, each func([]byte) error) error {
	if len(line) > 0 {
		name, value, _ := bytes.Cut(line, []byte(":"))
		if string(name) == "data" {
			if e.open {
				e.data = append(e.data, '\n')
			}
			e.open, e.data = true, append(e.data, bytes.TrimPrefix(value, []byte(" "))...)
		}
		return nil
	}
	if !e.open {
		return nil
	}
	data := e.data
	e.open, e.data = false, e.data[:0]
	return each(data)
}
