package engine

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"sort"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/page"
	"github.com/millrace-ai/millrace/engine/vision"
)

// Tokens that attend both ways are a span, which one step computes as a whole. A prefix
// that is cached ends before a span or after it.

// Vision is what an engine needs to know of a model that reads images.
type Vision struct {
	Encoder Encoder
	Token   int32 // the id of an image token
	Memory  int64 // bytes for the rows of images

	// Bidirectional says which tokens of a prompt with images attend both ways.
	Bidirectional vision.Bidirectional

	width int // of a row; set by New
}

// Image is an image of a Request.
type Image struct {
	// Hash names the image and all that its rows depend on. Two images with one hash
	// share rows and pages.
	Hash [sha256.Size]byte

	// First is its first image token in the prompt, and Count the number of tokens from
	// there to its last one. There may be others between, such as the ends of lines, which
	// are the same wherever the image is.
	First, Count int

	// Grid is the size in image tokens that positions of three axes count in: time,
	// height and width. Zero in models with positions of one axis.
	Grid [3]int

	// Input returns what the encoder reads. It is called when the image is encoded, on the
	// encoder's goroutine: not at all if its rows or its pages are cached, and again if they
	// were evicted meanwhile. What it returns is only read. ctx ends when nobody waits for
	// the image any more.
	Input func(ctx context.Context) (*vision.Image, error)
	Bytes int64 // of memory that Input keeps
}

// end returns the place after the last token.
func (m *Image) end() int { return m.First + m.Count }

// imageTokens counts the image tokens of m, which is an image of r.
func (v *Vision) imageTokens(r *Request, m *Image) (n int) {
	for _, t := range r.Tokens[m.First:m.end()] {
		if t == v.Token {
			n++
		}
	}
	return n
}

// checkImages refuses images that cannot work.
func (e *Engine) checkImages(r *Request) error {
	if len(r.Images) == 0 {
		return nil
	}
	v := e.cfg.Vision
	if v == nil {
		return invalid("the model reads no images")
	}
	if r.PromptLogprobs && v.Bidirectional == vision.WholePrompt {
		return invalid("the tokens of a prompt with images cannot be scored: with this model each of them has seen all others")
	}
	next, bytes := 0, int64(0)
	for i := range r.Images {
		m := &r.Images[i]
		if m.First < next || m.Count < 1 || m.Count > len(r.Tokens)-m.First {
			return invalid("image %d has %d tokens from %d on of %d, expected to begin at %d at least", i, m.Count, m.First, len(r.Tokens), next)
		}
		next = m.end()
		n := v.imageTokens(r, m)
		if r.Tokens[m.First] != v.Token || r.Tokens[next-1] != v.Token {
			return invalid("image %d does not begin and end with an image token", i)
		}
		if g := m.Grid; g != [3]int{} && (g[0] < 1 || g[1] < 1 || g[2] < 1 || g[0]*g[1]*g[2] != n || n != m.Count) {
			return invalid("image %d has %d image tokens of %d, its grid is %v", i, n, m.Count, g)
		}
		bytes += v.rowBytes(n)
	}
	if bytes > v.Memory {
		return invalid("the images take %d bytes of memory, the limit is %d (--image-memory)", bytes, v.Memory)
	}
	most := e.cfg.Device.MaxTokens - e.slots + 1 // beside one token of all others
	for _, span := range v.spans(r) {
		if n := int(span.Count); n > most {
			return invalid("%d tokens of the prompt attend both ways, so that one step must compute them, the limit is %d: --max-batch-prefill-tokens raises it", n, most)
		}
		pages := 0 // of a sequence that is alone, in that step
		for _, window := range e.shape.windows {
			pages += pagesFor(int(span.Start+span.Count)) - page.First(window, int(span.Start))
		}
		if pages > e.cfg.Pages {
			return invalid("%d tokens of the prompt attend both ways, which takes %d pages of the cache in one step, there are %d: --max-batch-total-tokens raises it", span.Count, pages, e.cfg.Pages)
		}
	}
	return nil
}

// rowBytes is what n embedding rows take.
func (v *Vision) rowBytes(n int) int64 { return 4 * int64(n) * int64(v.width) }

