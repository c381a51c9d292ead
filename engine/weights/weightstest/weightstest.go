// Package weightstest writes small checkpoints for tests.
package weightstest

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Tensor is a tensor to write. Data must have the size that dtype and shape
// say, unless the test wants a file that lies.
type Tensor struct {
	Name  string
	DType string
	Shape []int
	Data  []byte
}

// File returns a safetensors file of the tensors, in their order.
func File(tensors ...Tensor) []byte {
	var header strings.Builder
	header.WriteString(`{"__metadata__":{"format":"pt"}`)
	var body []byte
	for _, t := range tensors {
		shape, err := json.Marshal(append([]int{}, t.Shape...))
		if err != nil {
			panic(err) // integers always marshal
		}
		begin := len(body)
		body = append(body, t.Data...)
		fmt.Fprintf(&header, `,%q:{"dtype":%q,"shape":%s,"data_offsets":[%d,%d]}`, t.Name, t.DType, shape, begin, len(body))
	}
	header.WriteByte('}')
	return Raw(header.String(), body)
}

// Raw returns a file with this header text and these bytes after it.
func Raw(header string, body []byte) []byte {
	out := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	out = append(out, header...)
	return append(out, body...)
}

// Folder writes files into a new folder, removed with the test.
func Folder(tb testing.TB, files map[string][]byte) string {
	tb.Helper()
	dir := tb.TempDir()
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			tb.Fatal(err)
		}
	}
	return dir
}
