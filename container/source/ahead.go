package source

import (
	"context"
	"io"
	"io/fs"
	"sync"
)

const (
	aheadBytes = 2 << 20 // of a range that is read ahead
	aheadMost  = 6       // ranges
)

// ahead reads an object front to back, some ranges at once. For one goroutine,
// but for Close.
type ahead struct {
	object  *object
	tally   *tally
	ctx     context.Context
	cancel  context.CancelFunc
	sum     chan checksum
	buffers *arena
	reads   sync.WaitGroup

	mu     sync.Mutex  // held by Read, so that Close does not take the memory from it
	next   int64       // first byte that has not been asked for
	queue  []aheadRead // in order
	data   []byte      // of the first one, what is left
	buffer []byte      // that data lies in
	err    error       // of the first read that failed, for all later ones
}

// aheadRead is a range that is being read.
type aheadRead struct {
	offset int64
	buf    []byte
	done   chan error
}

func newAhead(ctx context.Context, o *object) *ahead {
	a := &ahead{object: o, sum: make(chan checksum, 1), buffers: newArena(aheadBytes, aheadMost)}
	a.ctx, a.cancel = context.WithCancel(ctx)
	go func() { a.sum <- o.checksum(a.ctx) }()
	return a
}

// Read implements io.Reader. At the end it has compared the checksum.
func (a *ahead) Read(p []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for a.err == nil && len(a.data) == 0 {
		if a.buffer != nil {
			a.buffers.put(a.buffer)
			a.buffer = nil
		}
		if a.err = a.ask(); a.err != nil {
			break
		}
		if len(a.queue) == 0 {
			return 0, a.finish()
		}
		first := a.queue[0]
		if a.err = <-first.done; a.err != nil {
			break
		}
		a.queue = a.queue[1:]
		if a.tally == nil {
			a.tally = newTally(<-a.sum, a.object.size)
		}
		a.tally.add(first.buf, first.offset)
		a.data, a.buffer = first.buf, first.buf
	}
	if a.err != nil {
		return 0, a.err
	}
	n := copy(p, a.data)
	a.data = a.data[n:]
	return n, nil
}

// ask begins to read as many ranges as there may be.
func (a *ahead) ask() error {
	for len(a.queue) < aheadMost && a.next < a.object.size {
		buf, err := a.buffers.get()
		if err != nil {
			return err
		}
		r := aheadRead{a.next, buf[:min(aheadBytes, a.object.size-a.next)], make(chan error, 1)}
		a.next += int64(len(r.buf))
		a.queue = append(a.queue, r)
		a.reads.Go(func() { r.done <- a.object.readAt(a.ctx, r.buf, r.offset) })
	}
	return nil
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
	a.mu.Lock()
	defer a.mu.Unlock()
	a.reads.Wait()
	a.buffers.close()
	a.err = fs.ErrClosed
	return nil
}
