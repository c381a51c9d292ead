package engine

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/page"
	"github.com/millrace-ai/millrace/engine/sim"
	"github.com/millrace-ai/millrace/engine/vision"
)

// imageToken stands for a row of an image in tests.
const imageToken int32 = 3

// paintingWidth is the number of floats of a row.
const paintingWidth = 4

// painting is an image of tests: its tokens, and whether the encoder can read it.
type painting struct {
	tokens []int32
	grid   [3]int
	hash   [sha256.Size]byte
}

// paint returns a painting of a seed with n tokens: as one run, in a grid, or with
// other tokens between.
func paint(seed uint64, n int, gridded, broken bool) painting {
	p := painting{tokens: make([]int32, n), hash: sha256.Sum256(binary.LittleEndian.AppendUint64([]byte("painting"), seed))}
	for i := range p.tokens {
		p.tokens[i] = imageToken
		if broken && i%5 == 3 && i+1 < n {
			p.tokens[i] = int32(1 + seed%2)
		}
	}
	if gridded && !broken {
		for height := 1; height <= n; height++ {
			if n%height == 0 && height*height <= n {
				p.grid = [3]int{1, height, n / height}
			}
		}
	}
	return p
}

// hang puts a painting into the prompt of a request, from a place on, as its last image.
func hang(r *Request, p *painting, place int) {
	copy(r.Tokens[place:], p.tokens)
	r.Images = append(r.Images, Image{Hash: p.hash, First: place, Count: len(p.tokens), Grid: p.grid})
}

// paintingRow returns a row of the painting with a hash.
func paintingRow(hash [sha256.Size]byte, row, width int) []float32 {
	out := make([]float32, width)
	for i := range out {
		sum := sha256.Sum256(binary.LittleEndian.AppendUint64(hash[:], uint64(row*width+i)))
		out[i] = float32(binary.LittleEndian.Uint32(sum[:]))
	}
	return out
}

// shown is the prompt of a request as the model sees it, with its rows.
func shown(r *Request, width int) (tokens []int32, rows []float32) {
	if len(r.Images) == 0 {
		return r.Tokens, nil
	}
	tokens = append(tokens, r.Tokens...)
	for i := range r.Images {
		m := &r.Images[i]
		row := 0
		for p := m.First; p < m.end(); p++ {
			if tokens[p] != imageToken {
				continue
			}
			tokens[p] = device.EmbedRow(len(rows) / max(1, width))
			rows = append(rows, paintingRow(m.Hash, row, width)...)
			row++
		}
	}
	return tokens, rows
}

// seen are the conditions of a request's images, computed otherwise than the engine does.
func (w *world) seen(r *Request, by *sim.Conditions) {
	if len(r.Images) == 0 {
		return
	}
	_, by.Embeds = shown(r, w.model.Hidden)
	next, image := int32(0), 0
	for p := 0; p < len(r.Tokens); p++ {
		if image == len(r.Images) || p != r.Images[image].First || r.Images[image].Grid == [3]int{} {
			by.Axes = append(by.Axes, next, next, next)
			next++
			if image < len(r.Images) && p+1 == r.Images[image].end() {
				image++
			}
			continue
		}
		g := r.Images[image].Grid
		for t := range g[0] {
			for y := range g[1] {
				for x := range g[2] {
					by.Axes = append(by.Axes, next+int32(t), next+int32(y), next+int32(x))
				}
			}
		}
		next += int32(max(g[0], g[1], g[2]))
		p += r.Images[image].Count - 1
		image++
	}
	switch w.e.cfg.Vision.Bidirectional {
	case vision.Causal:
		return
	case vision.WholePrompt:
		by.Spans = []device.Span{{Count: int32(len(r.Tokens))}}
		return
	}
	for i := range r.Images {
		m := &r.Images[i]
		for p := m.First; p < m.end(); p++ {
			last := len(by.Spans) - 1
			switch {
			case r.Tokens[p] != imageToken:
			case p > m.First && r.Tokens[p-1] == imageToken:
				by.Spans[last].Count++
			default:
				by.Spans = append(by.Spans, device.Span{Start: int32(p), Count: 1})
			}
		}
	}
}

// painter is the encoder of a world. It runs when the world has it run.
type painter struct {
	fault func() paintingFault // nil: none
	lane  []func()             // what is to be encoded
	late  func() bool          // it is not run in this turn; nil: never
	runs  int
	bad   int

	abandoned int
	read      [][sha256.Size]byte // what it has read, in order
}

type paintingFault int

const (
	noPaintingFault paintingFault = iota
	paintingError
	paintingNaN
	paintingPanic
)

var errPainting = errors.New("this painting cannot be read")

