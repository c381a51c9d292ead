package source

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace-ai/millrace/engine/weights"
)

const (
	hedgeFactor = 3 // a range is slow when it takes so many times what 95 % take
	fewFinished = 8 // ranges, before anything is known about what is usual

	spareBuffers = 8 // beside one for each connection

	// Buffers take little beside what is read: a large model comes over many
	// connections, and a small one is there before there would be so many.
	leastBuffers = 12 << 20 // bytes: enough for 1.4 GB/s from S3
	bufferShare  = 0.01     // of what is read
)

// streamFile is a file that a stream reads.
type streamFile struct {
	remoteFile
	tally *tally // takes what is read, nil for none
	start int64  // the first byte that may be wanted: what precedes it has been read
}

// stream reads ranges of files over several connections and hands over what arrives.
//
// Each connection is a goroutine that takes the next range, reads part after
// part into buffers of a common pool, and sends the full ones to the caller's
// goroutine, which alone calls take, starts connections and decides how many.
// All of them end before run returns.
type stream struct {
	tune     tuning
	throttle *atomic.Int64 // counts answers that asked for less
	requests []*rangeRequest
	buffers  *pool

	ctx    context.Context
	cancel context.CancelCauseFunc
	group  sync.WaitGroup
	filled chan filled
	next   atomic.Int64 // request to be made
	active atomic.Int64 // connections that read ranges of their own
	limit  atomic.Int64 // of them
	bytes  atomic.Int64 // that have arrived

	mu       sync.Mutex
	running  map[*rangeRequest]struct{}
	finished []float64 // seconds per byte of the latest ranges
}

// filled is a part that has arrived.
type filled struct {
	part
	buf []byte
}

// newStream prepares to read pieces of files. tune bounds the memory.
func newStream(tune tuning, throttle *atomic.Int64, files map[string]*streamFile, pieces []weights.Piece) *stream {
	total, longest := int64(0), gapPart
	for _, p := range pieces {
		total += int64(p.Length)
		longest = max(longest, p.Length)
	}
	// Each connection fills one buffer; a few more are full and wait their turn.
	bytes := min(tune.bufferBytes, max(leastBuffers, int64(bufferShare*float64(total))))
	most := int(max(fewest, min(int64(tune.mostConns), bytes/int64(longest)-spareBuffers)))
	s := &stream{tune: tune, throttle: throttle, running: map[*rangeRequest]struct{}{}, filled: make(chan filled, spareBuffers), buffers: newPool(most+spareBuffers, longest)}
	s.tune.mostConns = most
	s.tune.connections = min(tune.connections, most)
	// A small model is cut finer, so that every connection has something to do.
	size := max(1<<20, min(tune.segment, total/int64(2*s.tune.connections)))
	s.requests = plan(files, pieces, min(size, tune.segment))
	return s
}

// run reads everything, and calls take for each wanted piece on the caller's
// goroutine.
func (s *stream) run(ctx context.Context, take func(piece int, data []byte) error) error {
	left := 0
	for _, req := range s.requests {
		left += len(req.parts)
	}
	s.ctx, s.cancel = context.WithCancelCause(ctx)
	defer func() {
		s.cancel(context.Canceled)
		s.group.Wait()
		s.buffers.close()
	}()

	window := window{limit: s.tune.connections, most: s.tune.mostConns}
	s.limit.Store(int64(window.limit))
	ticker := time.NewTicker(s.tune.tick)
	defer ticker.Stop()
	since, bytes, throttles := time.Now(), int64(0), s.throttle.Load()
	s.start()
	for left > 0 {
		select {
		case f := <-s.filled:
			left--
			if f.piece >= 0 {
				if err := take(f.piece, f.buf); err != nil {
					return err
				}
			}
			s.buffers.put(f.buf)
		case now := <-ticker.C:
			if took := now.Sub(since); took >= s.tune.window {
				b, t := s.bytes.Load(), s.throttle.Load()
				s.limit.Store(int64(window.next(float64(b-bytes)/took.Seconds(), t != throttles)))
				since, bytes, throttles = now, b, t
			}
			s.start()
			s.hedge(now)
		case <-s.ctx.Done():
			return context.Cause(s.ctx)
		}
	}
	return nil
}

