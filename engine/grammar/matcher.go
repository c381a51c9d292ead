package grammar

import (
	"errors"
	"fmt"

	"github.com/millrace-ai/millrace/engine/native"
)

var errClosed = errors.New("matcher is closed")

// A Matcher follows one sequence through its grammar. It is for one goroutine
// at a time. A method that fails leaves it failed: that sequence cannot go on,
// others are not concerned.
type Matcher struct {
	c *Compiler

	// While results are due, native and mask are a worker's.
	native  *native.Matcher // nil after Close
	mask    []uint32
	results chan result
	tokens  []int32 // of the last job
	due     int     // results to come
	move    *Move   // of the last job, once it is there
	ready   bool    // mask is that of the present place

	err error // why it failed
}

func (c *Compiler) matcher(m *native.Matcher) *Matcher {
	return &Matcher{c: c, native: m, results: make(chan result, 2)}
}

// settle waits for what the workers do with m.
func (m *Matcher) settle() error {
	for m.due > 0 {
		m.take(<-m.results)
	}
	if m.native == nil {
		return errClosed
	}
	return m.err
}

// take takes in a result.
func (m *Matcher) take(r result) {
	m.due--
	m.native = r.native
	if r.move != nil {
		m.move = r.move
	}
	m.ready = r.made
	if r.err != nil {
		m.err = failure(r.what, r.err)
	}
}

func (m *Matcher) fail(what string, err error) error {
	m.err = failure(what, err)
	return m.err
}

func failure(what string, err error) error {
	return fmt.Errorf("grammar %s: %s", what, oneLine(err.Error()))
}

// Mask writes which tokens may come next: MaskWords words, the bit of each
// allowed token set. At least one is; after the end only the ends of sequence are.
func (m *Matcher) Mask(dst []uint32) error {
	if err := m.settle(); err != nil {
		return err
	}
	if m.ready {
		copy(dst, m.mask)
		return nil
	}
	if err := m.native.Mask(dst); err != nil {
		return m.fail("mask", err)
	}
	return nil
}

// Accept moves the matcher past a token. It fails if the grammar does not allow it.
func (m *Matcher) Accept(token int32) error {
	if err := m.settle(); err != nil {
		return err
	}
	m.ready = false
	if err := m.native.Accept(token); err != nil {
		return m.fail(fmt.Sprintf("does not allow token %d", token), err)
	}
	return nil
}

// AcceptText moves the matcher past a text, however it is cut into tokens. It
// fails if the grammar does not allow it, or no tokens spell it.
func (m *Matcher) AcceptText(text []byte) error {
	tokens := m.c.vocabulary.encode(text)
	if m.c.vocabulary.text(tokens) != string(text) {
		return m.fail("text", errors.New("the vocabulary has no tokens for it"))
	}
	for _, id := range tokens {
		if err := m.Accept(id); err != nil {
			return err
		}
	}
	return nil
}

// Forced appends to dst the tokens that must come next, those that the model
// would have read that text as; none where there is a choice, or none yet in
// how the text is cut. The matcher does not move: Accept each. A failure shows
// with the next Mask.
func (m *Matcher) Forced(dst []int32) []int32 {
	for size := 64; m.settle() == nil; size *= 4 {
		forced := make([]int32, size)
		n, err := m.native.Forced(forced, 0)
		if err != nil {
			m.err = failure("forced tokens", err)
		} else if n < size {
			return append(dst, forced[:n]...)
		}
	}
	return dst
}

// Accepting reports whether the text so far is complete: it may end here.
func (m *Matcher) Accepting() bool { return m.settle() == nil && m.native.Accepting() }

// Err returns why the matcher has failed, nil if it has not.
func (m *Matcher) Err() error { return m.settle() }

// Done reports whether nothing may follow but the end, or the matcher has failed.
func (m *Matcher) Done() bool { return m.settle() != nil || m.native.Stopped() }

// Reset moves the matcher back to the beginning.
func (m *Matcher) Reset() error {
	if err := m.settle(); err != nil {
		return err
	}
	m.ready = false
	if err := m.native.Reset(); err != nil {
		return m.fail("reset", err)
	}
	return nil
}

// Clone returns a matcher at the same place that moves by itself, for a
// sequence that forks. A failed matcher has none, and ErrBusy is the error
// where there is no memory for it.
func (m *Matcher) Clone() (*Matcher, error) {
	if err := m.settle(); err != nil {
		return nil, err
	}
	return m.c.clone(m.native)
}

// Close gives the memory back. It does not wait for the workers, and may be called
// again.
func (m *Matcher) Close() {
	n, due := m.native, m.due
	m.native, m.due = nil, 0
	switch {
	case n == nil:
	case due > 0:
		go func() {
			for ; due > 0; due-- {
				n = (<-m.results).native
			}
			m.c.free(n)
		}()
	default:
		m.c.free(n)
	}
}
