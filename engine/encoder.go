package engine

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/millrace-ai/millrace/engine/page"
)

// Images are read by an encoder, a vision tower on a backend of its own, one image at a
// time on a goroutine of its own: what a tower computes for one image can take longer than
// any step, and nobody who is reading should wait for that. What it returns, the embedding
// rows, stays in a cache by the image's hash, within a budget of memory.
//
// A sequence holds the rows of those of its images that it is still to compute. It gets
// the memory for all of them at once (fetchImages), in the order of the queue, and is not
// admitted before they are there; so a sequence that runs never waits for the encoder. Rows
// are let go of when their tokens are in a batch. The first in line takes the memory of
// others that wait, so that no two can block each other.
//
// Images are encoded in the order in which they were asked for, but those of one sequence by
// turns with those of others (enqueue). What nobody waits for any more is abandoned.

// Encoder computes the embedding rows of images. One goroutine at a time calls it.
type Encoder interface {
	// Encode computes the rows of an image, as many as it has image tokens, in their
	// order, of plan.RowWidth floats each. It may return early, with an error, once ctx
	// has ended: nobody wants the rows then.
	Encode(ctx context.Context, m *Image, rows []float32) error
}

// imageRows is the rows of an image, from when there is memory for them.
type imageRows struct {
	hash  [sha256.Size]byte
	image *Image // to encode
	rows  []float32
	bytes int64
	holds int // of sequences
	state rowsState
	err   error      // of the encoder
	turn  int        // in images.queue; see enqueue
	gone  bool       // while it was encoded, those who asked for it have gone
	newer *imageRows // in images.unheld
	older *imageRows
}

type rowsState int

const (
	encodeLater rowsState = iota // in images.queue
	encodeNow                    // images.running
	encodeDone                   // rows are there
	encodeError                  // or err; nobody finds it any more
)

// images is what the loop keeps of the images of all sequences.
type images struct {
	entries map[[sha256.Size]byte]*imageRows
	used    int64        // bytes of rows
	queue   []*imageRows // by turn
	turn    int          // of the one that was encoded last
	running *imageRows
	abandon context.CancelFunc // ends the encoding of running
	done    chan *imageRows    // what the encoder has finished: one at most
	spawn   func(run func())   // starts a goroutine, but for tests
	changes int                // how often an image was encoded or memory let go of
	// Entries that nobody holds, the one let go of last first: a ring with a head.
	unheld imageRows
}

func newImages() *images {
	m := &images{
		entries: map[[sha256.Size]byte]*imageRows{},
		done:    make(chan *imageRows, 1),
		spawn:   func(run func()) { go run() },
	}
	m.unheld.newer, m.unheld.older = &m.unheld, &m.unheld
	return m
}

func (m *images) unlink(x *imageRows) {
	x.newer.older, x.older.newer = x.older, x.newer
	x.newer, x.older = nil, nil
}

// hold takes an entry for a sequence.
func (m *images) hold(x *imageRows) {
	if x.holds++; x.newer != nil {
		m.unlink(x)
	}
}

// enqueue adds what a sequence has asked for to what is to be encoded: its first image
// after those of this turn and of turns before, its second after those of the next turn,
// and so on, so that one request of many images does not hold up others.
func (m *images) enqueue(asked []*imageRows) {
	for i, x := range asked {
		x.turn = m.turn + i
		at, _ := slices.BinarySearchFunc(m.queue, x.turn+1, func(y *imageRows, turn int) int { return y.turn - turn })
		m.queue = slices.Insert(m.queue, at, x)
	}
}

// letGo gives it back. What nobody waits for is not encoded.
func (m *images) letGo(x *imageRows) {
	if x.holds--; x.holds > 0 {
		return
	}
	m.changes++
	switch x.state {
	case encodeLater:
		m.queue = slices.DeleteFunc(m.queue, func(y *imageRows) bool { return y == x })
		m.forget(x)
	case encodeNow:
		x.gone = true
		delete(m.entries, x.hash) // whoever asks now needs rows that will be there
		m.abandon()
	case encodeDone:
		x.older, x.newer = m.unheld.older, &m.unheld
		x.older.newer, x.newer.older = x, x
	case encodeError:
		m.used -= x.bytes
	}
}

// forget drops an entry with its rows.
func (m *images) forget(x *imageRows) {
	delete(m.entries, x.hash)
	m.used -= x.bytes
}

// makeRoom evicts what was not used for longest until there are so many bytes, and
// reports whether there are.
func (e *Engine) makeRoom(bytes int64) bool {
	m := e.images
	for e.cfg.Vision.Memory-m.used < bytes {
		oldest := m.unheld.newer
		if oldest == &m.unheld {
			return false
		}
		m.unlink(oldest)
		m.forget(oldest)
	}
	return true
}

// fetchImages asks for the rows of what waits, in order, and starts the encoder. It ends
// sequences with an image that cannot be encoded.
func (e *Engine) fetchImages() {
	if e.cfg.Vision == nil {
		return
	}
	m := e.images
	select {
	case x := <-m.done:
		e.takeRows(x)
	default:
	}
	for s := e.waiting.head; s != nil; {
		next := s.next
		if err := s.imageError(); err != nil {
			e.end(s, NotFinished, err)
			next = e.waiting.head // a fork of it may lead now
		}
		s = next
	}
	first := true
	for s := e.waiting.head; s != nil; s = s.next {
		if len(s.req.Images) == 0 {
			continue
		}
		if p := &s.pictures; p.asked != m.changes+1 || first && !p.first {
			e.askImages(s, first)
			p.asked, p.first = m.changes+1, first
		}
		first = false
	}
	if m.running == nil && len(m.queue) > 0 {
		x := m.queue[0]
		m.queue = slices.Delete(m.queue, 0, 1)
		m.running, m.turn, x.state = x, x.turn, encodeNow
		ctx, cancel := context.WithCancel(context.Background())
		m.abandon = cancel
		e.progress.CompareAndSwap(0, e.now().UnixNano())
		m.spawn(func() {
			x.err = e.encode(ctx, x)
			m.done <- x
			e.wakeLoop()
		})
	}
}

