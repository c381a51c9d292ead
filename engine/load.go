package engine

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/plan"
	"github.com/millrace-ai/millrace/engine/weights"
)

// About how many bytes of weights are handed over at once. From a folder: much
// longer than a call, and little beside the weights when source pages and
// their copy are both resident. From a stream: little when every one of many
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

// Plan reads the config of checkpoint c and writes its model's op plan. If c is
// streamed, its generation_config.json, which may come after the weights, is not
// waited for: ModelConfig reads it.
func Plan(c *weights.Checkpoint) (*plan.Config, *plan.Plan, error) {
	read := ModelConfig
	if c.Streamed() {
		read = func(c *weights.Checkpoint) (*plan.Config, error) { return plan.ParseConfig(c.Config(), nil) }
	}
	cfg, err := read(c)
	if err != nil {
		return nil, nil, err
	}
	p, err := plan.Build(cfg, func(name string) ([]int, bool) {
		if strings.HasSuffix(name, headSuffix) && cfg.Tied && headIsEmbedding(c, name) {
			return nil, false // stored twice, needed once
		}
		return c.Shape(name)
	})
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", c.Source(), err)
	}
	return cfg, p, nil
}

// ModelConfig reads config.json and generation_config.json of checkpoint c.
func ModelConfig(c *weights.Checkpoint) (*plan.Config, error) {
	generation, err := c.Generation()
	if err != nil {
		return nil, err
	}
	return plan.ParseConfig(c.Config(), generation)
}

const (
	headSuffix      = "lm_head.weight"
	embeddingSuffix = "embed_tokens.weight"
)

// headIsEmbedding reports whether the output head called name repeats the
// embedding byte for byte.
func headIsEmbedding(c *weights.Checkpoint, name string) bool {
	head, ok := c.Tensor(name)
	if !ok {
		return false
	}
	for _, n := range c.Names() {
		if !strings.HasSuffix(n, embeddingSuffix) {
			continue
		}
		// What is streamed cannot be compared beforehand, and is loaded twice.
		if e, _ := c.Tensor(n); e.Data != nil && e.DType == head.DType && slices.Equal(e.Shape, head.Shape) && bytes.Equal(e.Data, head.Data) {
			return true
		}
	}
	return false
}

// Check compares the tensors that p needs with those of checkpoint c, by the
// headers of its files alone.
func Check(p *plan.Plan, c *weights.Checkpoint) error {
	if _, _, err := resolve(p, c); err != nil {
		return err
	}
	return refuseUnused(p, c)
}

// Load gives the tensors of p, taken from checkpoint c, to backend b, and
// then p itself. Every tensor is compared with the plan before the first is
// copied. progress, if not nil, hears after each piece how many bytes of the
// total are done. Source pages are released as they are copied, so that
// weights are resident once.
//
// After an error b can only be closed.
func Load(b device.Backend, p *plan.Plan, c *weights.Checkpoint, progress func(done, total int64)) (device.ModelInfo, error) {
	parts, total, err := resolve(p, c)
	if err != nil {
		return device.ModelInfo{}, err
	}
	if err := refuseUnused(p, c); err != nil {
		return device.ModelInfo{}, err
	}
	size := loadPiece
	if c.Streamed() {
		size = streamPiece
	}
	var pieces []weights.Piece
	var rows []rowRange // of each piece
	for i := range parts {
		part := &parts[i]
		if err := part.announce(b, device.Handle(i)); err != nil {
			return device.ModelInfo{}, part.wrap(err)
		}
		for _, r := range part.cut(i, size) {
			rows = append(rows, r)
			pieces = append(pieces, weights.Piece{File: part.file, Offset: part.offset + int64(r.first)*int64(part.rowBytes), Length: r.n * part.rowBytes})
		}
	}
	done := int64(0)
	err = c.Read(pieces, func(i int, data []byte) error {
		r := rows[i]
		if err := b.WriteTensor(device.Handle(r.part), r.first, r.n, data); err != nil {
			return parts[r.part].wrap(err)
		}
		done += int64(len(data))
		if progress != nil {
			progress(done, total)
		}
		return nil
	})
	if err != nil {
		return device.ModelInfo{}, err
	}
	return b.SetModel(p)
}

