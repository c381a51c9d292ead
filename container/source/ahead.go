package source

import (
	"context"
	"io"
)

const (
	aheadBytes = 4 << 20 // of a range that is read ahead
	aheadMost  = 6       // ranges
)

// ahead reads an object front to back, some ranges at once. For one goroutine.
type ahead struct {
	object *object
	tally  *tally
	ctx    context.Context
	cancel context.CancelFunc
	sum    chan checksum

	next   int64       // first byte that has not been asked for
	queue  []aheadRead // in order
	data   []byte      // of the first one, what is left
	buffer []byte      // that data lies in
	free   [][]byte
	err    error // of the first read that failed, for all later ones
}

// aheadRead is a range that is being read.
type aheadRead struct {
	offset int64
	buf    []byte
	done   chan error
}

func newAhead(ctx context.Context, o *object) *ahead {
	a := &ahead{object: o, sum: make(chan checksum, 1)}
	a.ctx, a.cancel = context.WithCancel(ctx)
	go func() { a.sum <- o.checksum(a.ctx) }()
	return a
}

// Read implements io.Reader. At the end it has compared the checksum.
func (a *ahead) Read(p []byte) (int, error) {
	for len(a.data) == 0 {
		if a.buffer != nil {
			a.free, a.buffer = append(a.free, a.buffer), nil
		}
		a.ask()
		if len(a.queue) == 0 {
			return 0, a.finish()
		}
		first := a.queue[0]
		if a.err == nil {
			a.err = <-first.done
		}
		if a.err != nil {
			return 0, a.err
		}
		a.queue = a.queue[1:]
		if a.tally == nil {
			a.tally = newTally(<-a.sum, a.object.size)
		}
		a.tally.add(first.buf, first.offset)
		a.data, a.buffer = first.buf, first.buf
	}
	n := copy(p, a.data)
	a.data = a.data[n:]
	return n, nil
}

// ask begins to read as many ranges as there may be.
func (a *ahead) ask() {
	for len(a.queue) < aheadMost && a.next < a.object.size {
		r := aheadRead{offset: a.next, done: make(chan error, 1)}
		if last := len(a.free) - 1; last >= 0 {
			r.buf, a.free = a.free[last], a.free[:last]
		} else {
			r.buf = make([]byte, aheadBytes)
		}
		r.buf = r.buf[:min(aheadBytes, a.object.size-a.next)]
		a.next += int64(len(r.buf))
		a.queue = append(a.queue, r)
		go func() { r.done <- a.object.readAt(a.ctx, r.buf, r.offset) }()
	}
}

func (a *ahead) finish() error {
	if a.tally != nil {
		if err := a.tally.check(); err != nil {
			return &Error{a.object.name() + ": " + err.Error(), err}
		}
	}
	return io.EOF
}

// Close makes all reading end, also a Read that another goroutine waits in.
func (a *ahead) Close() error {
	a.cancel()
	return nil
}
