// Package loader brings a checkpoint into a backend: Plan writes the op plan of its
// model, Check finds what is wrong before anything is loaded, and Load hands the
// tensors over, piece by piece as they arrive.
//
// Not here: the files (engine/weights), the shape of a model (engine/plan).
package loader

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/plan"
	"github.com/millrace-ai/millrace/engine/quant"
	"github.com/millrace-ai/millrace/engine/weights"
)

// About how many bytes of weights are handed over at once. From a folder: much
// longer than a call, and little beside the weights when two pieces of the
// source are resident, too. From a stream: little when every one of many
// connections fills a piece of its own, yet long beside the start and end of a
// call, where threads of a backend wait for each other: on two cores that also
// receive, half of it takes twice the time.
const (
	loadPiece   = 8 << 20
	streamPiece = 512 << 10
)

// loadRows divides the number of rows that are handed over at once: backends
// that interleave rows like whole groups.
const loadRows = 16

// Plan reads the config of checkpoint c and writes its model's op plan, with draft the
// head that predicts one more token, if c has one (plan.Plan.Draft). If c is streamed, its generation_config.json, which may come after the weights, is not
// waited for: Config reads it.
func Plan(c *weights.Checkpoint, draft bool) (*plan.Config, *plan.Plan, error) {
	read := Config
	if c.Streamed() {
		read = func(c *weights.Checkpoint) (*plan.Config, error) { return plan.ParseConfig(c.Config(), nil) }
	}
	cfg, err := read(c)
	if err != nil {
		return nil, nil, err
	}
	cfg.Draft = draft
	p, err := plan.Build(cfg, func(name string) ([]int, bool) {
		if cfg.Tied && hasSuffix(name, headSuffixes) && headIsEmbedding(c, name) {
			return nil, false // stored twice, needed once
		}
		return stored(c, &cfg.Stored, name)
	})
	if err == nil {
		err = plan.Check(p)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", c.Source(), err)
	}
	return cfg, p, nil
}

// Config reads config.json and generation_config.json of checkpoint c.
func Config(c *weights.Checkpoint) (*plan.Config, error) {
	generation, err := c.Generation()
	if err != nil {
		return nil, err
	}
	return plan.ParseConfig(c.Config(), generation)
}

// What checkpoints call the output head and the embedding.
var (
	headSuffixes      = []string{"lm_head.weight", "embed_out.weight"}
	embeddingSuffixes = []string{"embed_tokens.weight", "wte.weight", "embed_in.weight", "word_embeddings.weight", "embeddings.weight"}
)

func hasSuffix(name string, suffixes []string) bool {
	return slices.ContainsFunc(suffixes, func(s string) bool { return strings.HasSuffix(name, s) })
}

// headIsEmbedding reports whether the output head called name repeats the
// embedding.
func headIsEmbedding(c *weights.Checkpoint, name string) bool {
	head, ok := c.Tensor(name)
	if !ok {
		return false
	}
	for _, n := range c.Names() {
		if !hasSuffix(n, embeddingSuffixes) {
			continue
		}
		// What is streamed cannot be compared beforehand, and is loaded twice.
		if e, _ := c.Tensor(n); !c.Streamed() && e.DType == head.DType && slices.Equal(e.Shape, head.Shape) && sameRows(c, e, head) {
			return true
		}
	}
	return false
}

// sameRows compares some rows, the first and the last among them. A head that was
// trained by itself differs from the embedding in every row, so a few tell, where
// all would have to be read from the disk: a gigabyte, before anything else. Rows
// that cannot be read are not the same; loading will say why.
func sameRows(c *weights.Checkpoint, a, b weights.Tensor) bool {
	const compared = 64
	if len(a.Shape) == 0 || a.Shape[0] == 0 || a.Size == 0 {
		return false
	}
	rows := int64(a.Shape[0])
	of, other := make([]byte, a.Size/rows), make([]byte, a.Size/rows)
	for i := range int64(compared) {
		at := i * (rows - 1) / (compared - 1) * int64(len(of))
		if c.ReadAt(a, of, at) != nil || c.ReadAt(b, other, at) != nil || !bytes.Equal(of, other) {
			return false
		}
	}
	return true
}

