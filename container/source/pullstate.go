package source

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"slices"
)

// stateName is the file in which Pull keeps what it knows about a folder.
const stateName = ".millrace-pull.json"

// fileState is what is there of one object.
type fileState struct {
	Version string `json:"etag"`
	Size    int64  `json:"size"`
	Have    ranges `json:"have"`
}

// readState reads what an earlier Pull wrote down, by the files' names. What
// cannot be read counts as not there.
func readState(path string) (map[string]fileState, error) {
	state := map[string]fileState{}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return state, nil
	}
	if err != nil {
		return nil, err
	}
	if json.Unmarshal(text, &state) != nil {
		clear(state)
	}
	return state, nil
}

// writeState replaces the file at once.
func writeState(path string, state map[string]fileState) error {
	text, err := json.Marshal(state)
	if err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", text, 0o666); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// ranges are byte ranges [from, to): sorted, not empty, none touching another.
type ranges [][2]int64

// valid reports whether r is such ranges of a file of size bytes.
func (r ranges) valid(size int64) bool {
	at := int64(-1)
	for _, x := range r {
		if x[0] <= at || x[1] <= x[0] || x[1] > size {
			return false
		}
		at = x[1]
	}
	return true
}

func (r ranges) bytes() (n int64) {
	for _, x := range r {
		n += x[1] - x[0]
	}
	return n
}

// prefix returns how many bytes there are from the front.
func (r ranges) prefix() int64 {
	if len(r) == 0 || r[0][0] > 0 {
		return 0
	}
	return r[0][1]
}

// add adds bytes [from, to), which are not in r yet.
func (r *ranges) add(from, to int64) {
	s := *r
	i, _ := slices.BinarySearchFunc(s, from, func(x [2]int64, from int64) int {
		if x[0] < from {
			return -1
		}
		return 1
	})
	after := i < len(s) && s[i][0] == to
	before := i > 0 && s[i-1][1] == from
	switch {
	case before && after:
		s[i-1][1] = s[i][1]
		s = slices.Delete(s, i, i+1)
	case before:
		s[i-1][1] = to
	case after:
		s[i][0] = from
	default:
		s = slices.Insert(s, i, [2]int64{from, to})
	}
	*r = s
}

// missing returns what of size bytes is not in r.
func (r ranges) missing(size int64) (gaps ranges) {
	at := int64(0)
	for _, x := range r {
		if x[0] > at {
			gaps = append(gaps, [2]int64{at, x[0]})
		}
		at = x[1]
	}
	if at < size {
		gaps = append(gaps, [2]int64{at, size})
	}
	return gaps
}
