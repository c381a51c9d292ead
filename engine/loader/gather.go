package loader

import (
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/plan"
	"github.com/millrace-ai/millrace/engine/quant"
)

// gatherer hands pieces of sources to a backend: as they are where a tensor's
// rows are those of the checkpoint or the backend converts them, else converted, picked, transposed or decoded
// by workers while further pieces arrive. The backend is called by the one
// goroutine that calls the gatherer.
type gatherer struct {
	backend taker
	plan    *plan.Plan
	jobs    chan job
	done    chan []rows
	open    int // jobs that are not done
}

// taker is given the rows of tensors: a backend, or what writes a checkpoint.
type taker interface {
	WriteTensor(h device.Handle, first, n int, src []byte) error
}

// job is a piece with work to do, and a copy of its bytes.
type job struct {
	piece
	data []byte
}

// rows are n rows of a tensor, ready for the backend.
type rows struct {
	tensor, first, n int
	data             []byte
	from, to         plan.Format // of data and of the tensor: the backend converts them if they differ
}

// whole is a run of rows of a tensor that must be complete before they are handed
// over: of a vector, or of a transposed part, each row of which takes an element
// of every row of the source.
type whole struct {
	first, rows, cols int
	format            plan.Format // of elements meanwhile
	once              sync.Once
	data              []byte
	missing           atomic.Int64 // elements
}

func newWhole(first, rows, cols int, format plan.Format) *whole {
	if format.Quantized() {
		format = plan.F32
	}
	w := &whole{first: first, rows: rows, cols: cols, format: format}
	w.missing.Store(int64(rows) * int64(cols))
	return w
}

// spreading is a matrix whose rows are put together from pieces of all of them.
type spreading struct {
	once  sync.Once
	codes []byte       // [rows, cols]
	done  atomic.Int64 // stored rows
}

func newGatherer(b taker, p *plan.Plan) *gatherer {
	g := &gatherer{backend: b, plan: p, jobs: make(chan job), done: make(chan []rows)}
	const most = 4 // more wait for the source, or for the backend
	for range min(most, runtime.GOMAXPROCS(0)) {
		go func() {
			for j := range g.jobs {
				g.done <- j.run()
			}
		}()
	}
	return g
}

// take hands over a piece, or gives it to the workers. data is not kept.
func (g *gatherer) take(p piece, data []byte) error {
	s := p.source
	switch {
	case s.of != nil:
		return g.takeBeside(p, data)
	case s.adopt != nil:
		if s.missing -= copy(s.data[p.first*s.rowBytes:], data); s.missing > 0 {
			return nil
		}
		return s.adopt()
	}
	work := false
	for _, u := range s.uses {
		first, n := u.within(p)
		if n == 0 {
			continue
		}
		if !u.direct {
			work = true
			continue
		}
		at := (u.Rows.First + first - p.first) * s.rowBytes
		if err := g.write(rows{u.tensor, u.To + first, n, data[at:][:n*s.rowBytes], u.from, u.to}); err != nil {
			return err
		}
	}
	if !work {
		return nil
	}
	j := job{p, slices.Clone(data)}
	if s.missing > 0 {
		s.waiting = append(s.waiting, j)
		return nil
	}
	return g.submit(j)
}

// takeBeside keeps a piece of what stands beside codes. When all of it has come,
// those that wait are decoded.
func (g *gatherer) takeBeside(p piece, data []byte) error {
	s := p.source
	s.missing -= copy(s.data[p.first*s.rowBytes:], data)
	if s.missing > 0 {
		return nil
	}
	s = s.of
	if s.missing--; s.missing > 0 {
		return nil
	}
	if err := s.prepare(); err != nil {
		return err
	}
	for _, j := range s.waiting {
		if err := g.submit(j); err != nil {
			return err
		}
	}
	s.waiting = nil
	return nil
}

// submit gives a job to a worker as soon as one is free, and hands over what they
// have done meanwhile.
func (g *gatherer) submit(j job) error {
	for {
		select {
		case g.jobs <- j:
			g.open++
			return nil
		case ready := <-g.done:
			g.open--
			if err := g.write(ready...); err != nil {
				return err
			}
		}
	}
}

// finish ends the workers and hands over what is left, unless there was an error,
// which it returns.
func (g *gatherer) finish(err error) error {
	close(g.jobs)
	for ; g.open > 0; g.open-- {
		if ready := <-g.done; err == nil {
			err = g.write(ready...)
		}
	}
	return err
}

func (g *gatherer) write(list ...rows) error {
	for _, r := range list {
		if err := r.give(g.backend); err != nil {
			return fmt.Errorf("tensor %q: %w", g.plan.Tensors[r.tensor].Name, err)
		}
	}
	return nil
}

func (r *rows) give(to taker) error {
	if r.from == r.to {
		return to.WriteTensor(device.Handle(r.tensor), r.first, r.n, r.data)
	}
	return to.(device.Converter).ConvertTensor(device.Handle(r.tensor), r.first, r.n, r.data, r.from)
}

// within returns which of the part's rows, counted from its first, piece p has.
func (u *use) within(p piece) (first, n int) {
	// before counts the part's rows before row of the source.
	before := func(row int) int {
		return min(max((row-u.Rows.First+u.Rows.Step-1)/u.Rows.Step, 0), u.Rows.N)
	}
	if p.first > u.Rows.First {
		first = before(p.first)
	}
	if end := p.first + p.n; end > u.Rows.First {
		n = before(end) - first
	}
	return first, n
}

