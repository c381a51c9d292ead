package source

import (
	"context"
	"io"
	"io/fs"
	"sync"
)

const (
	prefetchBytes  = 2 << 20 // of a range that is read ahead
	mostPrefetched = 6       // ranges
)

// prefetcher reads an object front to back, some ranges at once. For one goroutine,
// except for Close.
type prefetcher struct {
	object  *object
	tally   func() *tally // waits for the checksum
	ctx     context.Context
	cancel  context.CancelFunc
	buffers *arena
	reads   sync.WaitGroup

	mu     sync.Mutex   // held by Read, so that Close does not take the memory from it
	next   int64        // first byte that has not been asked for
	queue  []prefetched // in order
	data   []byte       // of the first one, what is left
	buffer []byte       // that data lies in
	err    error        // of the first read that failed, for all later ones
}

// prefetched is a range that is being read.
type prefetched struct {
	offset int64
	buf    []byte
	done   chan error
}

func newPrefetcher(ctx context.Context, o *object) *prefetcher {
	f := &prefetcher{object: o, buffers: newArena(prefetchBytes, mostPrefetched)}
	f.ctx, f.cancel = context.WithCancel(ctx)
	f.tally = sync.OnceValue(func() *tally { return newTally(o.checksum(f.ctx), o.size) })
	go f.tally()
	return f
}

// Read implements io.Reader. At the end it has compared the checksum.
func (f *prefetcher) Read(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.err == nil && len(f.data) == 0 {
		if f.buffer != nil {
			f.buffers.put(f.buffer)
			f.buffer = nil
		}
		if f.err = f.ask(); f.err != nil {
			break
		}
		if len(f.queue) == 0 {
			return 0, f.finish()
		}
		first := f.queue[0]
		if f.err = <-first.done; f.err != nil {
			break
		}
		f.queue = f.queue[1:]
		f.data, f.buffer = first.buf, first.buf
	}
	if f.err != nil {
		return 0, f.err
	}
	n := copy(p, f.data)
	f.data = f.data[n:]
	return n, nil
}

// ask begins to read as many ranges as there may be.
func (f *prefetcher) ask() error {
	for len(f.queue) < mostPrefetched && f.next < f.object.size {
		buf, err := f.buffers.get()
		if err != nil {
			return err
		}
		r := prefetched{f.next, buf[:min(prefetchBytes, f.object.size-f.next)], make(chan error, 1)}
		f.next += int64(len(r.buf))
		f.queue = append(f.queue, r)
		f.reads.Go(func() {
			err := f.object.readAt(f.ctx, r.buf, r.offset)
			if err == nil {
				f.tally().add(r.buf, r.offset) // here, so that Read need not wait for it
			}
			r.done <- err
		})
	}
	return nil
}

func (f *prefetcher) finish() error {
	if err := f.tally().check(); err != nil {
		return &Error{f.object.String() + ": " + err.Error(), err}
	}
	return io.EOF
}

// Close makes all reading end, also a Read that another goroutine waits in.
func (f *prefetcher) Close() error {
	f.cancel()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reads.Wait()
	f.buffers.close()
	f.err = fs.ErrClosed
	return nil
}
