package plan

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// object is a JSON object of config.json being read. It remembers which keys
// were asked for, so that what no family understood can be refused, and the
// first thing that was wrong, so that reading needs no error after each key.
// An absent key and null are the same unless a method says otherwise.
type object struct {
	file   string
	prefix string            // of the keys in messages: "" or "text_config."
	names  map[string]string // what the file calls a key, where it has another name for it
	values map[string]json.RawMessage
	read   map[string]bool
	nested map[string]*object // those that were read, by key
	err    *error             // shared with nested objects
}

// infinities are the infinite numbers that transformers 4 wrote as Python does,
// which is not JSON. transformers 5 writes an object.
var infinities = regexp.MustCompile(`([:\[,]\s*)(-?Infinity)\b`)

// parseObject reads text, the contents of file, as one JSON object.
func parseObject(file string, text []byte) (*object, error) {
	o := &object{file: file, read: map[string]bool{}, err: new(error)}
	if err := json.Unmarshal(infinities.ReplaceAll(text, []byte(`$1{"__float__":"$2"}`)), &o.values); err != nil {
		return nil, fmt.Errorf("%s: not a JSON object: %w", file, err)
	}
	if o.values == nil {
		return nil, fmt.Errorf("%s: expected a JSON object, found null", file)
	}
	return o, nil
}

// name is what the file calls key.
func (o *object) name(key string) string {
	if name, ok := o.names[key]; ok && o.values[key] == nil {
		return name
	}
	return key
}

// fail records what is wrong with key, unless something was before.
func (o *object) fail(key, format string, args ...any) {
	if *o.err == nil {
		*o.err = fmt.Errorf("%s: %s%s %s", o.file, o.prefix, o.name(key), fmt.Sprintf(format, args...))
	}
}

// raw returns key's value, nil for null and absent.
func (o *object) raw(key string) json.RawMessage {
	o.read[o.names[key]] = true // which, beside key, has no effect
	key = o.name(key)
	o.read[key] = true
	v := o.values[key]
	if bytes.Equal(v, []byte("null")) {
		return nil
	}
	return v
}

// absent reports that key is not there at all, not even as null.
func (o *object) absent(key string) bool {
	_, ok := o.values[o.name(key)]
	return !ok
}

// get decodes key's value into v and reports whether there was one.
func (o *object) get(key, want string, v any) bool {
	raw := o.raw(key)
	if raw == nil {
		return false
	}
	if err := json.Unmarshal(raw, v); err != nil {
		o.fail(key, "must be %s, found %s", want, short(raw))
		return false
	}
	return true
}

func (o *object) boolean(key string, def bool) bool {
	o.get(key, "true or false", &def)
	return def
}

func (o *object) text(key, def string) string {
	o.get(key, "a string", &def)
	return def
}

func (o *object) texts(key string) []string {
	var list []string
	o.get(key, "a list of strings", &list)
	return list
}

// float reads a finite number.
func (o *object) float(key string, def float64) float64 {
	raw := o.raw(key)
	if raw == nil {
		return def
	}
	v, err := strconv.ParseFloat(string(raw), 64)
	if err != nil || math.IsInf(v, 0) || math.IsNaN(v) {
		o.fail(key, "must be a finite number, found %s", short(raw))
		return def
	}
	return v
}

// integer reads a whole number; 4096.0 is one, as it is for Python.
func (o *object) integer(key string, def int) int {
	raw := o.raw(key)
	if raw == nil {
		return def
	}
	n, ok := wholeNumber(raw)
	if !ok {
		o.fail(key, "must be a whole number, found %s", short(raw))
		return def
	}
	return n
}

// dimension reads an integer that counts something: 1 … most, whatever the
// file says.
func (o *object) dimension(key string, def, most int) int {
	n := o.integer(key, def)
	if n < 1 || n > most {
		o.fail(key, "must be 1 to %d, found %d", most, n)
		return 1
	}
	return n
}

// tokens reads a token id or a list of them.
func (o *object) tokens(key string) []int {
	raw := o.raw(key)
	if raw == nil {
		return nil
	}
	var list []json.RawMessage
	if raw[0] != '[' {
		list = []json.RawMessage{raw}
	} else if err := json.Unmarshal(raw, &list); err != nil {
		o.fail(key, "is not a list: %v", err)
	}
	ids := make([]int, 0, len(list))
	for _, r := range list {
		id, ok := wholeNumber(r)
		if !ok {
			o.fail(key, "must be a token id or a list of them, found %s", short(raw))
			return nil
		}
		ids = append(ids, id)
	}
	return ids
}

// object returns the object under key, nil when there is none or it is empty; the
// same one each time.
func (o *object) object(key string) *object {
	if in, ok := o.nested[key]; ok {
		o.raw(key)
		return in
	}
	in := o.nothing(key)
	if !o.get(key, "an object", &in.values) || len(in.values) == 0 {
		return nil
	}
	if o.nested == nil {
		o.nested = map[string]*object{}
	}
	o.nested[key] = in
	return in
}

// nothing returns an empty object that stands for an absent one.
func (o *object) nothing(key string) *object {
	return &object{file: o.file, prefix: o.prefix + key + ".", names: o.names, values: map[string]json.RawMessage{}, read: map[string]bool{}, err: o.err}
}

// integers reads a list of whole numbers.
func (o *object) integers(key string) []int {
	var raw []json.RawMessage
	if !o.get(key, "a list of whole numbers", &raw) {
		return nil
	}
	list := make([]int, len(raw))
	for i, r := range raw {
		n, ok := wholeNumber(r)
		if !ok {
			o.fail(key, "must be a list of whole numbers, found %s", short(o.raw(key)))
			return nil
		}
		list[i] = n
	}
	return list
}

// floats reads a list of finite numbers.
func (o *object) floats(key string) []float64 {
	var list []float64
	o.get(key, "a list of numbers", &list)
	return list
}

// textConfig returns the config of the language model inside a multimodal one, and
// its type, which must be one of kinds, by default the first.
func (o *object) textConfig(kinds ...string) (text *object, kind string) {
	text = o.object("text_config")
	if text == nil {
		text = o.nothing("text_config")
	}
	kind = text.text("model_type", kinds[0])
	if !slices.Contains(kinds, kind) {
		text.fail("model_type", "%q is not supported, only %s", kind, oneOf(slices.Clone(kinds)))
	}
	o.raw("vision_config") // the tower is not loaded, and images are refused by the handler
	return text, kind
}

// wholeNumber reads a JSON number without a fraction, within ±2^53.
func wholeNumber(raw []byte) (int, bool) {
	const limit = 1 << 53
	f, err := strconv.ParseFloat(string(raw), 64)
	if err != nil || f != math.Trunc(f) || math.Abs(f) > limit {
		return 0, false
	}
	return int(f), true
}

// short gives the beginning of a JSON value for a message of one line.
func short(raw []byte) string {
	const most = 60
	text := strings.Join(strings.Fields(string(raw)), " ")
	if r := []rune(text); len(r) > most {
		return string(r[:most]) + "…"
	}
	return text
}

// oneOf lists choices for a message.
func oneOf(choices []string) string {
	slices.Sort(choices)
	return strings.Join(choices, ", ")
}
