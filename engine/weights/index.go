package weights

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
)

// shard is one file of a sharded checkpoint and the tensors to take from it.
type shard struct {
	file    string
	tensors []string
}

// parseIndex reads model.safetensors.index.json: shards in order of their
// names, the tensors of each in order of theirs.
func parseIndex(text []byte) ([]shard, error) {
	var weightMap json.RawMessage
	err := eachMember(text, func(name string, value json.RawMessage) error {
		if name == "weight_map" {
			weightMap = value
		}
		return nil // total_size and the like are notes, not needed and at times wrong
	})
	if err != nil {
		return nil, err
	}
	if weightMap == nil {
		return nil, errors.New("weight_map is missing")
	}
	byFile := map[string][]string{}
	err = eachMember(weightMap, func(tensor string, value json.RawMessage) error {
		var file string
		if err := json.Unmarshal(value, &file); err != nil || value[0] != '"' {
			return fmt.Errorf("tensor %q: expected a file name, found %s", tensor, short(value))
		}
		// A name, not a path: an index must not reach outside its folder.
		if !fs.ValidPath(file) || strings.ContainsAny(file, `/\`) || !strings.HasSuffix(file, ".safetensors") {
			return fmt.Errorf("tensor %q: expected the name of a .safetensors file beside the index, found %q", tensor, file)
		}
		byFile[file] = append(byFile[file], tensor)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("weight_map: %w", err)
	}
	if len(byFile) == 0 {
		return nil, errors.New("weight_map is empty")
	}
	shards := make([]shard, 0, len(byFile))
	for file, tensors := range byFile {
		slices.Sort(tensors)
		shards = append(shards, shard{file, tensors})
	}
	slices.SortFunc(shards, func(a, b shard) int { return cmp.Compare(a.file, b.file) })
	return shards, nil
}