// Check compares the tensors that p needs with those of checkpoint c, by the
// headers of its files alone.
func Check(p *plan.Plan, c *weights.Checkpoint) error {
	found, err := resolve(p, c, allKinds)
	if err != nil {
		return err
	}
	return refuseUnused(p, c, found)
}

// WeightBytes is the size of the tensors of p once they are loaded from
// checkpoint c, in the formats that they are handed over in.
func WeightBytes(p *plan.Plan, c *weights.Checkpoint) (int64, error) {
	found, err := resolve(p, c, allKinds)
	if err != nil {
		return 0, err
	}
	total := int64(0)
	for i, t := range p.Tensors {
		last := len(t.Shape) - 1
		size := int64(found.formats[i].RowBytes(t.Shape[last]))
		for _, n := range t.Shape[:last] {
			size *= int64(n)
		}
		total += size
	}
	return total, nil
}

// Resident is what backend b is given of plan p.
func Resident(b device.Backend, p *plan.Plan) *plan.Plan {
	caps := b.Caps()
	if caps.Lowered {
		p = plan.Lower(p)
	}
	if caps.Devices > 1 { // they divide the plan, and then share values
		return p
	}
	return plan.Share(p)
}

// Load gives the tensors of p, taken from checkpoint c, to backend b, and
// then p itself, lowered if b wants it so. Plan, types and shapes are checked
// before the first tensor is announced. progress, if not nil, hears after each
// piece how many bytes of the total have been read. Of the source, a piece or two
// are in memory at a time.
//
// After an error b can only be closed.
func Load(b device.Backend, p *plan.Plan, c *weights.Checkpoint, progress func(done, total int64)) (device.ModelInfo, error) {
	l, err := begin(b, p, c)
	if err == nil {
		err = read(c, progress, l)
	}
	if err != nil {
		return device.ModelInfo{}, err
	}
	return l.finish()
}

// Seeing is what LoadSeeing has loaded.
type Seeing struct {
	Model, Tower device.ModelInfo
	Newline      []float32 // the row that ends a line of tiles (plan.Tower.Newline); nil: the model has none
}

// LoadSeeing is Load of a model into b and of its vision tower into sees, which reads the
// checkpoint once. The tower is not quantized, whatever p.Quantize is.
//
// After an error both backends can only be closed.
func LoadSeeing(b device.Backend, p *plan.Plan, sees device.Backend, t *plan.Tower, c *weights.Checkpoint, progress func(done, total int64)) (Seeing, error) {
	var s Seeing
	model, err := begin(b, p, c)
	if err != nil {
		return s, err
	}
	tower, err := begin(sees, t.Plan, c)
	if err != nil {
		return s, err
	}
	all := []*loading{model, tower}
	if t.Newline != "" {
		one, row, err := beginVector(t.Newline, p.Hidden, c)
		if err != nil {
			return s, err
		}
		s.Newline, all = row, append(all, one)
	}
	if err := read(c, progress, all...); err != nil {
		return s, err
	}
	if s.Model, err = model.finish(); err == nil {
		s.Tower, err = tower.finish()
	}
	return s, err
}

// loading is a plan whose tensors are on their way to a backend.
type loading struct {
	backend device.Backend // nil: something else takes the tensors
	to      taker
	plan    *plan.Plan
	found   *resolved
	mapped  []*weights.Mapping
}

