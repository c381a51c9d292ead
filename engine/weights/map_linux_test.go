package weights

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/millrace-ai/millrace/engine/weights/weightstest"
)

func TestMap(t *testing.T) {
	data := make([]byte, 3*populateStep)
	for i := range data {
		data[i] = byte(i * i >> 7)
	}
	file := weightstest.File(weightstest.Tensor{Name: "w", DType: "U8", Shape: []int{len(data)}, Data: data})
	dir := weightstest.Folder(t, map[string][]byte{"config.json": []byte("{}"), "model.safetensors": file})
	c, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	w, _ := c.Tensor("w")
	var list []*Mapping
	for _, r := range [][2]int64{{0, w.Size}, {5000, 10}, {4096 - w.Offset%4096, 4096}} {
		m, err := c.Map("model.safetensors", w.Offset+r[0], r[1])
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, m)
		if !bytes.Equal(m.Bytes(), data[r[0]:][:r[1]]) {
			t.Errorf("%d bytes from byte %d on are others", r[1], r[0])
		}
	}
	Populate(list)

	// Closed while they are populated, and twice.
	var running sync.WaitGroup
	running.Go(func() { Populate(list) })
	for range 2 {
		for _, m := range list {
			m.Close()
		}
	}
	running.Wait()
	Populate(list)

	size := int64(len(file))
	for _, tt := range []struct {
		name           string
		offset, length int64
		want           string
	}{
		{"other.safetensors", 0, 1, "other.safetensors: 1 bytes from byte 0 on are not in the checkpoint"},
		{"model.safetensors", -1, 1, "1 bytes from byte -1 on"},
		{"model.safetensors", 0, 0, "0 bytes from byte 0 on"},
		{"model.safetensors", size, 1, "1 bytes from byte"},
		{"model.safetensors", 1, size, "from byte 1 on are not in the checkpoint"},
	} {
		if _, err := c.Map(tt.name, tt.offset, tt.length); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
	if err := os.Truncate(filepath.Join(dir, "model.safetensors"), 100); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Map("model.safetensors", w.Offset, w.Size); err == nil || !strings.Contains(err.Error(), "model.safetensors: the file shrank") {
		t.Errorf("a file that shrank: %v", err)
	}
}

func TestMapOfMemory(t *testing.T) {
	c, err := OpenFS(Folder(weightstest.Folder(t, map[string][]byte{"config.json": []byte("{}"), "model.safetensors": weightstest.File()})))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Map("model.safetensors", 0, 8); err == nil {
		t.Error("a file in memory was mapped")
	}
}
