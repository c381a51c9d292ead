package adapter

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"regexp"
	"slices"
	"strings"

	"github.com/millrace-ai/millrace/engine/quant"
	"github.com/millrace-ai/millrace/engine/weights"
)

// maxConfig bounds adapter_config.json, which lists modules by name.
const maxConfig = 4 << 20

// Adapter is an adapter as its files have it, checked as far as that is possible
// without the model.
type Adapter struct {
	modules []module
}

// module is the change of one linear layer, or of the parameters of one module: B A,
// scaled.
type module struct {
	name      string // in the model as transformers has it
	parameter string // of it that changes; "": its weight
	a, b      matrix
	rank      int
	scale     float32
}

// matrix is a tensor of the file.
type matrix struct {
	weights.Tensor
	data       []float32
	rows, cols int
}

// Read reads the adapter at the root of fsys, whose weights may have so many bytes.
func Read(fsys fs.FS, most int64) (*Adapter, error) {
	text, err := readFile(fsys, ConfigFile, maxConfig)
	if err != nil {
		return nil, err
	}
	c, err := parseConfig(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ConfigFile, err)
	}
	data, err := readFile(fsys, WeightsFile, most)
	if errors.Is(err, fs.ErrNotExist) {
		if other := otherWeights(fsys); other != "" {
			return nil, fmt.Errorf("no %s, but %s: convert the adapter to safetensors", WeightsFile, other)
		}
	}
	if err != nil {
		return nil, err
	}
	tensors, err := weights.Tensors(WeightsFile, data)
	if err != nil {
		return nil, err
	}
	return newAdapter(c, tensors, data)
}