// begin checks a plan and announces its tensors.
func begin(b device.Backend, p *plan.Plan, c *weights.Checkpoint) (*loading, error) {
	p = Resident(b, p)
	if err := plan.Check(p); err != nil {
		return nil, fmt.Errorf("%s: %w", c.Source(), err)
	}
	if err := b.CheckPlan(p); err != nil {
		return nil, fmt.Errorf("%s: the backend cannot run a %s model: %w", c.Source(), p.Family, err)
	}
	kinds := b.Caps().Formats
	if asked := newRules(p, kinds).asked(); kinds&asked != asked {
		return nil, fmt.Errorf("%s: the backend cannot hold weights that are quantized so", c.Source())
	}
	found, err := resolve(p, c, kinds)
	if err != nil {
		return nil, err
	}
	if err := refuseUnused(p, c, found); err != nil {
		return nil, err
	}
	for i, t := range p.Tensors {
		h, err := b.NewTensor(t.Name, found.formats[i], t.Shape)
		if err == nil && h != device.Handle(i) {
			err = fmt.Errorf("the backend calls it %d, the plan %d", h, i)
		}
		if err != nil {
			return nil, fmt.Errorf("tensor %q: %w", t.Name, err)
		}
	}
	found.convertedBy(b)
	l := &loading{backend: b, to: b, plan: p, found: found}
	var first []*source
	if l.mapped, first, err = adopt(b, p, c, found.adoptable(p, b.Caps())); err != nil {
		return nil, err
	}
	found.sources = append(first, found.sources...)
	return l, nil
}

// vector keeps a tensor of one dimension.
type vector struct {
	row    []float32
	format plan.Format
}

// WriteTensor implements taker.
func (v *vector) WriteTensor(_ device.Handle, _, _ int, src []byte) error {
	quant.Decode(v.row, src, v.format)
	return nil
}

// beginVector begins to load a vector of floats, which is in row once it has been read.
func beginVector(name string, n int, c *weights.Checkpoint) (*loading, []float32, error) {
	part := plan.Part{Name: name, Shape: []int{n}, Rows: plan.Range{Step: 1, N: n}, Cols: plan.Range{Step: 1, N: 1}}
	p := &plan.Plan{Tensors: []plan.Tensor{{Name: name, Shape: []int{n}, Parts: []plan.Part{part}}}}
	found, err := resolve(p, c, allKinds)
	if err != nil {
		return nil, nil, err
	}
	v := &vector{row: make([]float32, n), format: found.formats[0]}
	return &loading{to: v, plan: p, found: found}, v.row, nil
}

// finish gives the backend its plan.
func (l *loading) finish() (device.ModelInfo, error) {
	info, err := l.backend.SetModel(l.plan)
	if err == nil && len(l.mapped) > 0 {
		for _, m := range l.mapped {
			info.MappedBytes += int64(len(m.Bytes()))
		}
		go weights.Populate(l.mapped)
	}
	return info, err
}

// read gives the tensors of p to b.
func (r *resolved) read(b taker, p *plan.Plan, c *weights.Checkpoint, progress func(done, total int64)) error {
	return read(c, progress, &loading{to: b, plan: p, found: r})
}

// read gives all tensors to their takers, reading the checkpoint once.
func read(c *weights.Checkpoint, progress func(done, total int64), all ...*loading) error {
	size := loadPiece
	if c.Streamed() {
		size = streamPiece
	}
	type pieceOf struct {
		piece
		to *gatherer
	}
	var pieces []pieceOf
	var reads []weights.Piece
	var gatherers []*gatherer
	total, done := int64(0), int64(0)
	for _, l := range all {
		g := newGatherer(l.to, l.plan)
		gatherers = append(gatherers, g)
		for _, p := range l.found.cut(size) {
			pieces = append(pieces, pieceOf{p, g})
			reads = append(reads, weights.Piece{File: p.source.File, Offset: p.source.Offset + int64(p.first)*int64(p.source.rowBytes), Length: p.n * p.source.rowBytes})
			total += int64(p.n * p.source.rowBytes)
		}
	}
	err := c.Read(reads, func(i int, data []byte) error {
		if err := pieces[i].to.take(pieces[i].piece, data); err != nil {
			return err
		}
		done += int64(len(data))
		if progress != nil {
			progress(done, total)
		}
		return nil
	})
	for _, g := range gatherers {
		err = g.finish(err)
	}
	return err
}

