package sse

import (
	"errors"
	"io"
	"time"
)

// Read calls each with the data of every event of a stream, as Events.Feed does,
// until the stream ends. Its end is not an error. What one read of the stream brings
// into buf has come at the same moment.
func Read(stream io.Reader, buf []byte, each func(data []byte, at time.Time) error) error {
	var events Events
	for {
		n, err := stream.Read(buf)
		at := time.Now()
		if bad := events.Feed(buf[:n], func(data []byte) error { return each(data, at) }); bad != nil {
			return bad
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
