package gguf

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Model is one or several files read as a checkpoint of the Hugging Face layout.
type Model struct {
	// Texts are config.json and so on, each made when it is first asked for.
	Texts   map[string]func() ([]byte, error)
	Stored  []Stored
	Tensors []View // of the model
}

// Stored is a tensor in one of the files.
type Stored struct {
	Tensor
	File int
}

// View is a tensor of the model, made of rows of stored ones. All dimensions but the
// last are rows; a vector is rows of one element.
type View struct {
	Name  string
	Shape []int
	Rows  []Run
	Map   func(row []float32) // changes a row of the file to what it stands for; nil: it stands for itself
}

// Run is N rows of a view: rows First, First+Step, … of a stored tensor. Transposed,
// they are the first N columns of those rows of it from First on that the view has
// columns.
type Run struct {
	From           int // in Stored
	First, Step, N int
	Transposed     bool
}

// Reader reads the bytes of file i.
type Reader func(file int, p []byte, offset int64) error

// Open reads files, in their order, as a model.
func Open(headers []*Header, read Reader) (*Model, error) {
	values := headers[0].Values
	m := &model{Model: Model{Texts: map[string]func() ([]byte, error){}}, values: values, read: read, byName: map[string]int{}, config: object{},
		rows: map[string][]Run{}, names: map[string]string{}, maps: map[string]func([]float32){}}
	for i, h := range headers {
		for _, t := range h.Tensors {
			if _, twice := m.byName[t.Name]; twice {
				return nil, fmt.Errorf("tensor %q is in several of the files", t.Name)
			}
			m.byName[t.Name] = len(m.Stored)
			m.Stored = append(m.Stored, Stored{t, i})
		}
	}
	if kind := m.text("general.type", "model"); kind != "model" {
		return nil, fmt.Errorf("the file holds a part of a model (%s), not a model", kind)
	}
	m.name = m.text("general.architecture", "")
	a, ok := architectures[m.name]
	if !ok {
		return nil, fmt.Errorf("architecture %q is not supported, only %s; the model's safetensors may be", m.name, strings.Join(slices.Sorted(maps.Keys(architectures)), ", "))
	}
	m.arch = a
	m.makeConfig()
	if m.err == nil {
		m.nameTensors()
	}
	if m.err != nil {
		return nil, m.err
	}
	m.put("config.json", func() (any, error) { return m.config, nil })
	m.put("generation_config.json", m.generation)
	m.put("tokenizer.json", m.tokenizer)
	m.put("tokenizer_config.json", m.tokenizerConfig)
	return &m.Model, nil
}

// object is a JSON object.
type object = map[string]any

// model is a Model in the making.
type model struct {
	Model
	values map[string]any
	name   string // of the architecture
	arch   *architecture
	config object
	layers int
	byName map[string]int
	names  map[string]string // of tensors in layers that are not what the architecture says, by their names in the file
	maps   map[string]func(row []float32)
	rows   map[string][]Run // of tensors whose rows are not in the model's order, by their names in the file
	read   Reader
	err    error // the first
}

func (m *model) fail(format string, args ...any) {
	if m.err == nil {
		m.err = fmt.Errorf(format, args...)
	}
}

// put adds a text file, which is what is made in JSON.
func (m *model) put(name string, of func() (any, error)) {
	m.Texts[name] = sync.OnceValues(func() ([]byte, error) {
		value, err := of()
		if err != nil {
			return nil, err
		}
		return json.Marshal(value)
	})
}

func (m *model) has(tensor string) bool {
	_, ok := m.byName[tensor]
	return ok
}

// shape is that of a tensor, nil if there is none.
func (m *model) shape(tensor string) []int {
	if i, ok := m.byName[tensor]; ok {
		return m.Stored[i].Shape
	}
	return nil
}

// get returns the value of a key of the architecture, nil if there is none.
func (m *model) get(key string) any { return m.values[m.name+"."+key] }

func (m *model) text(key, without string) string {
	if v, ok := m.values[key]; ok {
		text, ok := v.(string)
		if !ok {
			m.fail("metadata: %s must be a string, found %v", key, brief(v))
		}
		return text
	}
	return without
}

// integer reads a whole number of the architecture. Where there is one for each
// layer, they must be equal.
func (m *model) integer(key string, without int) int {
	v := m.get(key)
	if v == nil {
		return without
	}
	if list, ok := v.([]int64); ok && len(list) > 0 && !slices.ContainsFunc(list, func(n int64) bool { return n != list[0] }) {
		v = list[0]
	}
	n, ok := v.(int64)
	if !ok || n < 0 || n > math.MaxInt32 {
		m.fail("metadata: %s.%s must be a whole number, found %v", m.name, key, brief(v))
		return without
	}
	return int(n)
}

