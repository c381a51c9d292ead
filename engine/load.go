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

// loadPiece is about how many bytes of weights are handed over at once: much
// longer than a call, and little beside the weights when source pages and
// their copy are both resident.
const loadPiece = 8 << 20

// Plan reads the config of checkpoint c and writes its model's op plan.
func Plan(c *weights.Checkpoint) (*plan.Config, *plan.Plan, error) {
	cfg, err := plan.ParseConfig(c.Config(), c.Generation())
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
		if e, _ := c.Tensor(n); e.DType == head.DType && slices.Equal(e.Shape, head.Shape) && bytes.Equal(e.Data, head.Data) {
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
	done := int64(0)
	for i := range parts {
		part := &parts[i]
		err := part.load(b, device.Handle(i), c, func(n int) {
			done += int64(n)
			if progress != nil {
				progress(done, total)
			}
		})
		if err != nil {
			return device.ModelInfo{}, fmt.Errorf("%s: tensor %q: %w", part.file, part.name, err)
		}
	}
	return b.SetModel(p)
}

// part is a tensor of the plan found in the checkpoint.
type part struct {
	name, file string
	dtype      device.DType
	shape      []int
	rowBytes   int
	data       []byte // of the part alone
}

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
		data := t.Data[want.FirstRow*rowBytes:][:want.Shape[0]*rowBytes]
		parts = append(parts, part{t.Name, t.File, dtype, want.Shape, rowBytes, data})
		total += int64(len(data))
	}
	return parts, total, nil
}

// load creates the tensor as handle h and writes its rows in pieces.
func (t *part) load(b device.Backend, h device.Handle, c *weights.Checkpoint, copied func(bytes int)) error {
	got, err := b.NewTensor(t.name, t.dtype, t.shape)
	if err != nil {
		return err
	}
	if got != h {
		return fmt.Errorf("the backend calls it %d, the plan %d", got, h)
	}
	rows, rowBytes := t.shape[0], t.rowBytes
	if len(t.shape) == 1 { // a vector is written as one row
		rows, rowBytes = 1, len(t.data)
	}
	step := max(1, loadPiece/rowBytes)
	for first := 0; first < rows; first += step {
		n := min(step, rows-first)
		piece := t.data[first*rowBytes:][:n*rowBytes]
		if err := b.WriteTensor(h, first, n, piece); err != nil {
			return err
		}
		c.Release(piece)
		copied(len(piece))
	}
	return nil
}

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
