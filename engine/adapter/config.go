package adapter

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Names of an adapter's files, as PEFT writes them.
const (
	ConfigFile  = "adapter_config.json"
	WeightsFile = "adapter_model.safetensors"
)

const (
	maxRank = 4096
	// maxScale bounds what alpha makes of an adapter. In use are factors below 100.
	maxScale = 1e4
	// maxPattern bounds a regular expression of a config, in bytes.
	maxPattern = 16 << 10
)

// config is adapter_config.json: how PEFT would make the adapter's modules.
type config struct {
	rank          int
	alpha         float64
	rslora        bool // the scale is alpha/√rank rather than alpha/rank
	rankPattern   []override
	alphaPattern  []override
	targets       modules
	excluded      modules
	layers        []int            // of lists of targets; nil: all
	layersPattern []*regexp.Regexp // find the number of a module's layer, by what the list of layers is called
	parameters    []string         // that are adapted without a module of their own
}

// override is a rank or an alpha of the modules that a pattern matches.
type override struct {
	pattern *regexp.Regexp
	value   float64
}

// modules are names of modules: a pattern that matches whole names, or a list of
// names or of what names end with.
type modules struct {
	pattern *regexp.Regexp
	list    []string
	all     bool // every linear layer
}

// ignored are keys that change no number of a trained adapter: where it is from,
// how it was trained and how its weights began.
var ignored = []string{
	"auto_mapping", "base_model_name_or_path", "corda_config", "ensure_weight_tying", "eva_config", "fan_in_fan_out",
	"inference_mode", "init_lora_weights", "loftq_config", "lora_dropout", "lora_ga_config", "megatron_core", "peft_type", "peft_version",
	"qalora_group_size", "revision", "runtime_config", "task_type",
}

// parseConfig reads adapter_config.json.
func parseConfig(text []byte) (*config, error) {
	var values map[string]json.RawMessage
	if err := json.Unmarshal(text, &values); err != nil || values == nil {
		return nil, fmt.Errorf("expected a JSON object, found %s", short(text))
	}
	r := &configReader{values: values, read: map[string]bool{}}
	if kind := r.text("peft_type"); kind != "LORA" && r.err == nil {
		return nil, fmt.Errorf("peft_type %q is not supported, only LORA", kind)
	}
	c := &config{
		rank:          r.rank("r"),
		alpha:         r.number("lora_alpha", 8),
		rslora:        r.boolean("use_rslora"),
		rankPattern:   r.overrides("rank_pattern"),
		alphaPattern:  r.overrides("alpha_pattern"),
		targets:       r.modules("target_modules"),
		excluded:      r.modules("exclude_modules"),
		layersPattern: r.layersPattern("layers_pattern"),
		parameters:    r.texts("target_parameters"),
		layers:        r.layers("layers_to_transform"),
	}
	if bias := r.text("bias"); bias != "none" && bias != "" {
		r.fail("bias", "%q is not supported, only none", bias)
	}
	if how := r.text("init_lora_weights"); changesBase(how) {
		r.fail("init_lora_weights", "%q is not supported: it changes the weights of the base model; save the adapter with path_initial_model_for_weight_conversion", how)
	}
	r.refuseUnread()
	if r.err != nil {
		return nil, r.err
	}
	for _, p := range c.rankPattern {
		if p.value < 1 || p.value > maxRank || p.value != math.Trunc(p.value) {
			return nil, fmt.Errorf("rank_pattern: %v is not a rank, expected 1 to %d", p.value, maxRank)
		}
	}
	return c, nil
}

// changesBase reports whether an adapter whose weights begin so belongs to a base
// model that PEFT changes when it makes the adapter.
func changesBase(init string) bool {
	return init == "olora" || init == "corda" || init == "loftq" || init == "lora_ga" || strings.HasPrefix(init, "pissa")
}

// rankOf and scaleOf are those of a module.
func (c *config) rankOf(module string) int {
	return int(find(c.rankPattern, module, float64(c.rank)))
}

func (c *config) scaleOf(module string) (float64, error) {
	rank, alpha := float64(c.rankOf(module)), find(c.alphaPattern, module, c.alpha)
	scale := alpha / rank
	if c.rslora {
		scale = alpha / math.Sqrt(rank)
	}
	if !(math.Abs(scale) <= maxScale) {
		return 0, fmt.Errorf("lora_alpha %g of module %q: scales by %g at rank %g, expected at most %g", alpha, module, scale, rank, maxScale)
	}
	return scale, nil
}

func find(list []override, module string, otherwise float64) float64 {
	for _, o := range list {
		if o.pattern.MatchString(module) {
			return o.value
		}
	}
	return otherwise
}

// wants reports whether PEFT would make an adapter of the module.
func (c *config) wants(module string) bool {
	if c.excluded.match(module) || !c.targets.match(module) {
		return false
	}
	if c.layers == nil || c.targets.pattern != nil {
		return true
	}
	for _, p := range c.layersPattern {
		if m := p.FindStringSubmatch(module); m != nil {
			n, err := strconv.Atoi(m[p.SubexpIndex("layer")])
			return err == nil && slices.Contains(c.layers, n)
		}
	}
	return false
}

func (m *modules) match(module string) bool {
	if m.all {
		return true
	}
	if m.pattern != nil {
		return m.pattern.MatchString(module)
	}
	return slices.ContainsFunc(m.list, func(name string) bool {
		return module == name || strings.HasSuffix(module, "."+name)
	})
}

