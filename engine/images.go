package engine

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"slices"
	"sort"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/page"
	"github.com/millrace-ai/millrace/engine/vision"
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
//
// Tokens that attend both ways are a span, which one step computes as a whole. A prefix
// that is cached ends before a span or after it.

// Encoder computes the embedding rows of images. One goroutine at a time calls it.
type Encoder interface {
	// Encode computes the rows of an image, as many as it has image tokens, in their
	// order, of plan.RowWidth floats each. It may return early, with an error, once ctx
	// has ended: nobody wants the rows then.
	Encode(ctx context.Context, m *Image, rows []float32) error
}

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
// computed.
func (e *Engine) releaseComputed(s *sequence) {
	for i := range s.pictures.images {
		p := &s.pictures.images[i]
		if s.req.Images[i].end() > s.computed {
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
