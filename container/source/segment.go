package source

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/millrace-ai/millrace/engine/weights"
)

const (
	// A hole up to this is read with what lies around it: a request of its own
	// takes longer.
	smallGap = 64 << 10
	// gapPart is the most of a hole that is read at once.
	gapPart = 256 << 10
	// A file with a checksum is read whole, so that it can be compared, if at
	// most this share of it is read for nothing else.
	checkedGap = 1.0 / 16
)

// part is a run of bytes that is read into one buffer.
type part struct {
	offset int64
	length int
	piece  int // index of the wanted piece, -1 for a hole
}

// segment is a range of an object that is read in one request, unless
// something goes wrong.
type segment struct {
	*object
	tally *tally
	parts []part // adjacent

	mu      sync.Mutex
	next    int // the first part that nobody has read yet
	started time.Time
	entered time.Time // the latest racer
	racers  map[*racer]struct{}
}

// racer is a connection that reads a segment; there are two when one is slow.
type racer struct{ cancel context.CancelFunc }

func (s *segment) begin() int64 { return s.parts[0].offset }
func (s *segment) end() int64 {
	last := s.parts[len(s.parts)-1]
	return last.offset + int64(last.length)
}

// enter adds a racer and returns the part it starts from.
func (s *segment) enter(r *racer) (next int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.racers == nil {
		s.racers, s.started = map[*racer]struct{}{}, time.Now()
	}
	s.entered = time.Now()
	s.racers[r] = struct{}{}
	return s.next
}

// claim reports whether r is the first to have read part i. Then the segment
// is its own: the others are cancelled.
func (s *segment) claim(r *racer, i int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next != i {
		return false
	}
	s.next++
	for other := range s.racers {
		if other != r {
			other.cancel()
			delete(s.racers, other)
		}
	}
	return true
}

// leave removes r and reports whether another still reads the segment, or it
// is done.
func (s *segment) leave(r *racer) (carried bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.racers, r)
	return len(s.racers) > 0 || s.next == len(s.parts)
}

// late reports whether one connection reads the segment, and nothing else has
// been tried for longer than a usual one takes, given in seconds per byte, times
// factor: where the link itself has slowed down, more of them would only share it.
func (s *segment) late(now time.Time, usual, factor float64, atLeast time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.racers) != 1 || s.next == len(s.parts) {
		return false
	}
	took := now.Sub(s.entered)
	return took > atLeast && took.Seconds() > factor*usual*float64(s.end()-s.begin())
}

// plan cuts the pieces of files into segments of about size bytes, in the
// order in which their first piece is wanted.
func plan(files map[string]*weightFile, pieces []weights.Piece, size int64) (segments []*segment) {
	byFile := map[*weightFile][]part{}
	for i, p := range pieces {
		f := files[p.File]
		byFile[f] = append(byFile[f], part{p.Offset, p.Length, i})
	}
	first := map[*segment]int{} // the piece by which a segment is ordered
	for f, parts := range byFile {
		slices.SortFunc(parts, func(a, b part) int { return cmp.Compare(a.offset, b.offset) })
		whole := coverable(parts, f)
		for _, s := range cut(f.object, parts, f.headerEnd(), whole, size) {
			s.tally = f.tally
			first[s] = len(pieces)
			for _, p := range s.parts {
				if p.piece >= 0 {
					first[s] = min(first[s], p.piece)
				}
			}
			segments = append(segments, s)
		}
	}
	slices.SortFunc(segments, func(a, b *segment) int {
		return cmp.Or(cmp.Compare(first[a], first[b]), cmp.Compare(a.begin(), b.begin()))
	})
	return segments
}

// coverable reports whether f should be read whole for its checksum: it has
// one, no byte is wanted twice, and not much lies between.
func coverable(parts []part, f *weightFile) bool {
	if f.tally.algorithm == nil {
		return false
	}
	at, holes := f.headerEnd(), int64(0)
	for _, p := range parts {
		if p.offset < at {
			return false
		}
		holes += p.offset - at
		at = p.offset + int64(p.length)
	}
	return float64(holes+f.size-at) <= checkedGap*float64(f.size)
}

// cut makes segments of about size bytes of the sorted parts of o. Small holes
// become parts of their own; so does all from byte start to the end of the
// object if the whole of it is to be read.
func cut(o *object, parts []part, start int64, whole bool, size int64) (segments []*segment) {
	var s *segment
	length := int64(0)
	add := func(p part) {
		if s == nil || length >= size || p.offset != s.end() {
			s, length = &segment{object: o}, 0
			segments = append(segments, s)
		}
		s.parts = append(s.parts, p)
		length += int64(p.length)
	}
	fill := func(from, to int64) {
		if !whole && to-from > smallGap {
			return
		}
		for ; from < to; from += gapPart {
			add(part{from, int(min(gapPart, to-from)), -1})
		}
	}
	at := parts[0].offset
	if whole {
		at = start
	}
	for _, p := range parts {
		fill(at, p.offset)
		add(p)
		at = max(at, p.offset+int64(p.length))
	}
	if whole {
		fill(at, o.size)
	}
	return segments
}
