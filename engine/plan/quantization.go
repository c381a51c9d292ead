package plan

import (
	"maps"
	"slices"
	"strings"
)

// Quantization is what config.json says of how the checkpoint stores matrices. Which
// of them, and with how many bits and groups, the tensors tell.
type Quantization struct {
	Method    string // quant_method; "" if there is no quantization_config
	Symmetric bool   // GPTQ: zero points are the middle code
	ActOrder  bool   // GPTQ: columns of a group need not be neighbours
	V2        bool   // GPTQ: zero points are stored as they are, not less one
	Group     int    // columns that share a scale, -1 or 0 if all do or config.json does not say
	Block     [2]int // FP8: rows and columns that share a scale

	// Formats are those of tensors that are stored as rows of resident formats or, if
	// Packed, in the layout Panels.
	Formats map[string]Format
	Packed  bool
}

// MethodRows is the quant_method of checkpoints that hold resident formats.
const MethodRows = "millrace"

// Quantize is what becomes of matrices that are not stored in few bits.
type Quantize int

// What --quantize may ask for.
const (
	QuantizeNone Quantize = iota // they stay as they are
	QuantizeInt8
	QuantizeInt4
)

// methods are the values of quant_method, and what reads their keys; nil: the
// family does.
var methods = map[string]func(q *object, c *Quantization){
	"awq":                readAWQ,
	"gptq":               readGPTQ,
	"fp8":                readFP8,
	"fbgemm_fp8":         readFP8,
	"modelopt":           readModelOpt,
	"compressed-tensors": readCompressedTensors,
	"bitsandbytes":       readBitsAndBytes,
	MethodRows:           readRows,
	"mxfp4":              nil,
	"bitnet":             nil,
}

// Methods are the values of quant_method that are read, sorted.
func Methods() []string { return slices.Sorted(maps.Keys(methods)) }

// readQuantization reads quantization_config, or what llm-compressor called it once.
func readQuantization(o *object) (c Quantization) {
	key := "quantization_config"
	if o.values[key] == nil {
		key = "compression_config"
	}
	q := o.object(key)
	if q == nil {
		return c
	}
	c.Method = q.text("quant_method", "")
	if c.Method == "" && q.values["load_in_4bit"] != nil {
		c.Method = "bitsandbytes" // as transformers wrote it first
	}
	read, ok := methods[c.Method]
	if !ok {
		q.fail("quant_method", "%q is not supported, only %s; the checkpoint in bf16 can be served with --quantize int8 or int4", c.Method, strings.Join(Methods(), ", "))
		return c
	}
	if read == nil {
		q.read["quant_method"] = false // until the family has
		return c
	}
	read(q, &c)
	// The other keys say how the numbers came about, or are seen in the tensors.
	for key := range q.values {
		q.read[key] = true
	}
	q.nested = nil
	return c
}

// onlyOf refuses a text that is none of those that are supported.
func (o *object) onlyOf(key, def string, texts ...string) string {
	found := o.text(key, def)
	if !slices.Contains(texts, strings.ToLower(found)) {
		o.fail(key, "%q is not supported, only %s", found, strings.Join(texts, ", "))
	}
	return strings.ToLower(found)
}

// unused refuses keys that would change numbers, unless they ask for nothing.
func (o *object) unused(keys ...string) {
	for _, key := range keys {
		if !neutral(o.raw(key), false) {
			o.fail(key, "%s is not supported", short(o.values[key]))
		}
	}
}

// bits refuses numbers of bits that are not supported.
func (o *object) bits(key string, supported ...int) {
	if n := o.integer(key, supported[0]); !slices.Contains(supported, n) {
		o.fail(key, "%d is not supported, only %v", n, supported)
	}
}

func readAWQ(q *object, c *Quantization) {
	c.Group = q.integer("group_size", q.integer("q_group_size", -1))
	q.onlyOf("version", "gemm", "gemm")
	q.bits("bits", 4)
	if !q.boolean("zero_point", true) {
		q.fail("zero_point", "false is not supported")
	}
}

func readGPTQ(q *object, c *Quantization) {
	q.bits("bits", 4, 8)
	c.Group = q.integer("group_size", -1)
	c.Symmetric = q.boolean("sym", true)
	c.ActOrder = q.boolean("desc_act", false)
	format := q.onlyOf("checkpoint_format", q.text("format", "gptq"), "gptq", "gptq_v2")
	c.V2 = format == "gptq_v2"
	q.unused("is_marlin_format", "rotation")
}

func readFP8(q *object, c *Quantization) {
	q.onlyOf("fmt", "e4m3", "e4m3", "float8_e4m3fn")
	c.readBlock(q, "weight_block_size")
}

// readBlock reads how many rows and columns a block has.
func (c *Quantization) readBlock(q *object, key string) {
	list := q.integers(key)
	if list == nil {
		return
	}
	if len(list) != 2 || min(list[0], list[1]) < 1 || max(list[0], list[1]) > maxDimension {
		q.fail(key, "must be rows and columns of a block, found %v", list)
		return
	}
	c.Block = [2]int(list)
}

func readModelOpt(q *object, _ *Quantization) {
	algorithm := q.text("quant_algo", "")
	if in := q.object("quantization"); algorithm == "" && in != nil {
		algorithm = in.text("quant_algo", "")
	}
	if algorithm != "FP8" && algorithm != "NVFP4" {
		q.fail("quant_algo", "%q is not supported, only FP8, NVFP4", algorithm)
	}
}

func readCompressedTensors(q *object, c *Quantization) {
	formats := []string{"pack-quantized", "int-quantized", "naive-quantized", "float-quantized", "nvfp4-pack-quantized", "mxfp4-pack-quantized", "mixed-precision", "dense"}
	q.onlyOf("format", "dense", formats...)
	q.onlyOf("quantization_status", "compressed", "compressed")
	q.unused("transform_config")
	if sparsity := q.object("sparsity_config"); sparsity != nil {
		sparsity.onlyOf("format", "dense", "dense")
	}
	groups := q.object("config_groups")
	if groups == nil {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(groups.values)) {
		if g := groups.object(name); g != nil {
			g.onlyOf("format", "dense", formats...)
			if w := g.object("weights"); w != nil {
				w.bits("num_bits", 4, 8)
				c.Group = w.integer("group_size", c.Group)
				c.readBlock(w, "block_structure")
			}
		}
	}
}

func readBitsAndBytes(q *object, _ *Quantization) {
	if q.boolean("load_in_4bit", false) {
		q.onlyOf("bnb_4bit_quant_type", "nf4", "nf4", "fp4")
		q.onlyOf("bnb_4bit_quant_storage", "uint8", "uint8")
	}
}

func readRows(q *object, c *Quantization) {
	var names map[string][]string
	q.get("formats", "lists of tensors by format", &names)
	if layout := q.text("layout", ""); layout != "" && layout != Panels {
		q.fail("layout", "%q is not supported, only %q: write the checkpoint again with millrace quantize", layout, Panels)
	} else {
		c.Packed = layout != ""
	}
	c.Formats = map[string]Format{}
	for text, list := range names {
		f, ok := ParseFormat(text)
		if !ok || !f.Quantized() && !c.Packed {
			q.fail("formats", "%q is not a format of weights", text)
			return
		}
		for _, name := range list {
			c.Formats[name] = f
		}
	}
}
