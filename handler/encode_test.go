package handler

import (
	"encoding/json"
	"math"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestAppendFloat32(t *testing.T) {
	for f, want := range map[float32]string{
		0: "0.0", 1: "1.0", -0.1: "-0.1", -0.25: "-0.25", -12.345679: "-12.345679", 10: "10.0", 16777216: "16777216.0",
		1e-5: "0.00001", 1e-6: "0.000001", 1.5e-6: "0.0000015", 1e-7: "1e-7", -1.25e-7: "-1.25e-7", 1e12: "1000000000000.0",
		1e13: "1e13", 3.4028235e38: "3.4028235e38", 1e-45: "1e-45",
		float32(math.Inf(1)): "null", float32(math.Inf(-1)): "null",
	} {
		if got := string(appendFloat32(nil, f)); got != want {
			t.Errorf("%g: %s, want %s", f, got, want)
		}
	}
	if got := string(appendFloat32(nil, nan)); got != "null" {
		t.Errorf("NaN: %s", got)
	}
	if got := string(appendFloat32(nil, float32(math.Copysign(0, -1)))); got != "-0.0" {
		t.Errorf("-0: %s", got)
	}
}

func TestAppendString(t *testing.T) {
	for s, want := range map[string]string{
		"":                     `""`,
		"a\"b\\c/":             `"a\"b\\c/"`,
		"\b\f\n\r\t":           `"\b\f\n\r\t"`,
		"\x00\x1f\x7f":         "\"\\u0000\\u001f\x7f\"",
		"é東😀<>&":               "\"é東😀<>&\"",
		"a\u2028b\u2029\u0085": `"a\u2028b\u2029\u0085"`,
		"a\xffb\xe6\x9d":       `"a` + "\uFFFD" + `b` + "\uFFFD\uFFFD" + `"`,
		"\uFFFD":               "\"\uFFFD\"",
		"ends in a half \xf0":  "\"ends in a half \uFFFD\"",
	} {
		if got := string(appendString(nil, s)); got != want {
			t.Errorf("%q: %s, want %s", s, got, want)
		}
		if got := string(appendString(nil, []byte(s))); got != want {
			t.Errorf("bytes %q: %s, want %s", s, got, want)
		}
	}
}

func FuzzAppendString(f *testing.F) {
	f.Add("a\x00\xff\"😀")
	f.Fuzz(func(t *testing.T, s string) {
		var back string
		if err := json.Unmarshal(appendString(nil, s), &back); err != nil {
			t.Fatalf("%q: %v", s, err)
		}
		if want := strings.ToValidUTF8(s, "\uFFFD"); utf8.ValidString(s) && back != want {
			t.Fatalf("%q came back as %q", s, back)
		}
	})
}

func FuzzAppendFloat32(f *testing.F) {
	f.Add(uint32(0x3f800000))
	f.Fuzz(func(t *testing.T, bits uint32) {
		v := math.Float32frombits(bits)
		got := string(appendFloat32(nil, v))
		if got == "null" {
			return
		}
		back, err := strconv.ParseFloat(got, 32)
		if err != nil || float32(back) != v || !json.Valid([]byte(got)) || !strings.ContainsAny(got, ".e") {
			t.Fatalf("%g: %s", v, got)
		}
	})
}
