package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
)

// verifier compares the content of a file with its checksum.
type verifier interface {
	// compares reports whether there is a checksum.
	compares() bool
	// add takes the bytes at an offset. prefixCheck adds the file in order.
	add(p []byte, offset int64)
	// check compares, after the whole file has been added.
	check() error
}

// prefixCheck verifies a file while it is being downloaded: in a goroutine of
// its own it reads back what is complete from the front. So little is left to
// read when the last byte arrives, and what an earlier process has downloaded is
// verified, too.
type prefixCheck struct {
	prefix atomic.Int64  // bytes from the front that have arrived
	wake   chan struct{} // there is more of them; closed by stop
	done   chan struct{}
	err    error // valid once done
}

// errStopped is that a check was stopped before the file was complete.
var errStopped = errors.New("stopped")

// startCheck starts to verify file, which will have size bytes. The caller calls
// stop before it closes file.
func startCheck(ctx context.Context, file *os.File, size int64, verifierOf func(context.Context) verifier) *prefixCheck {
	c := &prefixCheck{wake: make(chan struct{}, 1), done: make(chan struct{})}
	go func() {
		defer close(c.done)
		c.err = c.run(file, size, verifierOf(ctx))
	}()
	return c
}

func (c *prefixCheck) run(file io.ReaderAt, size int64, v verifier) error {
	var buf []byte
	if v.compares() {
		buf = make([]byte, min(size, 256<<10))
	}
	for at := int64(0); at < size; {
		if at == c.prefix.Load() {
			if _, more := <-c.wake; !more {
				return errStopped
			}
			continue
		}
		if buf == nil {
			at = c.prefix.Load()
			continue
		}
		n, err := file.ReadAt(buf[:min(int64(len(buf)), c.prefix.Load()-at)], at)
		if n == 0 && err != nil {
			return fmt.Errorf("read back: %w", err)
		}
		v.add(buf[:n], at)
		at += int64(n)
	}
	return v.check()
}

// arrived says how many bytes are there from the front.
func (c *prefixCheck) arrived(prefix int64) {
	c.prefix.Store(prefix)
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// wait returns the result, once the whole file has arrived.
func (c *prefixCheck) wait() error {
	<-c.done
	return c.err
}

// stop ends the check if it still waits for bytes.
func (c *prefixCheck) stop() {
	close(c.wake)
	<-c.done
}