// resolved is where the tensors of a plan come from.
type resolved struct {
	views   []string      // tensors that the files have in another form, whose sources are called otherwise
	formats []plan.Format // of each tensor
	sources []*source     // in order of their first use
}

// source is a tensor of the checkpoint, as rows of bytes: all its dimensions but
// the last are rows, and a vector is rows of one element (plan.Part).
type source struct {
	weights.Tensor
	encoding
	part             []int  // shape of the tensor that the plan knows
	stored, rowBytes int    // rows that are read, and their bytes
	uses             []*use // empty of what stands beside codes

	beside  []*source    // what must have come, whole, before rows mean anything
	of      *source      // whose codes it stands beside
	data    []byte       // of what stands beside codes or is adopted, what has come
	adopt   func() error // what takes data, of what a backend adopts, when it has come; nil for others
	missing int          // bytes of that, or tensors beside codes, that have not
	waiting []job        // that came before them
	pieces  atomic.Int64 // that are not converted

	spreading spreading // if rows are not stored one by one
}

// use is a part of a tensor of the plan.
type use struct {
	plan.Part
	tensor int
	to     plan.Format
	from   plan.Format // in which rows are handed over: to or, where the backend converts them, the source's
	whole  *whole      // in which the part is put together; nil: its rows are handed over as they come
	direct bool        // rows are handed over as they are in the source
	packed bool        // rows are packed in the source's format

	rounding func() *quant.Rounding // nil: each element becomes the nearest one
}

// piece is n rows of a source, read at once.
type piece struct {
	source   *source
	first, n int
}

// resolver finds how a checkpoint stores what a plan needs.
type resolver struct {
	resolved
	c       *weights.Checkpoint
	how     *plan.Quantization
	asked   map[string]bool // names of the parts
	byName  map[string]*source
	inFiles map[string]storedTensor // that tensors of the model are made of, by their names in the file
}

// resolve finds every part of every tensor of p in c, compares types and shapes and
// chooses the formats of tensors, of kinds that are in the set kinds.
func resolve(p *plan.Plan, c *weights.Checkpoint, kinds uint32) (*resolved, error) {
	r := &resolver{c: c, how: &p.Stored, asked: map[string]bool{}, byName: map[string]*source{}, inFiles: map[string]storedTensor{}}
	for _, t := range p.Tensors {
		for _, part := range t.Parts {
			r.asked[part.Name] = true
		}
	}
	rules := newRules(p, kinds)
	for i, t := range p.Tensors {
		if len(t.Parts) == 0 {
			return nil, fmt.Errorf("%s: tensor %q is made of nothing", c.Source(), t.Name)
		}
		var uses []*use
		var sources []*source
		for _, of := range t.Parts {
			parts, err := r.fileParts(of)
			if err != nil {
				return nil, err
			}
			for _, part := range parts {
				s, err := r.source(&part)
				if err != nil {
					return nil, err
				}
				u := &use{Part: part, tensor: i}
				s.uses = append(s.uses, u)
				uses = append(uses, u)
				sources = append(sources, s)
			}
		}
		format := rules.format(i, uses, sources)
		r.formats = append(r.formats, format)
		assemble(&t, format, uses, sources)
	}
	return &r.resolved, nil
}

