package body

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
)

// sample is a type with a field of every kind the Reader reads.
type sample struct {
	text  string
	flag  bool
	u32   uint32
	i32   int32
	u64   uint64
	f32   float32
	list  []string
	inner *sample
}

func (s *sample) read(r *Reader) error {
	return r.Object("struct Sample", []string{"text", "flag", "u32", "i32", "u64", "f32", "list", "inner"}, func(field int) (err error) {
		switch field {
		case 0:
			s.text, err = r.String()
		case 1:
			s.flag, err = r.Bool()
		case 2:
			s.u32, err = r.Uint32()
		case 3:
			s.i32, err = r.Int32()
		case 4:
			s.u64, err = r.Uint64()
		case 5:
			s.f32, err = r.Float32()
		case 6:
			return r.Array("a sequence", func(int) error {
				v, err := r.String()
				s.list = append(s.list, v)
				return err
			})
		case 7:
			s.inner = new(sample)
			return s.inner.read(r)
		}
		return err
	})
}

func TestReaderErrors(t *testing.T) {
	for _, tt := range []struct{ name, body, want string }{
		{"empty", ``, "syntax: EOF while parsing a value at line 1 column 0"},
		{"white space only", " \n ", "syntax: EOF while parsing a value at line 2 column 1"},
		{"byte order mark", "\ufeff{}", "syntax: expected value at line 1 column 1"},
		{"no object", `"x"`, "shape: invalid type: string \"x\", expected struct Sample at line 1 column 3"},
		{"array for object", `[1]`, "shape: invalid type: sequence, expected struct Sample at line 1 column 0"},
		{"open object", `{"text":"a"`, "syntax: EOF while parsing an object at line 1 column 11"},
		{"open list", `{"list":["a"`, "syntax: list: EOF while parsing a list at line 1 column 12"},
		{"open string", `{"text":"a`, "syntax: text: EOF while parsing a string at line 1 column 10"},
		{"open key", `{"te`, "syntax: EOF while parsing a string at line 1 column 4"},
		{"key then nothing", `{"text"`, "syntax: EOF while parsing an object at line 1 column 7"},
		{"no colon", `{"text" 1}`, "syntax: expected `:` at line 1 column 9"},
		{"no comma", `{"text":"a" "flag":true}`, "syntax: expected `,` or `}` at line 1 column 13"},
		{"trailing comma", `{"text":"a",}`, "syntax: trailing comma at line 1 column 13"},
		{"trailing comma in list", `{"list":["a",]}`, "syntax: list: trailing comma at line 1 column 14"},
		{"no comma in list", `{"list":["a" "b"]}`, "syntax: list: expected `,` or `]` at line 1 column 14"},
		{"key is a number", `{1:2}`, "syntax: key must be a string at line 1 column 2"},
		{"comma then nothing", `{"flag":true,`, "syntax: EOF while parsing a value at line 1 column 13"},
		{"misspelt literal", `{"flag":trux}`, "syntax: flag: expected ident at line 1 column 12"},
		{"NaN", `{"f32":NaN}`, "syntax: f32: expected value at line 1 column 8"},
		{"beyond float64", `{"f32":1e400}`, "syntax: f32: number out of range at line 1 column 12"},
		{"beyond float32", `{"f32":1e39}`, "syntax: f32: number out of range at line 1 column 11"},
		{"leading zero", `{"u32":01}`, "syntax: u32: invalid number at line 1 column 9"},
		{"minus alone", `{"u32":-}`, "syntax: u32: invalid number at line 1 column 9"},
		{"point alone", `{"f32":1.}`, "syntax: f32: invalid number at line 1 column 10"},
		{"lone high surrogate", `{"text":"\ud800"}`, "syntax: text: unexpected end of hex escape at line 1 column 16"},
		{"lone low surrogate", `{"text":"\udc00"}`, "syntax: text: lone leading surrogate in hex escape at line 1 column 15"},
		{"two high surrogates", `{"text":"\ud800\ud800"}`, "syntax: text: lone leading surrogate in hex escape at line 1 column 21"},
		{"unknown escape", `{"text":"\x"}`, "syntax: text: invalid escape at line 1 column 11"},
		{"hex escape of letters", `{"text":"\u00zz"}`, "syntax: text: invalid escape at line 1 column 15"},
		{"raw newline", "{\"text\":\"a\nb\"}", "syntax: text: control character (\\u0000-\\u001F) found while parsing a string at line 2 column 0"},
		{"invalid UTF-8", "{\"text\":\"\xff\"}", "syntax: text: invalid unicode code point at line 1 column 11"},
		{"float for integer", `{"u32":10.0}`, "shape: u32: invalid type: floating point `10.0`, expected u32 at line 1 column 11"},
		{"minus zero for integer", `{"u32":-0}`, "shape: u32: invalid type: floating point `-0.0`, expected u32 at line 1 column 9"},
		{"negative", `{"u32":-1}`, "shape: u32: invalid value: integer `-1`, expected u32 at line 1 column 9"},
		{"too large", `{"i32":2147483648}`, "shape: i32: invalid value: integer `2147483648`, expected i32 at line 1 column 17"},
		{"2^64", `{"u64":18446744073709551616}`, "shape: u64: invalid type: floating point `1.8446744073709552e19`, expected u64 at line 1 column 27"},
		{"string for number", `{"i32":"x"}`, "shape: i32: invalid type: string \"x\", expected i32 at line 1 column 10"},
		{"boolean for number", `{"f32":true}`, "shape: f32: invalid type: boolean `true`, expected f32 at line 1 column 11"},
		{"null for string", `{"text":null}`, "shape: text: invalid type: null, expected a string at line 1 column 12"},
		{"map for string", `{"text":{}}`, "shape: text: invalid type: map, expected a string at line 1 column 8"},
		{"number in list", `{"list":["a",1]}`, "shape: list[1]: invalid type: integer `1`, expected a string at line 1 column 14"},
		{"twice", `{"text":"a","text":"b"}`, "shape: duplicate field `text` at line 1 column 18"},
		{"nested", `{"inner":{"inner":{"list":[true]}}}`, "shape: inner.inner.list[0]: invalid type: boolean `true`, expected a string at line 1 column 31"},
		{"second line", "{\"text\":\"a\",\n \"u32\":[]}", "shape: u32: invalid type: sequence, expected u32 at line 2 column 7"},
		{"inside a field nobody knows", `{"x":{"y":[1,}}`, "syntax: x: expected value at line 1 column 14"},
		{"quoted echo", `{"u32":"a\"\u0001\n"}`, "shape: u32: invalid type: string \"a\\\"\\u{1}\\n\", expected u32 at line 1 column 20"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var s sample
			err := s.read(NewReader([]byte(tt.body)))
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("%s: no error, want %s", tt.body, tt.want)
			}
			got := map[bool]string{true: "syntax: ", false: "shape: "}[e.Syntax] + e.Error()
			if got != tt.want {
				t.Errorf("%s:\n got %s\nwant %s", tt.body, got, tt.want)
			}
		})
	}
}

