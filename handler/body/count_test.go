package body

import (
	"strings"
	"testing"
)

func TestCount(t *testing.T) {
	for _, tt := range []struct {
		data            string
		values, objects int
	}{
		{``, 1, 0},
		{`"a"`, 1, 0},
		{`[]`, 2, 0},
		{`[1,2,3]`, 4, 0},
		{`{"a":1,"b":[{}]}`, 5, 2},
		{`["{,[", "\"{,", "\\",{}]`, 6, 1},
		{`["a\\\",{",{}]`, 4, 1},
		{`["not closed, {`, 2, 0},
		{`"\`, 1, 0},
	} {
		if values, objects := Count([]byte(tt.data)); values != tt.values || objects != tt.objects {
			t.Errorf("Count(%s) = %d, %d; want %d, %d", tt.data, values, objects, tt.values, tt.objects)
		}
	}
}

func BenchmarkCount(b *testing.B) {
	data := []byte(`[` + strings.Repeat(`{"role":"user","content":"Hello, how are \"you\"?"},`, 10_000) + `{}]`)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		Count(data)
	}
}
