package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// remoteFile is a file on a server as it was when it was found: another content
// under the same name is refused. Safe for concurrent use.
type remoteFile interface {
	fmt.Stringer   // its place, for messages
	length() int64 // in bytes

	// open requests the bytes [from, to). The caller closes the answer.
	open(ctx context.Context, from, to int64) (io.ReadCloser, error)
	// retry decides after a failed request, the tries-th in a row that brought
	// nothing: nil means that it has waited, and the caller tries again.
	retry(ctx context.Context, err error, tries int) error
	// explain makes the one line about a failed read.
	explain(err error) error
}

// rangeReader reads the bytes from at to end of a file, in order. After a fault
// it continues with a new request at the byte where the last one stopped. For
// one goroutine, which closes it.
type rangeReader struct {
	file    remoteFile
	idle    time.Duration // without a byte until a request is given up
	at, end int64

	body   io.ReadCloser
	cancel context.CancelCauseFunc
	timer  *time.Timer
	tries  int // in a row without a byte
}

// readRange fills p with the bytes of file from offset on.
func readRange(ctx context.Context, file remoteFile, idle time.Duration, p []byte, offset int64) error {
	r := &rangeReader{file: file, idle: idle, at: offset, end: offset + int64(len(p))}
	defer r.close()
	return r.fill(ctx, p)
}

// fill fills p, which lies before end, with the bytes that follow.
func (r *rangeReader) fill(ctx context.Context, p []byte) error {
	for len(p) > 0 {
		n, err := r.read(ctx, p)
		p = p[n:]
		r.at += int64(n)
		if n > 0 {
			r.tries = 0
		}
		if err == nil || len(p) == 0 && errors.Is(err, io.EOF) {
			continue
		}
		r.close()
		r.tries++
		if err := r.file.retry(ctx, err, r.tries); err != nil {
			return r.file.explain(err)
		}
	}
	return nil
}

// read reads some bytes, at least one without an error.
func (r *rangeReader) read(ctx context.Context, p []byte) (int, error) {
	if r.body == nil {
		if err := r.open(ctx); err != nil {
			return 0, r.cause(ctx, err)
		}
	}
	r.timer.Reset(r.idle)
	n, err := r.body.Read(p)
	r.timer.Stop()
	if n == 0 && err == nil {
		err = io.ErrNoProgress
	}
	if errors.Is(err, io.EOF) && r.at+int64(n) < r.end {
		err = io.ErrUnexpectedEOF
	}
	return n, r.cause(ctx, err)
}

// open requests what is left.
func (r *rangeReader) open(ctx context.Context) (err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	r.cancel = cancel
	r.timer = time.AfterFunc(r.idle, func() { cancel(errIdle) })
	r.body, err = r.file.open(ctx, r.at, r.end)
	return err
}

// cause replaces the error of a request that was given up for being idle.
func (r *rangeReader) cause(ctx context.Context, err error) error {
	if err != nil && ctx.Err() == nil && errors.Is(err, context.Canceled) {
		return errIdle
	}
	return err
}

// close ends the request that is under way.
func (r *rangeReader) close() {
	if r.cancel == nil {
		return
	}
	r.timer.Stop()
	if r.body != nil {
		r.body.Close()
	}
	r.cancel(nil)
	r.body, r.cancel = nil, nil
}
