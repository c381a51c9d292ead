package sagemaker

import (
	"io"

	"github.com/millrace-ai/millrace/internal/sse"
)

// feed hands the events that a piece of the API's stream completes to emit,
// each as one line, except the [DONE] that ends OpenAI's streams. Line feeds
// are between the parts of a JSON value, where spaces mean the same.
func feed(events *sse.Events, piece []byte, emit func(line []byte) error) error {
	return events.Feed(piece, func(data []byte) error {
		if string(data) == "[DONE]" {
			return nil
		}
		for i, b := range data {
			if b == '\n' {
				data[i] = ' '
			}
		}
		return emit(data)
	})
}

// lineWriter writes the data of each event of a stream as one line. What one
// Write completes leaves in one Write.
type lineWriter struct {
	to     io.Writer
	events sse.Events
	out    []byte
}

// Write implements io.Writer.
func (l *lineWriter) Write(b []byte) (int, error) {
	l.out = l.out[:0]
	err := feed(&l.events, b, func(data []byte) error {
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