// find returns the tensor called name, which must have one of these shapes and
// types.
func (r *resolver) find(name string, shapes [][]int, types ...string) (weights.Tensor, error) {
	t, ok := r.c.Tensor(name)
	if !ok {
		return t, fmt.Errorf("%s: tensor %q is missing, expected %v", r.c.Source(), name, shapes[0])
	}
	if !slices.ContainsFunc(shapes, func(shape []int) bool { return slices.Equal(t.Shape, shape) }) {
		return t, fmt.Errorf("%s: tensor %q: config.json needs shape %v, found %v", t.File, name, shapes[0], t.Shape)
	}
	if !slices.Contains(types, t.DType) {
		return t, fmt.Errorf("%s: tensor %q: expected type %s, found %s", t.File, name, alternatives(types), t.DType)
	}
	return t, nil
}

// rowsOf cuts a tensor into rows.
func rowsOf(t weights.Tensor) *source {
	s := &source{Tensor: t, stored: 1}
	for i, n := range t.Shape {
		if i == 0 || i < len(t.Shape)-1 {
			s.stored *= n
		}
	}
	s.rowBytes = int(t.Size) / s.stored
	return s
}

// side is a tensor beside codes, that may be of any of these shapes.
func (r *resolver) side(name string, types []string, shapes ...[]int) (*source, error) {
	t, err := r.find(name, shapes, types...)
	if err != nil {
		return nil, err
	}
	s := rowsOf(t)
	s.data, s.missing = make([]byte, t.Size), int(t.Size)
	return s, nil
}

// source returns where the tensor of a part comes from.
func (r *resolver) source(part *plan.Part) (*source, error) {
	if s := r.byName[part.Name]; s != nil && slices.Equal(s.part, part.Shape) {
		return s, nil
	}
	f, err := r.stored(part)
	if err != nil {
		return nil, err
	}
	s := rowsOf(f.codes)
	s.encoding, s.part, s.beside, s.missing = f.encoding, part.Shape, f.beside, len(f.beside)
	if n := f.encoding.stored; n > 0 {
		s.stored, s.rowBytes = n, int(s.Size)/n
	}
	for _, b := range f.beside { // asked for first, so that codes can be read as they come
		b.of = s
		r.sources = append(r.sources, b)
	}
	r.sources = append(r.sources, s)
	r.byName[part.Name] = s
	return s, nil
}

// found is how the checkpoint stores a matrix.
type found struct {
	codes    weights.Tensor
	encoding encoding
	beside   []*source // what encoding reads beside the codes
}

// stored finds how the checkpoint stores the tensor of a part.
func (r *resolver) stored(part *plan.Part) (*found, error) {
	switch part.Encoding {
	case plan.EncodingMXFP4:
		return r.mxfp4(part)
	case plan.EncodingTernary:
		return r.ternary(part)
	}
	if s, ok := r.inFiles[part.Name]; ok {
		rows := rowEncodings[s.DType]
		if s.of != nil {
			rows = mapped(rows, s.of)
		}
		return &found{codes: s.Tensor, encoding: rows}, nil
	}
	if r.how.Method != "" && len(part.Shape) > 1 {
		if f, ok, err := r.quantized(part); ok {
			return f, err
		}
	}
	types := floatTypes
	if t, _ := r.c.Tensor(part.Name); rowEncodings[t.DType].decode != nil {
		types = []string{t.DType}
	}
	shape := part.Shape
	if part.Stored != nil {
		shape = part.Stored
	}
	codes, err := r.find(part.Name, [][]int{shape}, types...)
	codes.Shape = part.Shape
	return &found{codes: codes, encoding: rowEncodings[codes.DType]}, err
}

// assemble says how each use of a tensor reaches the backend, which takes whole
// rows, a vector being one.
func assemble(t *plan.Tensor, format plan.Format, uses []*use, sources []*source) {
	var vector *whole
	if len(t.Shape) == 1 {
		vector = newWhole(0, 1, t.Shape[0], format)
	}
	for i, u := range uses {
		u.to, u.from = format, format
		switch s := sources[i]; {
		case vector != nil:
			u.whole = vector
		case u.Transpose:
			u.whole = newWhole(u.To, u.Cols.N, u.Rows.N, format)
		default:
			u.settle(s)
		}
	}
}