// encode returns the rows in the format of the tensor.
func (w *whole) encode(to plan.Format) []byte {
	if to == w.format {
		return w.data
	}
	rowBytes := to.RowBytes(w.cols)
	packed, row := make([]byte, w.rows*rowBytes), make([]float32, w.cols)
	for i := range w.rows {
		quant.Decode(row, w.data[i*w.cols*w.format.Size():], w.format)
		quant.Encode(packed[i*rowBytes:][:rowBytes], row, to)
	}
	w.data = nil
	return packed
}

// run makes rows of tensors of a piece.
func (j *job) run() (ready []rows) {
	s, data, width := j.source, j.data, j.source.rowBytes
	defer func() {
		if s.pieces.Add(-1) == 0 {
			s.release()
		}
	}()
	if s.spread != nil {
		if data, width = s.gather(j), s.cols; data == nil {
			return nil
		}
		j.piece = piece{s, 0, s.rows}
	}
	for _, u := range s.uses {
		first, n := u.within(j.piece)
		if n == 0 || u.direct {
			continue
		}
		c := converter{source: s, use: u, to: u.from}
		if u.whole != nil {
			c.to = u.whole.format
		}
		rowBytes := c.to.RowBytes(u.Cols.N)
		chunk := make([]byte, n*rowBytes)
		for i := range n {
			row := u.Rows.First + (first+i)*u.Rows.Step
			c.row(chunk[i*rowBytes:][:rowBytes], data[(row-j.first)*width:][:width], row+u.Quarter*s.stored)
		}
		if u.whole == nil {
			ready = append(ready, rows{u.tensor, u.To + first, n, chunk, u.from, u.to})
		} else if u.whole.put(u, first, n, chunk) {
			ready = append(ready, rows{u.tensor, u.whole.first, u.whole.rows, u.whole.encode(u.to), u.to, u.to})
		}
	}
	return ready
}

// release lets go of what is not needed after the last row.
func (s *source) release() {
	s.encoding = encoding{}
	for _, b := range s.beside {
		b.data = nil
	}
}

// gather spreads a piece over the rows of a matrix, and returns all of them after
// the last.
func (s *source) gather(j *job) []byte {
	g := &s.spreading
	g.once.Do(func() { g.codes = make([]byte, s.rows*s.cols) })
	s.spread(g.codes, j.data, j.first, j.n)
	if g.done.Add(int64(j.n)) < int64(s.stored) {
		return nil
	}
	codes := g.codes
	g.codes = nil
	return codes
}

// converter makes rows of a part in format to.
type converter struct {
	*source
	*use
	to     plan.Format
	all    []float32 // elements of a row of the source
	picked []float32 // those that are used
}

// row writes a row, of which src are the stored bytes.
func (c *converter) row(dst, src []byte, row int) {
	if c.source.direct && !c.source.format.Quantized() && c.source.format == c.to {
		pick(dst, src, c.Cols, c.to.Size())
		return
	}
	if c.packed && (c.source.direct && copy(dst, src) > 0 || c.pack != nil && c.pack(dst, src, row)) {
		return
	}
	if c.all == nil {
		cols := 1
		if shape := c.use.Shape; len(shape) > 1 {
			cols = shape[len(shape)-1]
		}
		c.all = make([]float32, cols)
		c.picked = make([]float32, c.Cols.N)
	}
	c.decode(c.all, src, row)
	picked := c.all
	if c.Cols.Step != 1 || c.Cols.N != len(c.all) {
		picked = c.picked
		for i := range picked {
			picked[i] = c.all[c.Cols.First+i*c.Cols.Step]
		}
	}
	var rounding *quant.Rounding
	if c.rounding != nil {
		rounding = c.rounding()
	}
	rounding.Encode(dst, picked, c.to)
}

// pick copies columns of elements of size bytes.
func pick(dst, src []byte, cols plan.Range, size int) {
	at, step := cols.First*size, cols.Step*size
	if cols.Step == 1 {
		copy(dst, src[at:])
		return
	}
	for i := range cols.N {
		copy(dst[i*size:][:size], src[at+i*step:])
	}
}

// put places n rows of part u, from its row first on, and reports whether w is
// complete.
func (w *whole) put(u *use, first, n int, chunk []byte) bool {
	size := w.format.Size()
	w.once.Do(func() { w.data = make([]byte, w.rows*w.cols*size) })
	cols := u.Cols.N
	at := 0 // of the part in w
	if w.first == 0 && w.rows == 1 {
		at = u.To * size // a vector: rows are elements
	}
	if !u.Transpose {
		copy(w.data[at+first*cols*size:], chunk)
	} else {
		// In tiles, so that both sides stay in the cache.
		const tile = 64
		stride := u.Rows.N * size
		for c0 := 0; c0 < cols; c0 += tile {
			for r := range n {
				src := chunk[(r*cols+c0)*size:]
				dst := w.data[at+c0*stride+(first+r)*size:]
				for c := range min(tile, cols-c0) {
					if size == 2 {
						*(*[2]byte)(dst[c*stride:]) = [2]byte(src[c*2:])
					} else {
						*(*[4]byte)(dst[c*stride:]) = [4]byte(src[c*4:])
					}
				}
			}
		}
	}
	return w.missing.Add(-int64(n)*int64(cols)) == 0
}
