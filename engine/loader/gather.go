package loader

import (
	"encoding/binary"
	"fmt"
	"math"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/plan"
	"github.com/millrace-ai/millrace/engine/quant"
)

// gatherer hands pieces of sources to a backend: as they are where a tensor's
// rows are those of the checkpoint, else converted, picked, transposed or decoded
// by workers while further pieces arrive. The backend is called by the one
// goroutine that calls the gatherer.
type gatherer struct {
	backend device.Backend
	plan    *plan.Plan
	jobs    chan job
	done    chan []rows
	open    int // jobs that are not done
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
}

// whole is a run of rows of a tensor that must be complete before they are handed
// over: of a vector, or of a transposed part, each row of which takes an element
// of every row of the source.
type whole struct {
	first, rows, cols int
	size              int // bytes of an element
	once              sync.Once
	data              []byte
	missing           atomic.Int64 // elements
}

func newWhole(first, rows, cols int, format plan.Format) *whole {
	w := &whole{first: first, rows: rows, cols: cols, size: format.Size()}
	w.missing.Store(int64(rows) * int64(cols))
	return w
}

// scales are those of a source in MXFP4, or the one of ternary numbers. Blocks that come before them wait.
type scales struct {
	blocks  *source
	data    []byte
	missing int
	waiting []job
}

// newScales makes the scales of blocks from source by, which is read whole.
func newScales(blocks, by *source) *scales {
	by.scales = &scales{blocks: blocks, missing: int(by.Size)}
	return by.scales
}

func newGatherer(b device.Backend, p *plan.Plan) *gatherer {
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
	if len(s.uses) == 0 { // scales
		return g.takeScales(p, data)
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
		if err := g.write(rows{u.tensor, u.To + first, n, data[at:][:n*s.rowBytes]}); err != nil {
			return err
		}
	}
	if !work {
		return nil
	}
	j := job{p, slices.Clone(data)}
	if s.scales != nil && s.scales.missing > 0 {
		s.scales.waiting = append(s.scales.waiting, j)
		return nil
	}
	return g.submit(j)
}