// spans returns the runs of tokens of r that attend both ways, by their place in the
// prompt.
func (v *Vision) spans(r *Request) (spans []device.Span) {
	switch {
	case v == nil || v.Bidirectional == vision.Causal || len(r.Images) == 0:
		return nil
	case v.Bidirectional == vision.WholePrompt:
		return []device.Span{{Count: int32(len(r.Tokens))}}
	}
	for i := range r.Images {
		m := &r.Images[i]
		start := -1
		for p := m.First; p <= m.end(); p++ {
			image := p < m.end() && r.Tokens[p] == v.Token
			switch {
			case image && start < 0:
				start = p
			case !image && start >= 0:
				spans = append(spans, device.Span{Start: int32(start), Count: int32(p - start)})
				start = -1
			}
		}
	}
	return spans
}

// contents says which tokens of r stand for images, for the keys of its pages.
func contents(r *Request) []page.Content {
	if len(r.Images) == 0 {
		return nil
	}
	all := make([]page.Content, len(r.Images))
	for i := range r.Images {
		m := &r.Images[i]
		all[i] = page.Content{Hash: m.Hash, First: m.First, Count: m.Count}
	}
	return all
}

// picture is what a sequence keeps for an image of its request.
type picture struct {
	rows  *imageRows // that it holds, nil: none
	fresh bool       // they were computed for it
	shift int32      // how far positions after the image are behind places in the sequence
}

// pictures is the images of a sequence.
type pictures struct {
	images []picture
	spans  []device.Span // of the prompt; shared by forks
	axes   bool          // positions have three axes
	asked  int           // images.changes when rows were last asked for, plus one
	first  bool          // and whether it was the first in line
	from   int           // where it would have started then
}

// newPictures returns those of a request, whose spans are given.
func newPictures(r *Request, spans []device.Span) (p pictures) {
	if len(r.Images) == 0 {
		return p
	}
	p.images, p.spans = make([]picture, len(r.Images)), spans
	shift := int32(0)
	for i := range r.Images {
		if g := r.Images[i].Grid; g != [3]int{} {
			shift += int32(r.Images[i].Count - max(g[0], g[1], g[2]))
			p.axes = true
		}
		p.images[i].shift = shift
	}
	return p
}

// shiftBefore returns how far the positions before image i, and that of its first token,
// are behind their places.
func (p *pictures) shiftBefore(i int) int32 {
	if i == 0 {
		return 0
	}
	return p.images[i-1].shift
}

// imageAt returns the image that the token at a place is part of, or the first one after
// it.
func (s *sequence) imageAt(place int) int {
	return sort.Search(len(s.req.Images), func(i int) bool { return s.req.Images[i].end() > place })
}

// isImageToken reports whether the token at a place stands for a row of an image.
func (e *Engine) isImageToken(s *sequence, place int) bool {
	i := s.imageAt(place)
	return i < len(s.req.Images) && place >= s.req.Images[i].First && s.req.Tokens[place] == e.cfg.Vision.Token
}

// eachAxes tells the axes of the position of each token from one place to another.
func (s *sequence) eachAxes(from, to int, tell func(place int, t, y, x int32)) {
	for i := s.imageAt(from); from < to; from++ {
		images := s.req.Images
		if i < len(images) && from == images[i].end() {
			i++
		}
		shift := s.pictures.shiftBefore(i)
		if i == len(images) || from < images[i].First || images[i].Grid == [3]int{} {
			p := int32(from) - shift
			tell(from, p, p, p)
			continue
		}
		m := &images[i]
		at, base := int32(from-m.First), int32(m.First)-shift
		height, width := int32(m.Grid[1]), int32(m.Grid[2])
		tell(from, base+at/(height*width), base+at/width%height, base+at%width)
	}
}

// fillAxes gives all tokens of the step positions of three axes if any of them needs
// them.
func (e *Engine) fillAxes(st *step) {
	if !slices.ContainsFunc(st.seqs, func(s *sequence) bool { return s.pictures.axes }) {
		return
	}
	b := st.batch
	n := len(b.Tokens)
	b.Axes = b.Axes[:3*n]
	for i, q := range b.Seqs {
		first := q.Start
		st.seqs[i].eachAxes(int(q.KVLen-q.Count), int(q.KVLen), func(place int, t, y, x int32) {
			at := int(first) + place - int(q.KVLen-q.Count)
			b.Axes[at], b.Axes[n+at], b.Axes[2*n+at] = t, y, x
		})
	}
}

