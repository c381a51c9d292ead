package sagemaker

import (
	"bytes"
	"io"
)

// events takes a stream of server-sent events apart, in pieces of any size.
// See the event stream format of the HTML standard; only data counts here.
type events struct {
	line []byte // the beginning of a line whose end has not come yet
	data []byte // of the event being read
	open bool   // it has data
}

// feed reads the next piece and calls emit with the data of each event that it
// completes, except the [DONE] that ends OpenAI's streams. Data on several
// lines, which a JSON value may have between its parts, is joined by spaces.
// Data is valid until emit returns; emit's error ends the call.
func (e *events) feed(piece []byte, emit func(data []byte) error) error {
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
		err := e.take(bytes.TrimSuffix(line, []byte("\r")), emit)
		if err != nil {
			return err
		}
		e.line, piece = e.line[:0], piece[end+1:]
	}
}

// take reads one line.
func (e *events) take(line []byte, emit func([]byte) error) error {
	if len(line) > 0 {
		if data, ok := bytes.CutPrefix(line, []byte("data:")); ok {
			if e.open {
				e.data = append(e.data, ' ')
			}
			e.open, e.data = true, append(e.data, bytes.TrimPrefix(data, []byte(" "))...)
		}
		return nil // comments, and fields that nobody sends
	}
	if !e.open {
		return nil
	}
	data := e.data
	e.open, e.data = false, e.data[:0]
	if string(data) == "[DONE]" {
		return nil
	}
	return emit(data)
}

// lineWriter writes the data of each event of a stream as one line. What one
// Write completes leaves in one Write.
type lineWriter struct {
	to     io.Writer
	events events
	out    []byte
}

// Write implements io.Writer.
func (l *lineWriter) Write(b []byte) (int, error) {
	l.out = l.out[:0]
	err := l.events.feed(b, func(data []byte) error {
		l.out = append(append(l.out, data...), '\n')
		return nil
	})
	if err == nil && len(l.out) > 0 {
		_, err = l.to.Write(l.out)
	}
	if err != nil {
		return 0, err
	}
	return len(b), nil
}