// readFile reads a file of at most so many bytes.
func readFile(fsys fs.FS, name string, most int64) ([]byte, error) {
	f, err := fsys.Open(name)
	if err != nil {
		var at *fs.PathError
		if errors.As(err, &at) {
			err = at.Err
		}
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > most {
		return nil, fmt.Errorf("%s: %d bytes, expected at most %d", name, info.Size(), most)
	}
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(data)) > most {
		err = fmt.Errorf("expected at most %d bytes, found more", most)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return data, nil
}

// otherWeights names a file of weights in a form that is not read.
func otherWeights(fsys fs.FS) string {
	entries, err := fs.ReadDir(fsys, ".")
	if err != nil {
		return ""
	}
	for _, e := range entries {
		for _, end := range []string{".bin", ".pt", ".pth", ".pkl", ".npz", ".gguf"} {
			if strings.HasSuffix(e.Name(), end) {
				return e.Name()
			}
		}
	}
	return ""
}

// tensorName is how PEFT calls a tensor: the module, which of the two, and perhaps
// the adapter's name at the time.
var tensorName = regexp.MustCompile(`^(.+)\.lora_([AB])(?:\.[^.]+)?\.weight$`)

// newAdapter pairs the tensors of a file, whose bytes are data.
func newAdapter(c *config, tensors []weights.Tensor, data []byte) (*Adapter, error) {
	pairs := map[string]*module{}
	var order []string
	for _, t := range tensors {
		parts := tensorName.FindStringSubmatch(t.Name)
		if parts == nil {
			return nil, fmt.Errorf("%s: tensor %q: %s", t.File, t.Name, unsupported(t.Name))
		}
		name := strings.TrimPrefix(parts[1], "base_model.model.")
		m := pairs[name]
		if m == nil {
			m = &module{name: name}
			pairs[name] = m
			order = append(order, name)
		}
		into := &m.a
		if parts[2] == "B" {
			into = &m.b
		}
		if into.data != nil {
			return nil, fmt.Errorf("%s: tensor %q: module %q has tensor %q as well", t.File, t.Name, name, into.Name)
		}
		var err error
		if *into, err = newMatrix(t, data[t.Offset:][:t.Size]); err != nil {
			return nil, fmt.Errorf("%s: tensor %q: %w", t.File, t.Name, err)
		}
	}
	if len(order) == 0 {
		return nil, fmt.Errorf("%s: no tensors, expected pairs of lora_A and lora_B", WeightsFile)
	}
	slices.Sort(order)
	a := &Adapter{}
	for _, name := range order {
		m := pairs[name]
		for _, of := range []struct {
			which       string
			have, other *matrix
		}{{"lora_A", &m.a, &m.b}, {"lora_B", &m.b, &m.a}} {
			if of.have.data == nil {
				return nil, fmt.Errorf("%s: tensor %q: expected a %s beside it, found none", of.other.File, of.other.Name, of.which)
			}
		}
		if err := m.configure(c); err != nil {
			return nil, err
		}
		a.modules = append(a.modules, *m)
	}
	return a, nil
}

// unsupported says why a tensor of that name is refused.
func unsupported(name string) string {
	switch {
	case strings.Contains(name, "lora_magnitude_vector"):
		return "DoRA is not supported"
	case strings.Contains(name, "lora_embedding_"):
		return "adapters of embeddings are not supported"
	case strings.Contains(name, ".lora_") && strings.HasSuffix(name, ".bias"):
		return "biases of adapters (lora_bias) are not supported"
	case strings.Contains(name, "token_adapter"):
		return "trained tokens (trainable_token_indices) are not supported"
	case strings.Contains(name, ".lora_"):
		return "expected MODULE.lora_A.weight or MODULE.lora_B.weight"
	}
	return "modules that are saved whole (modules_to_save, resized embeddings) are not supported"
}

// newMatrix reads a tensor as float32, and refuses what no sum can hold.
func newMatrix(t weights.Tensor, data []byte) (matrix, error) {
	m := matrix{Tensor: t}
	if len(t.Shape) != 2 || t.Shape[0] == 0 || t.Shape[1] == 0 {
		return m, fmt.Errorf("expected two dimensions, found %v", t.Shape)
	}
	if !slices.Contains([]string{"F32", "F16", "BF16"}, t.DType) {
		return m, fmt.Errorf("expected type F32, F16 or BF16, found %s", t.DType)
	}
	m.rows, m.cols = t.Shape[0], t.Shape[1]
	m.data = make([]float32, m.rows*m.cols)
	for i := range m.data {
		switch t.DType {
		case "F32":
			m.data[i] = math.Float32frombits(binary.LittleEndian.Uint32(data[4*i:]))
		case "BF16":
			m.data[i] = math.Float32frombits(uint32(binary.LittleEndian.Uint16(data[2*i:])) << 16)
		case "F16":
			m.data[i] = quant.Half(binary.LittleEndian.Uint16(data[2*i:]))
		}
		if v := m.data[i]; v-v != 0 {
			return m, fmt.Errorf("element [%d %d] is %v, expected a number", i/m.cols, i%m.cols, v)
		}
	}
	return m, nil
}

// configure gives the module its rank and scale.
func (m *module) configure(c *config) error {
	// A wrapper around a module's parameter, of which there may be two, one in the other.
	depth := 0
	for name, ok := strings.CutSuffix(m.name, ".base_layer"); ok; name, ok = strings.CutSuffix(m.name, ".base_layer") {
		m.name = name
		depth++
	}
	if depth > 0 || !c.wants(m.name) {
		if m.parameter = c.parameterOf(m.name, depth); m.parameter == "" {
			return fmt.Errorf("%s: tensor %q: module %q is not a target of %s", m.a.File, m.a.Name, m.name, ConfigFile)
		}
	}
	full := m.name
	if m.parameter != "" {
		full += "." + m.parameter
	}
	m.rank = c.rankOf(full)
	scale, err := c.scaleOf(full)
	if err != nil {
		return fmt.Errorf("%s: %w", ConfigFile, err)
	}
	m.scale = float32(scale)
	if m.parameter == "" || m.parameter == "weight" {
		if m.a.rows != m.rank {
			return fmt.Errorf("%s: tensor %q: rank %d in %s, expected shape [%d …], found %v", m.a.File, m.a.Name, m.rank, ConfigFile, m.rank, m.a.Shape)
		}
		if m.b.cols != m.rank {
			return fmt.Errorf("%s: tensor %q: rank %d in %s, expected shape [… %d], found %v", m.b.File, m.b.Name, m.rank, ConfigFile, m.rank, m.b.Shape)
		}
	}
	return nil
}

// parameterOf returns which parameter of a module the wrapper at that depth changes.
// PEFT wraps the parameters of a module in their order there: the last one is
// outermost. Of experts, gate_up_proj comes before down_proj. "" is none.
func (c *config) parameterOf(module string, depth int) string {
	var names []string
	for _, target := range c.parameters {
		parent, name, ok := cutLast(target, ".")
		if !ok {
			parent, name = "", target
		}
		if parent == "" || module == parent || strings.HasSuffix(module, "."+parent) {
			names = append(names, name)
		}
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Or(order(a)-order(b), strings.Compare(a, b)) })
	names = slices.Compact(names)
	if depth >= len(names) {
		return ""
	}
	return names[len(names)-1-depth]
}

// order is that of experts' parameters in their module.
func order(parameter string) int {
	if parameter == "gate_up_proj" {
		return 0
	}
	return 1
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}