// part is a tensor of the plan found in the checkpoint.
type part struct {
	name, file string
	dtype      device.DType
	shape      []int
	rows       int // of rowBytes each; a vector is one row
	rowBytes   int
	offset     int64 // of the first row, in the file
}

// rowRange is some rows of a part.
type rowRange struct{ part, first, n int }

var dtypes = map[string]device.DType{"F32": device.F32, "F16": device.F16, "BF16": device.BF16}

// resolve finds every tensor of p in c and compares type and shape.
func resolve(p *plan.Plan, c *weights.Checkpoint) (parts []part, total int64, err error) {
	for _, want := range p.Tensors {
		whole := append([]int{want.Rows}, want.Shape[1:]...)
		t, ok := c.Tensor(want.Name)
		if !ok {
			return nil, 0, fmt.Errorf("%s: tensor %q is missing, expected %v", c.Source(), want.Name, whole)
		}
		if !slices.Equal(t.Shape, whole) {
			return nil, 0, fmt.Errorf("%s: tensor %q: config.json needs shape %v, found %v", t.File, t.Name, whole, t.Shape)
		}
		dtype, ok := dtypes[t.DType]
		if !ok {
			return nil, 0, fmt.Errorf("%s: tensor %q: expected type F32, F16 or BF16, found %s", t.File, t.Name, t.DType)
		}
		rowBytes := dtype.Size()
		for _, n := range want.Shape[1:] {
			rowBytes *= n
		}
		found := part{name: t.Name, file: t.File, dtype: dtype, shape: want.Shape, rows: want.Shape[0], rowBytes: rowBytes,
			offset: t.Offset + int64(want.FirstRow)*int64(rowBytes)}
		if len(want.Shape) == 1 {
			found.rows, found.rowBytes = 1, want.Shape[0]*rowBytes
		}
		parts = append(parts, found)
		total += int64(found.rows) * int64(found.rowBytes)
	}
	return parts, total, nil
}

// announce creates the tensor as handle h.
func (t *part) announce(b device.Backend, h device.Handle) error {
	got, err := b.NewTensor(t.name, t.dtype, t.shape)
	if err == nil && got != h {
		err = fmt.Errorf("the backend calls it %d, the plan %d", got, h)
	}
	return err
}

// cut divides the rows of part i of a plan into ranges of about size bytes.
func (t *part) cut(i, size int) (ranges []rowRange) {
	step := max(1, size/max(1, t.rowBytes))
	step = (step + loadRows - 1) / loadRows * loadRows
	for first := 0; first < t.rows; first += step {
		ranges = append(ranges, rowRange{i, first, min(step, t.rows-first)})
	}
	return ranges
}

// wrap says which tensor an error is about.
func (t *part) wrap(err error) error { return fmt.Errorf("%s: tensor %q: %w", t.file, t.name, err) }

// refuseUnused refuses a checkpoint whose decoder layers hold tensors that
// the plan has no use for: a bias, a norm or a whole layer that config.json
// does not mention means that the model is not the one it says it is.
func refuseUnused(p *plan.Plan, c *weights.Checkpoint) error {
	const layers = "layers."
	used := make(map[string]bool, len(p.Tensors))
	prefix := "" // of all layers' tensors
	for _, t := range p.Tensors {
		used[t.Name] = true
		if i := strings.Index(t.Name, layers); i >= 0 {
			prefix = t.Name[:i+len(layers)]
		}
	}
	for _, name := range c.Names() {
		if used[name] || !strings.HasPrefix(name, prefix) || strings.HasSuffix(name, ".rotary_emb.inv_freq") {
			continue // other towers, and a table that old checkpoints carry along
		}
		t, _ := c.Tensor(name)
		return fmt.Errorf("%s: tensor %q %v: expected none, a %s model as config.json describes it has no use for it", t.File, name, t.Shape, p.Family)
	}
	return nil
}