// start starts connections up to the limit, as long as there are ranges.
func (s *stream) start() {
	for s.active.Load() < s.limit.Load() && s.next.Load() < int64(len(s.requests)) {
		s.active.Add(1)
		s.group.Go(s.connect)
	}
}

// connect reads one range after another until there are no more, or more
// connections than there should be.
func (s *stream) connect() {
	defer s.active.Add(-1)
	for s.ctx.Err() == nil && s.active.Load() <= s.limit.Load() {
		i := s.next.Add(1) - 1
		if i >= int64(len(s.requests)) {
			return
		}
		req := s.requests[i]
		s.mu.Lock()
		s.running[req] = struct{}{}
		s.mu.Unlock()
		s.read(req)
	}
}

// read reads what is left of req, until it is done or another connection is
// faster.
func (s *stream) read(req *rangeRequest) {
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	me := &attempt{cancel}
	i := req.enter(me)
	if i == len(req.parts) {
		req.leave(me)
		return // done while this connection was being started
	}
	r := &rangeReader{file: req.file, idle: s.tune.idle, at: req.parts[i].offset, end: req.end()}
	defer r.close()
	for ; i < len(req.parts); i++ {
		p := req.parts[i]
		buf, err := s.buffers.get(ctx, p.length)
		if err == nil {
			err = r.fill(ctx, buf)
		}
		if err != nil {
			s.buffers.put(buf)
			// The other connection may get through.
			if !req.leave(me) && ctx.Err() == nil {
				s.cancel(err)
			}
			return
		}
		s.bytes.Add(int64(p.length))
		if !req.claim(me, i) {
			s.buffers.put(buf)
			req.leave(me)
			return
		}
		req.file.tally.add(buf, p.offset)
		select {
		case s.filled <- filled{p, buf}:
		case <-s.ctx.Done():
			return
		}
	}
	req.leave(me)
	s.finish(req)
}

// finish notes how long req took.
func (s *stream) finish(req *rangeRequest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.running, req)
	const latest = 64
	if len(s.finished) == latest {
		s.finished = s.finished[:copy(s.finished, s.finished[1:])]
	}
	s.finished = append(s.finished, time.Since(req.started).Seconds()/float64(req.end()-req.begin()))
}

// hedge starts a second connection for ranges that take much longer than
// others: a single slow server must not hold up the start. (J. Dean, L. A.
// Barroso: The Tail at Scale, CACM 56, 2013.)
func (s *stream) hedge(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.finished) < fewFinished {
		return
	}
	sorted := slices.Sorted(slices.Values(s.finished))
	usual := sorted[len(sorted)*95/100]
	// A few at a time: if all are slow, it is the link.
	allowed := max(1, int(s.limit.Load())/4)
	for req := range s.running {
		if allowed == 0 {
			return
		}
		if req.late(now, usual, hedgeFactor, s.tune.hedgeAfter) {
			allowed--
			s.group.Go(func() { s.read(req) })
		}
	}
}

// pool lends a number of buffers.
type pool struct {
	*arena
	tokens chan struct{}
}

func newPool(buffers, size int) *pool {
	return &pool{newArena(size, buffers), make(chan struct{}, buffers)}
}

// get returns a buffer of n bytes, at most the pool's size, when there is one.
func (p *pool) get(ctx context.Context, n int) ([]byte, error) {
	select {
	case p.tokens <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	buf, err := p.arena.get()
	if err != nil {
		<-p.tokens
		return nil, err
	}
	return buf[:n], nil
}

// put takes a buffer back; nil is none.
func (p *pool) put(buf []byte) {
	if buf == nil {
		return
	}
	p.arena.put(buf)
	<-p.tokens
}