func (p *painter) Encode(ctx context.Context, m *Image, rows []float32) error {
	p.runs++
	p.read = append(p.read, m.Hash)
	if err := ctx.Err(); err != nil {
		p.abandoned++
		return err
	}
	width := paintingWidth
	for row := 0; row*width < len(rows); row++ {
		copy(rows[row*width:], paintingRow(m.Hash, row, width))
	}
	if p.fault == nil {
		return nil
	}
	fault := p.fault()
	if fault != noPaintingFault {
		p.bad++
	}
	switch fault {
	case paintingError:
		return errPainting
	case paintingNaN:
		rows[len(rows)/2] = float32(math.NaN())
	case paintingPanic:
		panic("no paint")
	}
	return nil
}

// paints gives a world an encoder; its model has rows of paintingWidth.
func (w *world) paints(p *painter) {
	w.painter = p
	w.e.images.spawn = func(run func()) { p.lane = append(p.lane, run) }
}

// encode runs the encoder if it is time, or if there is nothing else to do.
func (w *world) encode(idle bool) bool {
	p := w.painter
	if p == nil || len(p.lane) == 0 || !idle && p.late != nil && p.late() {
		return false
	}
	run := p.lane[0]
	p.lane = p.lane[1:]
	run()
	return true
}

// vision is the Vision of a Config with the encoder.
func (p *painter) vision(memory int64, bidirectional vision.Bidirectional) *Vision {
	return &Vision{Encoder: p, Token: imageToken, Memory: memory, Bidirectional: bidirectional}
}

// checkImages checks that rows are held by those who need them, and their memory counted.
func (w *world) checkImages() error {
	m, v := w.e.images, w.e.cfg.Vision
	if v == nil {
		return nil
	}
	holds, bytes := map[*imageRows]int{}, int64(0)
	note := func(s *sequence) error {
		for i := range s.pictures.images {
			x := s.pictures.images[i].rows
			if x == nil {
				if s.state == active && s.req.Images[i].end() > s.final(s.computed) {
					return fmt.Errorf("image %d of an active sequence has no rows, %d tokens are computed", i, s.computed)
				}
				continue
			}
			if s.state == active && s.req.Images[i].end() <= s.final(s.computed) {
				return fmt.Errorf("image %d of an active sequence is computed, and holds its rows", i)
			}
			if holds[x]++; x.state == encodeError && holds[x] == 1 {
				bytes += x.bytes
			}
		}
		return nil
	}
	for _, s := range w.e.active {
		if err := note(s); err != nil {
			return err
		}
	}
	for s := w.e.waiting.head; s != nil; s = s.next {
		if err := note(s); err != nil {
			return err
		}
	}
	unheld := 0
	for x := m.unheld.newer; x != &m.unheld; x = x.newer {
		unheld++
		if x.holds != 0 || x.state != encodeDone {
			return fmt.Errorf("rows that nobody holds have %d holders, state %d", x.holds, x.state)
		}
	}
	idle := 0
	for hash, x := range m.entries {
		bytes += x.bytes
		if x.hash != hash || x.holds != holds[x] {
			return fmt.Errorf("rows have %d holders, counted %d", holds[x], x.holds)
		}
		if x.holds == 0 && x.state == encodeDone {
			idle++
		}
		if x.holds == 0 && x.state == encodeLater {
			return errors.New("rows that nobody holds are to be encoded")
		}
	}
	switch {
	case idle != unheld:
		return fmt.Errorf("%d rows are held by nobody, %d may be evicted", idle, unheld)
	case m.running != nil && m.running.gone:
		bytes += m.running.bytes
	}
	switch {
	case bytes != m.used || bytes > v.Memory:
		return fmt.Errorf("rows take %d bytes, counted %d, the limit is %d", bytes, m.used, v.Memory)
	}
	return nil
}

// gallery is the paintings of a run, and who hangs them.
type gallery struct {
	rng       *rand.Rand
	paintings []painting
	memory    int64
}

// newGallery returns paintings for prompts of at most so many tokens.
func newGallery(rng *rand.Rand, longest int) *gallery {
	g := &gallery{rng: rng}
	for i := range uint64(4) {
		n := 1 + rng.IntN(min(40, max(1, longest)))
		p := paint(i, n, rng.IntN(2) == 0, rng.IntN(3) == 0)
		g.paintings = append(g.paintings, p)
		g.memory = max(g.memory, int64(4*paintingWidth*n))
	}
	g.memory *= int64(1 + rng.IntN(4))
	return g
}

// hang puts paintings into the prompt of a request, where others have them too, as many
// as an engine takes.
func (g *gallery) hang(r *Request, e *Engine) {
	place := []int{0, 1, page.Tokens - 1, page.Tokens, 20}[g.rng.IntN(5)]
	for range 1 + g.rng.IntN(3) {
		p := &g.paintings[g.rng.IntN(len(g.paintings))]
		if place+len(p.tokens) > len(r.Tokens) {
			break
		}
		before, tokens := r.Images, append([]int32(nil), r.Tokens...)
		hang(r, p, place)
		if e.checkImages(r) != nil {
			r.Images, r.Tokens = before, tokens
			break
		}
		place += len(p.tokens) + []int{0, 1, 7}[g.rng.IntN(3)]
	}
}