func TestReaderLimits(t *testing.T) {
	deep := func(n int) string { return `{"x":` + strings.Repeat("[", n) + strings.Repeat("]", n) + "}" }
	if err := new(sample).read(NewReader([]byte(deep(maxDepth - 2)))); err != nil {
		t.Errorf("%d open brackets: %v", maxDepth-1, err)
	}
	for _, n := range []int{maxDepth - 1, 100_000} {
		err := new(sample).read(NewReader([]byte(deep(n))))
		if err == nil || !strings.Contains(err.Error(), "recursion limit exceeded") {
			t.Errorf("%d open brackets: %v, want recursion limit exceeded", n+1, err)
		}
	}
	long := `{"u32":"` + strings.Repeat("é", 5000) + `"}`
	if err := new(sample).read(NewReader([]byte(long))); err == nil || len(err.Error()) > 300 {
		t.Errorf("long echo: %v", err)
	}
}

// TestReaderFields reads objects of many fields, of which none may come twice.
func TestReaderFields(t *testing.T) {
	fields := make([]string, 128)
	for i := range fields {
		fields[i] = "f" + strconv.Itoa(i)
	}
	for i, name := range fields {
		n := 0
		read := func(text string) error {
			r := NewReader([]byte(text))
			return r.Object("struct Sample", fields, func(field int) error {
				if field != i {
					t.Errorf("%s is field %d", name, field)
				}
				n++
				return r.Skip()
			})
		}
		if err := read(`{"` + name + `":1,"f128":2}`); err != nil || n != 1 {
			t.Errorf("%s: read %d times, %v", name, n, err)
		}
		if err := read(`{"` + name + `":1,"` + name + `":2}`); err == nil || !strings.HasPrefix(err.Error(), "duplicate field `"+name+"`") {
			t.Errorf("%s twice: %v", name, err)
		}
	}
}

// TestReaderSeed reads the integers of 64 bits with and without a sign.
func TestReaderSeed(t *testing.T) {
	for text, want := range map[string]string{
		"0": "0 false", "18446744073709551615": "18446744073709551615 false", "-1": "18446744073709551615 true",
		"-9223372036854775808": "9223372036854775808 true", "1.0": "invalid type", "18446744073709551616": "invalid type", "-9223372036854775809": "invalid type",
	} {
		bits, below, err := NewReader([]byte(text)).Seed()
		got := fmt.Sprint(bits, below)
		if err != nil {
			got = err.Error()
		}
		if !strings.HasPrefix(got, want) {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
}

func TestReaderAccepts(t *testing.T) {
	body := ` {"te\u0078t" : "a\"\\\/\b\f\n\r\té\u00e9\ud83d\ude00\u0000", "flag":false, "unknown":[{"a":[]},{},"\ud800",-1.5e-3,null,true],
		"u32":4294967295,"i32":-2147483648,"u64":18446744073709551615,"f32":1,"list":["",""],"inner":{"f32":-0.5e1}} garbage`
	var s sample
	r := NewReader([]byte(body))
	if err := s.read(r); err != nil {
		t.Fatal(err)
	}
	if s.text != "a\"\\/\b\f\n\r\téé😀\x00" || s.flag || s.u32 != 4294967295 || s.i32 != -2147483648 ||
		s.u64 != 18446744073709551615 || s.f32 != 1 || len(s.list) != 2 || s.inner.f32 != -5 {
		t.Errorf("%+v", s)
	}
	if rest := body[r.pos:]; rest != " garbage" {
		t.Errorf("left %q, want the garbage", rest)
	}
}

func FuzzSkip(f *testing.F) {
	for _, s := range []string{`{"a":[1,2,{"b":null}],"c":"\u00e9"}`, `[]`, `-0.0e+1`, `"\ud800"`, `[[[`, `{"a"`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r := NewReader(data)
		raw, err := r.Raw()
		if err != nil {
			return
		}
		if !json.Valid(raw) {
			t.Fatalf("accepted %q", raw)
		}
	})
}