// integers reads a number for each of n layers.
func (m *model) integers(key string, n int) []int {
	list := make([]int, n)
	given, ok := m.get(key).([]int64)
	if !ok {
		one := m.integer(key, 0)
		for i := range list {
			list[i] = one
		}
		return list
	}
	if len(given) < n {
		m.fail("metadata: %s.%s has %d numbers, expected %d", m.name, key, len(given), n)
		return list
	}
	for i := range list {
		list[i] = int(given[i])
	}
	return list
}

func (m *model) number(key string, without float64) float64 {
	switch v := m.get(key).(type) {
	case nil:
		return without
	case float64:
		return v
	case int64:
		return float64(v)
	default:
		m.fail("metadata: %s.%s must be a number, found %v", m.name, key, brief(v))
	}
	return without
}

func (m *model) boolean(key string, without bool) bool {
	switch v := m.get(key).(type) {
	case nil:
	case bool:
		return v
	default:
		m.fail("metadata: %s.%s must be true or false, found %v", m.name, key, brief(v))
	}
	return without
}

// floats reads a number for each layer, from a key that the architecture's name is not before.
func (m *model) floats(key string) []float64 {
	switch v := m.values[key].(type) {
	case []float64:
		if len(v) == m.layers {
			return v
		}
	case float64:
		return slices.Repeat([]float64{v}, m.layers)
	}
	m.fail("metadata: %s must be a number for each of %d layers, found %v", key, m.layers, brief(m.values[key]))
	return nil
}

// brief writes a value for a message of one line.
func brief(v any) string {
	text := []rune(fmt.Sprintf("%v", v))
	if len(text) > 40 {
		return string(text[:40]) + "…"
	}
	return string(text)
}

// float writes a number as it was before it was rounded to float32.
func float(v float64) json.Number {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		v = 0 // as good as any that a config may not have
	}
	return json.Number(strconv.FormatFloat(v, 'g', -1, 32))
}

// vector reads a tensor of float32 that is needed before the others.
func (m *model) vector(name string) []float64 {
	t := m.Stored[m.byName[name]]
	if t.Type.Name != "F32" || len(t.Shape) != 1 || t.Size > 1<<20 {
		m.fail("tensor %q: expected a short vector of F32, found %s %v", name, t.Type.Name, t.Shape)
		return nil
	}
	data := make([]byte, t.Size)
	if err := m.read(t.File, data, t.Offset); err != nil {
		m.fail("tensor %q: %w", name, err)
		return nil
	}
	list := make([]float64, t.Shape[0])
	for i := range list {
		list[i] = float64(math.Float32frombits(uint32(data[4*i]) | uint32(data[4*i+1])<<8 | uint32(data[4*i+2])<<16 | uint32(data[4*i+3])<<24))
	}
	return list
}

// blockName is the name of a layer's tensor: its number, its stem and its suffix.
var blockName = regexp.MustCompile(`^blk\.(\d{1,5})\.([a-z0-9_.]+?)(\.weight|\.bias|)$`)

// nameTensors makes the views of all stored tensors.
func (m *model) nameTensors() {
	layers := m.layers + m.draftLayers()
	for i, t := range m.Stored[:len(m.byName)] { // but for constants
		stem, suffix, prefix, names := t.Name, "", m.arch.prefix, m.arch.outer
		drafts := false
		if b := blockName.FindStringSubmatch(t.Name); b != nil {
			stem, suffix, names = b[2], b[3], m.arch.layer
			prefix += m.arch.layers + b[1] + "."
			if n, _ := strconv.Atoi(b[1]); n >= layers {
				continue // what predicts still further tokens
			} else if drafts = n == m.layers; drafts && m.arch.draftPrefix != "" {
				prefix = m.arch.draftPrefix
			}
		} else if at := strings.LastIndexByte(stem, '.'); at >= 0 {
			stem, suffix = stem[:at], stem[at:]
		}
		to, ok := m.names[t.Name]
		if !ok && drafts {
			to, ok = nameIn(m.arch.draft, stem, suffix)
		}
		if !ok {
			to, ok = nameIn(names, stem, suffix)
		}
		if !ok && drafts {
			continue // such as copies of the embedding
		}
		if !ok {
			m.fail("tensor %q: not known of a %s model", t.Name, m.name)
			return
		}
		if strings.HasPrefix(to, "/") { // not below the prefix
			to, prefix = to[1:], ""
		}
		if to != "" {
			m.view(i, prefix+to, stem)
		}
	}
	if m.arch.join != nil {
		for i := range layers {
			m.arch.join(m, m.arch.prefix+m.arch.layers+strconv.Itoa(i)+".", fmt.Sprintf("blk.%d.", i))
		}
	}
}

