package vision

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
)

// settings is a JSON object of a checkpoint being read. What was read is removed, so
// that the rest can be refused; the first thing that was wrong is kept.
type settings struct {
	file   string // and the key of the object in it
	values map[string]json.RawMessage
	err    *error // shared by all of a checkpoint
}

// newSettings reads text, the contents of file. No text is an empty object.
func newSettings(file string, text []byte, err *error) *settings {
	s := &settings{file: file, err: err}
	if text == nil {
		return s
	}
	if e := json.Unmarshal(text, &s.values); e != nil && *err == nil {
		*err = fmt.Errorf("%s: not a JSON object: %w", file, e)
	}
	return s
}

func (s *settings) fail(key, format string, args ...any) {
	if *s.err == nil {
		*s.err = fmt.Errorf("%s: %s %s", s.file, key, fmt.Sprintf(format, args...))
	}
}

// get decodes key's value into v, and reports whether there is one that is not null.
func (s *settings) get(key, want string, v any) bool {
	raw := s.values[key]
	delete(s.values, key)
	if raw == nil || bytes.Equal(raw, []byte("null")) {
		return false
	}
	if err := json.Unmarshal(raw, v); err != nil {
		s.fail(key, "must be %s, found %s", want, short(raw))
		return false
	}
	return true
}

// short is the beginning of a JSON value, for a message of one line.
func short(raw []byte) string {
	const most = 60
	text := []rune(strings.Join(strings.Fields(string(raw)), " "))
	if len(text) > most {
		return string(text[:most]) + "…"
	}
	return string(text)
}

func (s *settings) has(key string) bool {
	raw := s.values[key]
	return raw != nil && !bytes.Equal(raw, []byte("null"))
}

func (s *settings) boolean(key string, def bool) bool {
	s.get(key, "true or false", &def)
	return def
}

func (s *settings) text(key, def string) string {
	s.get(key, "a string", &def)
	return def
}

// integer reads a whole number from least to most.
func (s *settings) integer(key string, def, least, most int) int {
	v := float64(def)
	if !s.get(key, "a whole number", &v) {
		return def
	}
	if v != math.Trunc(v) || v < float64(least) || v > float64(most) {
		s.fail(key, "must be a whole number from %d to %d, found %v", least, most, v)
		return def
	}
	return int(v)
}

// side reads a number of pixels or patches: 1 … maxSide.
func (s *settings) side(key string, def int) int {
	return s.integer(key, def, 1, maxSide)
}

// object returns the object under key; an empty one if there is none.
func (s *settings) object(key string) *settings {
	in := &settings{file: s.file + ": " + key, err: s.err}
	s.get(key, "an object", &in.values)
	return in
}

// square reads a side that is given once, or as height and width that are equal, in a
// list or an object.
func (s *settings) square(key string, def int) int {
	size := s.size(key, true, size{height: def, width: def})
	if size.height != size.width || size.height < 1 || size.height > maxSide {
		s.fail(key, "must be one side of a square, or two that are equal")
		return def
	}
	return size.height
}

// size is what transformers calls a size dict. What it does not have is 0.
type size struct {
	height, width             int
	shortestEdge, longestEdge int
	minPixels, maxPixels      int
}

// size reads a size in any of its spellings: an object, a list of height and width, or a
// number, which is the side of a square or else the shortest edge.
func (s *settings) size(key string, square bool, def size) size {
	raw := s.values[key]
	if !s.has(key) {
		delete(s.values, key)
		return def
	}
	var z size
	switch raw[0] {
	case '{':
		in := s.object(key)
		z = size{
			height: in.integer("height", 0, 1, maxPixelCount), width: in.integer("width", 0, 1, maxPixelCount),
			shortestEdge: in.integer("shortest_edge", 0, 1, maxPixelCount), longestEdge: in.integer("longest_edge", 0, 1, maxPixelCount),
			minPixels: in.integer("min_pixels", 0, 1, maxPixelCount), maxPixels: in.integer("max_pixels", 0, 1, maxPixelCount),
		}
		in.refuse("", nil)
	case '[':
		var list []int
		s.get(key, "a size", &list)
		if len(list) != 2 || min(list[0], list[1]) < 1 || max(list[0], list[1]) > maxSide {
			s.fail(key, "must be height and width, found %s", short(raw))
			return def
		}
		z.height, z.width = list[0], list[1]
	default:
		n := s.integer(key, 0, 1, maxPixelCount)
		if square {
			z.height, z.width = n, n
		} else {
			z.shortestEdge = n
		}
	}
	return z
}

// refuse fails for a key that is left, may change an image, and is not one of known.
func (s *settings) refuse(family string, known map[string]bool) {
	for _, key := range slices.Sorted(maps.Keys(s.values)) {
		raw := s.values[key]
		if known[key] || bytes.Equal(raw, []byte("null")) || bytes.Equal(raw, []byte("false")) {
			continue
		}
		if family == "" {
			s.fail(key, "is not known")
		} else {
			s.fail(key, "%s is not supported for %s", short(raw), family)
		}
	}
}
