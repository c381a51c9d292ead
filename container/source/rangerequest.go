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

// rangeRequest is a range of a file that is read in one request, unless
// something goes wrong.
type rangeRequest struct {
	file  *streamFile
	parts []part // adjacent

	mu       sync.Mutex
	next     int // the first part that has not been read yet
	started  time.Time
	entered  time.Time // the latest attempt
	attempts map[*attempt]struct{}
}

// attempt is a connection that reads a range; a slow one is hedged by a second.
type attempt struct{ cancel context.CancelFunc }

func (s *rangeRequest) begin() int64 { return s.parts[0].offset }
func (s *rangeRequest) end() int64 {
	last := s.parts[len(s.parts)-1]
	return last.offset + int64(last.length)
}

// enter adds an attempt and returns the part it starts from.
func (s *rangeRequest) enter(r *attempt) (next int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.attempts == nil {
		s.attempts, s.started = map[*attempt]struct{}{}, time.Now()
	}
	s.entered = time.Now()
	s.attempts[r] = struct{}{}
	return s.next
}

// claim reports whether r is the first to have read part i. Then the range
// is its own: the others are cancelled.
func (s *rangeRequest) claim(r *attempt, i int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next != i {
		return false
	}
	s.next++
	for other := range s.attempts {
		if other != r {
			other.cancel()
			delete(s.attempts, other)
		}
	}
	return true
}

// leave removes r and reports whether another still reads the range, or it
// is done.
func (s *rangeRequest) leave(r *attempt) (carried bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.attempts, r)
	return len(s.attempts) > 0 || s.next == len(s.parts)
}

// late reports whether one connection reads the range, and nothing else has
// been tried for longer than a usual one takes, given in seconds per byte, times
// factor: where the link itself has slowed down, more of them would only share it.
func (s *rangeRequest) late(now time.Time, usual, factor float64, atLeast time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.attempts) != 1 || s.next == len(s.parts) {
		return false
	}
	took := now.Sub(s.entered)
	return took > atLeast && took.Seconds() > factor*usual*float64(s.end()-s.begin())
}

// plan cuts the pieces of files into ranges of about size bytes, in the
// order in which their first piece is wanted.
func plan(files map[string]*streamFile, pieces []weights.Piece, size int64) (requests []*rangeRequest) {
	byFile := map[*streamFile][]part{}
	for i, p := range pieces {
		f := files[p.File]
		byFile[f] = append(byFile[f], part{p.Offset, p.Length, i})
	}
	first := map[*rangeRequest]int{} // the piece by which a request is ordered
	for f, parts := range byFile {
		slices.SortFunc(parts, func(a, b part) int { return cmp.Compare(a.offset, b.offset) })
		whole := coverable(parts, f)
		for _, s := range cut(f, parts, whole, size) {
			first[s] = len(pieces)
			for _, p := range s.parts {
				if p.piece >= 0 {
					first[s] = min(first[s], p.piece)
				}
			}
			requests = append(requests, s)
		}
	}
	slices.SortFunc(requests, func(a, b *rangeRequest) int {
		return cmp.Or(cmp.Compare(first[a], first[b]), cmp.Compare(a.begin(), b.begin()))
	})
	return requests
}

// coverable reports whether f should be read whole for its checksum: it has
// one, no byte is wanted twice, and not much lies between.
func coverable(parts []part, f *streamFile) bool {
	if !f.tally.compares() {
		return false
	}
	at, holes := f.start, int64(0)
	for _, p := range parts {
		if p.offset < at {
			return false
		}
		holes += p.offset - at
		at = p.offset + int64(p.length)
	}
	return float64(holes+f.length()-at) <= checkedGap*float64(f.length())
}

// cut makes requests of about size bytes of the sorted parts of f. Small holes
// become parts of their own; so does everything from f.start to the end of the
// file if the whole of it is to be read.
func cut(f *streamFile, parts []part, whole bool, size int64) (requests []*rangeRequest) {
	var r *rangeRequest
	length := int64(0)
	add := func(p part) {
		if r == nil || length >= size || p.offset != r.end() {
			r, length = &rangeRequest{file: f}, 0
			requests = append(requests, r)
		}
		r.parts = append(r.parts, p)
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
		at = f.start
	}
	for _, p := range parts {
		fill(at, p.offset)
		add(p)
		at = max(at, p.offset+int64(p.length))
	}
	if whole {
		fill(at, f.length())
	}
	return requests
}