// nameIn looks a tensor up by its stem and suffix, or by its stem alone.
func nameIn(names map[string]string, stem, suffix string) (name string, ok bool) {
	if name, ok = names[stem+suffix]; ok {
		return name, true
	}
	if name, ok = names[stem]; ok && name != "" {
		name += suffix
	}
	return name, ok
}

// draftLayers is how many layers after the last are read: one, if it is known how it
// drafts tokens.
func (m *model) draftLayers() int {
	if m.arch.draft != nil && m.has(fmt.Sprintf("blk.%d.nextn.eh_proj.weight", m.layers)) {
		return 1
	}
	return 0
}

// view adds the tensor called name of the model, or one for each expert, that stored
// tensor i is. stem is what it is called in its layer.
func (m *model) view(i int, name, stem string) {
	t := &m.Stored[i]
	if m.arch.flat[stem] && t.Type.Elements == 1 {
		n := 1
		for _, d := range t.Shape {
			n *= d
		}
		t.Shape = []int{n}
	}
	v := View{Name: name, Shape: t.Shape, Rows: []Run{{From: i, Step: 1, N: rowsOf(t.Shape)}}, Map: m.maps[t.Name]}
	if change, own := m.arch.maps[stem]; own {
		v.Map = change
	} else if m.arch.shifted && strings.HasSuffix(stem, "norm") && strings.HasSuffix(t.Name, ".weight") {
		v.Map = minusOne
	}
	if order := m.rows[t.Name]; order != nil {
		v.Rows = slices.Clone(order)
		for k := range v.Rows {
			v.Rows[k].From = i
		}
	}
	switch n := len(t.Shape); {
	case strings.HasSuffix(stem, "conv1d") && n == 2 && strings.HasSuffix(name, ".weight"), stem == "shortconv.conv":
		v.Shape = []int{t.Shape[0], 1, t.Shape[n-1]}
	case m.arch.transposed[stem] && n == 2:
		v.Shape = []int{t.Shape[1], t.Shape[0]}
		v.Rows = []Run{{From: i, Step: 1, N: t.Shape[1], Transposed: true}}
	case strings.Contains(name, "%d") && n > 1:
		rows := rowsOf(t.Shape) / t.Shape[0]
		v.Shape = t.Shape[1:]
		for e := range t.Shape[0] {
			one := v
			one.Name = fmt.Sprintf(name, e)
			one.Rows = []Run{{From: i, First: e * rows, Step: 1, N: rows}}
			if n == 2 { // a vector, whose elements are the columns of a row
				one.Rows = []Run{{From: i, First: e, N: t.Shape[1], Transposed: true}}
			}
			m.Tensors = append(m.Tensors, one)
		}
		return
	}
	m.Tensors = append(m.Tensors, v)
}

// constant adds a tensor of one element that no tensor of the files has. In its place
// the first one of a vector is read.
func (m *model) constant(name, vector string, value float32) {
	if shape := m.shape(vector); len(shape) != 1 || m.Stored[m.byName[vector]].Type.Name != "F32" {
		m.fail("tensor %q: expected a vector of F32, found %v", vector, shape)
		return
	}
	s := m.Stored[m.byName[vector]]
	s.Name, s.Shape, s.Size = name, []int{1}, 4
	m.Tensors = append(m.Tensors, View{Name: name, Shape: s.Shape, Rows: []Run{{From: len(m.Stored), Step: 1, N: 1}}, Map: func(row []float32) { row[0] = value }})
	m.Stored = append(m.Stored, s)
}

// rowsOf is how many rows a tensor has.
func rowsOf(shape []int) int {
	rows := 1
	for i, n := range shape {
		if i == 0 || i < len(shape)-1 {
			rows *= n
		}
	}
	return rows
}

func minusOne(row []float32) {
	for i := range row {
		row[i]--
	}
}

// lastLayer is the number of the last layer.
func lastLayer(m *model) string { return strconv.Itoa(m.layers - 1) }