// settle finds out whether rows of the part are handed over as source s has them.
func (u *use) settle(s *source) {
	u.packed = u.from == s.format && u.allColumns()
	u.direct = u.packed && s.direct && u.Rows.Step == 1 && len(u.Shape) > 1
}

// convertedBy leaves to backend b what it converts itself: rows of floats, and of FP8, which is
// packed without a loss.
func (r *resolved) convertedBy(b device.Backend) {
	for _, s := range r.sources {
		for _, u := range s.uses {
			whole := s.direct && !s.format.Quantized() || s.pack != nil && s.format.Kind() == plan.F8
			if u.whole == nil && !u.packed && whole && u.allColumns() && device.Converts(b, s.format, u.to) {
				u.from = s.format
				u.settle(s)
			}
		}
	}
}

// allColumns reports whether rows of the part are rows of the source.
func (u *use) allColumns() bool {
	return !u.Transpose && u.Cols == plan.Range{First: 0, Step: 1, N: u.Shape[len(u.Shape)-1]}
}

// cut divides the rows of all sources that are used into pieces of about size
// bytes.
func (r *resolved) cut(size int) (pieces []piece) {
	for _, s := range r.sources {
		type span struct{ from, to int }
		var spans []span
		for _, u := range s.uses {
			spans = append(spans, span{u.Rows.First, u.Rows.First + (u.Rows.N-1)*u.Rows.Step + 1})
		}
		if len(s.uses) == 0 || s.spread != nil {
			spans = []span{{0, s.stored}} // what stands beside codes, or is adopted, is needed whole
		}
		slices.SortFunc(spans, func(a, b span) int { return a.from - b.from })
		step := max(1, size/max(1, s.rowBytes))
		step = (step + loadRows - 1) / loadRows * loadRows
		for len(spans) > 0 {
			all := spans[0]
			for spans = spans[1:]; len(spans) > 0 && spans[0].from <= all.to; spans = spans[1:] {
				all.to = max(all.to, spans[0].to)
			}
			for first := all.from; first < all.to; first += step {
				s.pieces.Add(1)
				pieces = append(pieces, piece{s, first, min(step, all.to-first)})
			}
		}
	}
	return pieces
}

// alternatives lists choices for a message.
func alternatives(list []string) string {
	if len(list) == 1 {
		return list[0]
	}
	return strings.Join(list[:len(list)-1], ", ") + " or " + list[len(list)-1]
}

// refuseUnused refuses a checkpoint whose decoder holds tensors that the plan has
// no use for: a bias, a norm or a whole layer that config.json does not mention
// means that the model is not the one it says it is.
func refuseUnused(p *plan.Plan, c *weights.Checkpoint, r *resolved) error {
	used := make(map[string]bool, len(r.sources))
	for _, s := range r.sources {
		used[s.Name] = true
	}
	for _, name := range r.views {
		used[name] = true
	}
	for _, name := range c.Names() {
		if used[name] || !strings.HasPrefix(name, p.Prefix) || p.Spares(name) || p.Stored.Method != "" && hasSuffix(name, spareSuffixes) {
			continue
		}
		t, _ := c.Tensor(name)
		return fmt.Errorf("%s: tensor %q %v: expected none, a %s model as config.json describes it has no use for it", t.File, name, t.Shape, p.Family)
	}
	return nil
}

// Tower writes the plan of the vision tower of checkpoint c, of whose config cfg is what Plan
// returned; nil if the model has none, or its family's is not known.
func Tower(c *weights.Checkpoint, cfg *plan.Config) (*plan.Tower, error) {
	if !plan.HasTower(cfg.Family) {
		return nil, nil
	}
	t, err := plan.BuildTower(c.Config(), cfg, func(name string) ([]int, bool) { return stored(c, &cfg.Stored, name) })
	if err == nil {
		err = plan.Check(t.Plan)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: the vision tower: %w", c.Source(), err)
	}
	return t, nil
}