// configReader reads keys of a config and keeps the first error.
type configReader struct {
	values map[string]json.RawMessage
	read   map[string]bool
	err    error
}

func (r *configReader) fail(key, format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("%s: "+format, append([]any{short([]byte(key))}, args...)...)
	}
}

// raw returns the value of a key, nil if there is none or it is null.
func (r *configReader) raw(key string) json.RawMessage {
	r.read[key] = true
	if raw := r.values[key]; string(raw) != "null" {
		return raw
	}
	return nil
}

// text returns a string, "" where there is something else.
func (r *configReader) text(key string) (s string) {
	if raw := r.raw(key); len(raw) > 0 && raw[0] == '"' && json.Unmarshal(raw, &s) != nil {
		r.fail(key, "expected text, found %s", short(raw))
	}
	return s
}

func (r *configReader) number(key string, otherwise float64) float64 {
	raw := r.raw(key)
	if raw == nil {
		return otherwise
	}
	var n float64
	if err := json.Unmarshal(raw, &n); err != nil {
		r.fail(key, "expected a number, found %s", short(raw))
	}
	return n
}

func (r *configReader) rank(key string) int {
	n := r.number(key, 8)
	if n != math.Trunc(n) || n < 1 || n > maxRank {
		r.fail(key, "expected a rank of 1 to %d, found %s", maxRank, short(r.values[key]))
		return 1
	}
	return int(n)
}

func (r *configReader) boolean(key string) (b bool) {
	if raw := r.raw(key); raw != nil && json.Unmarshal(raw, &b) != nil {
		r.fail(key, "expected true or false, found %s", short(raw))
	}
	return b
}

// texts returns a list of texts; one text is a list of itself.
func (r *configReader) texts(key string) (list []string) {
	raw := r.raw(key)
	if len(raw) > 0 && raw[0] == '"' {
		return []string{r.text(key)}
	}
	if raw != nil && json.Unmarshal(raw, &list) != nil {
		r.fail(key, "expected a list of names, found %s", short(raw))
	}
	return list
}

func (r *configReader) layers(key string) (list []int) {
	raw := r.raw(key)
	var one int
	switch {
	case raw == nil:
		return nil
	case json.Unmarshal(raw, &one) == nil:
		return []int{one}
	case json.Unmarshal(raw, &list) != nil:
		r.fail(key, "expected a list of numbers of layers, found %s", short(raw))
	case len(list) == 0:
		return nil // PEFT takes it for all
	}
	return list
}

// layersPattern returns what finds the number of a module's layer: the first in its
// name, or the first after one of the names given.
func (r *configReader) layersPattern(key string) (list []*regexp.Regexp) {
	names := r.texts(key)
	if len(names) == 0 {
		names = []string{"[^.]*"}
	}
	for _, name := range names {
		list = append(list, r.pattern(key, `^(?:.*?\.)?`, name, `\.(?P<layer>\d+)\.`))
	}
	return list
}

func (r *configReader) modules(key string) modules {
	raw := r.raw(key)
	if len(raw) == 0 || raw[0] != '"' {
		return modules{list: r.texts(key)}
	}
	pattern := r.text(key)
	if strings.EqualFold(pattern, "all-linear") {
		return modules{all: true}
	}
	return modules{pattern: r.pattern(key, "^(?:", pattern, ")$")}
}

// overrides reads an object of patterns, in the order of the file: the first that
// matches counts.
func (r *configReader) overrides(key string) (list []override) {
	raw := r.raw(key)
	if raw == nil {
		return nil
	}
	d := json.NewDecoder(strings.NewReader(string(raw)))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		r.fail(key, "expected an object of numbers by module, found %s", short(raw))
		return nil
	}
	for d.More() && r.err == nil {
		name, _ := d.Token() //nolint:errcheck // the object has been parsed before
		var value float64
		if err := d.Decode(&value); err != nil {
			r.fail(key, "expected an object of numbers by module, found %s", short(raw))
			return nil
		}
		list = append(list, override{r.pattern(key, `^(?:.*\.)?(?:`, fmt.Sprint(name), ")$"), value})
	}
	return list
}

// pattern compiles an expression of Python's re with Go's engine, whose time is
// linear whatever the expression. The two agree on what both know.
func (r *configReader) pattern(key, before, pattern, after string) *regexp.Regexp {
	if len(pattern) > maxPattern {
		r.fail(key, "a regular expression of %d bytes, expected at most %d", len(pattern), maxPattern)
		return nil
	}
	p, err := regexp.Compile(before + pattern + after)
	if err != nil {
		r.fail(key, "the regular expression %s is not supported: %w", short([]byte(pattern)), err)
		return nil
	}
	return p
}

// refuseUnread refuses what nobody has read, unless it is switched off or of no
// account.
func (r *configReader) refuseUnread() {
	for _, key := range slices.Sorted(maps.Keys(r.values)) {
		if r.read[key] || slices.Contains(ignored, key) {
			continue
		}
		switch raw := r.values[key]; string(raw) {
		case "null", "false", `""`, "[]", "{}", "0":
		default:
			r.fail(key, "%s is not supported", short(raw))
		}
	}
}

// short gives the beginning of a text for a message of one line.
func short(raw []byte) string {
	const most = 60
	text := strings.Join(strings.Fields(strings.ToValidUTF8(string(raw), "�")), " ")
	if r := []rune(text); len(r) > most {
		return string(r[:most]) + "…"
	}
	return text
}