// encode runs the encoder, on its goroutine.
func (e *Engine) encode(ctx context.Context, x *imageRows) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	if err := e.cfg.Vision.Encoder.Encode(ctx, x.image, x.rows); err != nil {
		return err
	}
	for _, v := range x.rows {
		if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
			return errInvalidRows
		}
	}
	return nil
}

var errInvalidRows = errors.New("the vision tower produced NaN or infinite values")

// takeRows takes in what the encoder has finished.
func (e *Engine) takeRows(x *imageRows) {
	m := e.images
	m.abandon()
	e.progress.Store(e.now().UnixNano())
	m.running, m.abandon, x.image = nil, nil, nil
	m.changes++
	if x.gone {
		m.used -= x.bytes
		return
	}
	e.stats.imagesEncoded.Add(1)
	if x.err != nil {
		x.state, x.rows = encodeError, nil
		delete(m.entries, x.hash)
		return
	}
	x.state = encodeDone
}

// imageError is why an image of s cannot be encoded, nil if nothing is known.
func (s *sequence) imageError() error {
	for i := range s.pictures.images {
		if x := s.pictures.images[i].rows; x != nil && x.state == encodeError {
			return &Error{Kind: Failed, Msg: fmt.Sprintf("image %d of the request could not be encoded", i+1), Err: x.err}
		}
	}
	return nil
}

// askImages has s hold the rows of all images that it is to compute, or of none that are
// not there if there is no memory for all. The first of those that wait takes it from the
// others.
func (e *Engine) askImages(s *sequence, first bool) {
	m, v := e.images, e.cfg.Vision
	from := e.lookUp(s).Pages * page.Tokens
	s.pictures.from = from
	bytes := int64(0)
	for i := range s.req.Images {
		image, p := &s.req.Images[i], &s.pictures.images[i]
		switch {
		case image.end() <= from:
			m.release(p)
		case p.rows != nil:
		case m.entries[image.Hash] != nil:
			p.rows = m.entries[image.Hash]
			m.hold(p.rows)
		default:
			bytes += v.rowBytes(v.imageTokens(s.req, image))
		}
	}
	if bytes == 0 {
		return
	}
	room := e.makeRoom(bytes)
	for other := e.waiting.tail; !room && first && other != s; other = other.prev {
		e.releaseImages(other)
		other.pictures.asked = 0
		room = e.makeRoom(bytes)
	}
	if !room {
		return
	}
	var asked []*imageRows
	for i := range s.req.Images {
		image, p := &s.req.Images[i], &s.pictures.images[i]
		if image.end() <= from || p.rows != nil {
			continue
		}
		if x := m.entries[image.Hash]; x != nil { // the same image twice
			p.rows = x
			m.hold(x)
			continue
		}
		n := v.imageTokens(s.req, image)
		x := &imageRows{hash: image.Hash, image: image, bytes: v.rowBytes(n), rows: make([]float32, n*v.width)}
		m.used += x.bytes
		m.entries[x.hash], p.rows, p.fresh = x, x, true
		m.hold(x)
		asked = append(asked, x)
	}
	m.enqueue(asked)
}

// release lets go of the rows of an image.
func (m *images) release(p *picture) {
	if p.rows != nil {
		m.letGo(p.rows)
		p.rows = nil
	}
}

// releaseImages lets go of all rows of s.
func (e *Engine) releaseImages(s *sequence) {
	for i := range s.pictures.images {
		e.images.release(&s.pictures.images[i])
	}
	if len(s.pictures.images) > 0 && s.state != waiting {
		e.images.changes++ // others that wait can be made to let go, too
	}
}

// releaseComputed lets go of the rows that s has no use for, since their tokens are
// computed and will not be again.
func (e *Engine) releaseComputed(s *sequence) {
	computed := s.final(s.computed)
	for i := range s.pictures.images {
		p := &s.pictures.images[i]
		if s.req.Images[i].end() > computed {
			return
		}
		if p.rows != nil {
			e.images.release(p)
			e.images.changes++ // others that wait can be made to let go, too
		}
	}
}

// hasImages reports whether all rows are there that s needs to start from a place.
func (s *sequence) hasImages(from int) bool {
	for i := range s.pictures.images {
		x := s.pictures.images[i].rows
		if s.req.Images[i].end() > from && (x == nil || x.state != encodeDone) {
			return false
		}
	}
	return true
}

// cachedImages counts the images of s that the encoder did not read for it.
func (s *sequence) cachedImages() (n int64) {
	for i := range s.pictures.images {
		if !s.pictures.images[i].fresh {
			n++
		}
	}
	return n
}

// awaitsImages reports whether s, which waits, lacks rows, as far as is known.
func (e *Engine) awaitsImages(s *sequence) bool {
	return len(s.req.Images) > 0 && !s.hasImages(s.pictures.from)
}

// awaitEncoder ends what the encoder does, and waits for it: its backend may be closed after
// that.
func (e *Engine) awaitEncoder() {
	if m := e.images; m.running != nil {
		m.abandon()
		<-m.done
	}
}
