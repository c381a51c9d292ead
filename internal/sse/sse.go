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
		line = bytes.TrimSuffix(line, []byte("\r"))
		var err error
		if data, ok := dataOf(line); ok && !e.open && len(piece) > 0 && piece[0] == '\n' {
			piece = piece[1:] // an event of one line, as most are: nothing to join
			err = each(data)
		} else {
			err = e.take(line, each)
		}
		e.line = e.line[:0]
		if err != nil {
			return err
		}
	}
}

// take reads one line.
func (e *Events) take(line []byte, each func([]byte) error) error {
	if part, ok := dataOf(line); ok {
		if e.open {
			e.data = append(e.data, '\n')
		}
		e.open, e.data = true, append(e.data, part...)
		return nil
	}
	if len(line) > 0 || !e.open {
		return nil
	}
	data := e.data
	e.open, e.data = false, e.data[:0]
	return each(data)
}

// dataOf returns what a line adds to an event's data, if it does.
func dataOf(line []byte) (part []byte, ok bool) {
	rest, ok := bytes.CutPrefix(line, []byte("data"))
	switch {
	case !ok:
		return nil, false
	case len(rest) == 0:
		return nil, true
	}
	part, ok = bytes.CutPrefix(rest, []byte(":"))
	return bytes.TrimPrefix(part, []byte(" ")), ok
}
