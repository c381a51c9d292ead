package config

import (
	"errors"
	"strings"

	"go.yaml.in/yaml/v3"
)

// file is a config file: a flat map from flag names to values.
type file struct {
	path    string
	entries []entry
}

type entry struct {
	key    string // as the flag is called
	line   int
	values []string // one, or the elements of a list
}

func (f *file) lookup(key string) (entry, bool) {
	if f != nil {
		for _, e := range f.entries {
			if e.key == key && len(e.values) > 0 {
				return e, true
			}
		}
	}
	return entry{}, false
}

// maxFile bounds a config file, which has some hundred keys.
const maxFile = 1 << 20

// readFile reads YAML; JSON is a part of it. Keys may be written as flags or
// as variables are: max-total-tokens, max_total_tokens, MAX_TOTAL_TOKENS.
func readFile(path string, read func(path string) ([]byte, error)) (*file, error) {
	data, err := read(path)
	if err != nil {
		return nil, errorf("config file: %v", err)
	}
	if len(data) > maxFile {
		return nil, errorf("config file %s: %d kB, the limit is %d kB", path, len(data)>>10, maxFile>>10)
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return nil, errorf("config file %s: %s", path, strings.TrimPrefix(err.Error(), "yaml: "))
	}
	f := &file{path: path}
	if len(doc.Content) == 0 {
		return f, nil
	}
	root := doc.Content[0]
	if root.Kind != yaml.MappingNode {
		return nil, errorf("config file %s: expected a map of flag names to values", path)
	}
	first := map[string]int{} // line of a key
	for i := 0; i+1 < len(root.Content); i += 2 {
		k := root.Content[i]
		e := entry{key: strings.ToLower(strings.ReplaceAll(k.Value, "_", "-")), line: k.Line}
		if line := first[e.key]; line > 0 {
			return nil, errorf("%s:%d: %s is set twice, first in line %d", path, e.line, e.key, line)
		}
		first[e.key] = e.line
		if e.values, err = scalars(root.Content[i+1]); err != nil {
			return nil, errorf("%s:%d: %s: %v", path, e.line, e.key, err)
		}
		f.entries = append(f.entries, e)
	}
	return f, nil
}

// scalars returns the text of a scalar, none for null, or of a list of them.
func scalars(n *yaml.Node) ([]string, error) {
	switch n.Kind {
	case yaml.AliasNode:
		return scalars(n.Alias)
	case yaml.ScalarNode:
		if n.Tag == "!!null" {
			return nil, nil
		}
		return []string{n.Value}, nil
	case yaml.SequenceNode:
		var out []string
		for _, c := range n.Content {
			if c.Kind != yaml.ScalarNode {
				return nil, errors.New("expected a list of plain values")
			}
			out = append(out, c.Value)
		}
		return out, nil
	}
	return nil, errors.New("expected a plain value, not a map")
}