func (g *gatherer) takeScales(p piece, data []byte) error {
	s := p.source.scales
	if s.data == nil {
		s.data = make([]byte, p.source.Size)
	}
	s.missing -= copy(s.data[p.first*p.source.rowBytes:], data)
	if s.missing > 0 {
		return nil
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
		if err := g.backend.WriteTensor(device.Handle(r.tensor), r.first, r.n, r.data); err != nil {
			return fmt.Errorf("tensor %q: %w", g.plan.Tensors[r.tensor].Name, err)
		}
	}
	return nil
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

// run makes rows of tensors of a piece.
func (j *job) run() (ready []rows) {
	for _, u := range j.source.uses {
		first, n := u.within(j.piece)
		if n == 0 || u.direct {
			continue
		}
		width := u.Cols.N * u.to.Size()
		chunk := make([]byte, n*width)
		for i := range n {
			row := u.Rows.First + (first+i)*u.Rows.Step
			src := j.data[(row-j.first)*j.source.rowBytes:][:j.source.rowBytes]
			dst := chunk[i*width:][:width]
			switch u.Encoding {
			case plan.EncodingMXFP4:
				perRow := j.source.rowBytes / mxfp4Bytes
				decodeMXFP4(dst, u, src, j.source.scales.data[row*perRow:][:perRow])
			case plan.EncodingTernary:
				decodeTernary(dst, u, src, j.source.scales.data)
			default:
				convert(dst, u, src)
			}
		}
		if u.whole == nil {
			ready = append(ready, rows{u.tensor, u.To + first, n, chunk})
		} else if u.whole.put(u, first, n, chunk) {
			ready = append(ready, rows{u.tensor, u.whole.first, u.whole.rows, u.whole.data})
		}
	}
	return ready
}

// put places n rows of part u, from its row first on, and reports whether w is
// complete.
func (w *whole) put(u *use, first, n int, chunk []byte) bool {
	w.once.Do(func() { w.data = make([]byte, w.rows*w.cols*w.size) })
	cols := u.Cols.N
	at := 0 // of the part in w
	if w.first == 0 && w.rows == 1 {
		at = u.To * w.size // a vector: rows are elements
	}
	if !u.Transpose {
		copy(w.data[at+first*cols*w.size:], chunk)
	} else {
		// In tiles, so that both sides stay in the cache.
		const tile = 64
		stride := u.Rows.N * w.size
		for c0 := 0; c0 < cols; c0 += tile {
			for r := range n {
				src := chunk[(r*cols+c0)*w.size:]
				dst := w.data[at+c0*stride+(first+r)*w.size:]
				for c := range min(tile, cols-c0) {
					if w.size == 2 {
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

// convert writes the columns of part u of a row of the source, widened if the
// tensor's format is wider.
func convert(dst []byte, u *use, src []byte) {
	size := u.from.Size()
	at, step := u.Cols.First*size, u.Cols.Step*size
	if u.from == u.to {
		if u.Cols.Step == 1 {
			copy(dst, src[at:])
			return
		}
		for i := range u.Cols.N {
			copy(dst[i*size:][:size], src[at+i*step:])
		}
		return
	}
	for i := range u.Cols.N {
		bits := binary.LittleEndian.Uint16(src[at+i*step:])
		wide := uint32(bits) << 16
		if u.from == plan.F16 {
			wide = math.Float32bits(quant.Half(bits))
		}
		binary.LittleEndian.PutUint32(dst[i*4:], wide)
	}
}

// A block of MXFP4 is 32 elements in 16 bytes with one scale (OCP Microscaling
// Formats 1.0).
const (
	mxfp4Block = 32
	mxfp4Bytes = 16
)

// mxfp4Shape is the shape of the blocks of a tensor [matrices, rows, cols]; that
// of the scales is its first three dimensions.
func mxfp4Shape(shape []int) []int {
	return []int{shape[0], shape[1], shape[2] / mxfp4Block, mxfp4Bytes}
}

// mxfp4 are the sixteen elements under each scale, as BF16, which holds all of
// them exactly but those beyond its range, which are infinite. Scale 255 is NaN.
var mxfp4 = sync.OnceValue(func() *[256][16]uint16 {
	elements := [8]float64{0, 0.5, 1, 1.5, 2, 3, 4, 6}
	var table [256][16]uint16
	for scale := range table {
		for e := range table[scale] {
			v := math.Ldexp(elements[e%8], scale-127)
			if scale == 255 {
				v = math.NaN()
			}
			if e >= 8 {
				v = -v
			}
			table[scale][e] = uint16(math.Float32bits(float32(v)) >> 16)
		}
	}
	return &table
})

// decodeMXFP4 writes the columns of part u of a row of blocks.
func decodeMXFP4(dst []byte, u *use, src, scales []byte) {
	table := mxfp4()
	for i := range u.Cols.N {
		c := u.Cols.First + i*u.Cols.Step
		bits := table[scales[c/mxfp4Block]][src[c/2]>>(c%2*4)&15]
		if u.to == plan.BF16 {
			binary.LittleEndian.PutUint16(dst[i*2:], bits)
		} else {
			binary.LittleEndian.PutUint32(dst[i*4:], uint32(bits)<<16)
		}
	}
}

// decodeTernary writes the columns of part u of a row of ternary numbers.
func decodeTernary(dst []byte, u *use, src, scale []byte) {
	one := *u
	one.Cols = plan.Range{First: 0, Step: 1, N: 1}
	size := u.to.Size()
	var values [4][4]byte // what 0 to 3 stand for; the last does not occur
	convert(values[2][:size], &one, scale)
	values[0] = values[2]
	values[0][size-1] ^= 0x80
	for i := range u.Cols.N {
		c := u.Cols.First + i*u.Cols.Step
		copy(dst[i*size:][:size], values[src[c]>>(2*u.Quarter)&3][:])
	}
}