// spanAcross returns the span of s that begins before a place and ends after it, nil if
// there is none.
func (s *sequence) spanAcross(place int) *device.Span {
	spans := s.pictures.spans
	i := sort.Search(len(spans), func(i int) bool { return int(spans[i].Start+spans[i].Count) > place })
	if i == len(spans) || int(spans[i].Start) >= place {
		return nil
	}
	return &spans[i]
}

// least returns how many tokens of s a step must compute if it computes the one at a
// place: one, or the whole span that begins there.
func (s *sequence) least(place int) int {
	if span := s.spanAcross(place + 1); span != nil {
		return int(span.Count)
	}
	return 1
}

// uncut returns how many tokens of s the step computes instead of n, so that no span is
// cut: fewer, or more where a span comes next and there is room for it.
func (s *sequence) uncut(st *step, n int) int {
	b, spans := st.batch, s.pictures.spans
	if n <= 0 || len(spans) == 0 {
		return n
	}
	if span := s.spanAcross(s.computed + n); span != nil {
		if n = int(span.Start) - s.computed; n <= 0 {
			n += int(span.Count)
		}
	}
	next := s.nextSpan() + cap(b.Spans) - len(b.Spans) // the first for which there is no place
	if next < len(spans) {
		n = min(n, int(spans[next].Start)-s.computed)
	}
	if len(b.Tokens)+n > cap(b.Tokens) || st.rowsLeft() == 0 && n == s.wants() {
		return 0 // the next step has room
	}
	return n
}

// nextSpan returns the first span of s that is not computed.
func (s *sequence) nextSpan() int {
	spans := s.pictures.spans
	return sort.Search(len(spans), func(i int) bool { return int(spans[i].Start) >= s.computed })
}

// addSpans adds to the batch the spans among the next n tokens of s, the first of which
// is the one at index start.
func (s *sequence) addSpans(b *device.Batch, start, n int) {
	spans := s.pictures.spans
	for i := s.nextSpan(); i < len(spans) && int(spans[i].Start) < s.computed+n; i++ {
		b.Spans = append(b.Spans, device.Span{Start: spans[i].Start - int32(s.computed-start), Count: spans[i].Count})
	}
}

// addTokens appends tokens of s to the batch: ids, rows of images, or the last one
// sampled, which nobody has seen.
func (e *Engine) addTokens(b *device.Batch, s *sequence, from, to int) {
	image := s.imageAt(from)
	row := -1 // of the image, if known
	for p := from; p < to; p++ {
		if image < len(s.req.Images) && p == s.req.Images[image].end() {
			image, row = image+1, -1
		}
		token := device.LastToken
		switch {
		case image < len(s.req.Images) && p >= s.req.Images[image].First:
			if token = s.req.Tokens[p]; token != e.cfg.Vision.Token {
				break
			}
			if m := &s.req.Images[image]; row < 0 {
				before := Image{First: m.First, Count: p - m.First}
				row = e.cfg.Vision.imageTokens(s.req, &before)
			}
			width := e.cfg.Vision.width
			token = device.EmbedRow(len(b.Embeds) / width)
			b.Embeds = append(b.Embeds, s.pictures.images[image].rows.rows[row*width:][:width]...)
			row++
		case p < s.known():
			token = s.token(p)
		}
		b.Tokens = append(b.Tokens, token)
		b.Pos = append(b.Pos, int32(p))
	}
}

// checkVision refuses what cannot work, and completes the rest.
func (c *Config) checkVision() error {
	if c.Vision == nil {
		return nil
	}
	copied := *c.Vision
	v := &copied
	c.Vision, v.width = v, c.Plan.RowWidth()
	caps := c.Backend.Caps()
	switch {
	case !caps.Has(device.FeatureEmbeds):
		return errors.New("engine: Vision needs a backend that takes embedding rows")
	case v.Bidirectional != vision.Causal && !caps.Has(device.FeatureSpans):
		return errors.New("engine: Vision needs a backend that takes spans")
	case v.Encoder == nil || v.Memory < 1 || v.Token < 0 || int(v.Token) >= c.Plan.Vocab:
		return fmt.Errorf("engine: Vision has memory %d and token %d of %d", v.Memory, v.Token, c.Plan.Vocab)
	}
	return nil
}
