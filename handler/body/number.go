package body

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// number is a JSON number as serde_json keeps it: integers that fit 64 bits
// exactly, all others as the nearest float64.
type number struct {
	kind numberKind
	u    uint64  // positive
	i    int64   // negative
	f    float64 // float
}

type numberKind int

const (
	positive numberKind = iota
	negative
	float
)

// Uint32 reads an integer of 0 … 2³²-1.
func (r *Reader) Uint32() (uint32, error) {
	n, err := r.integer("u32", 0, math.MaxUint32)
	return uint32(n.u), err
}

// Uint64 reads an integer of 0 … 2⁶⁴-1.
func (r *Reader) Uint64() (uint64, error) {
	n, err := r.integer("u64", 0, math.MaxUint64)
	return n.u, err
}

// Usize reads an integer of 0 … 2⁶⁴-1 that TGI calls usize.
func (r *Reader) Usize() (uint64, error) {
	n, err := r.integer("usize", 0, math.MaxUint64)
	return n.u, err
}

// Seed reads an integer of -2⁶³ … 2⁶⁴-1. It returns its two's complement, and
// whether it is below zero.
func (r *Reader) Seed() (bits uint64, below bool, err error) {
	n, err := r.integer("u64", math.MinInt64, math.MaxUint64)
	if n.kind == negative {
		return uint64(n.i), true, err
	}
	return n.u, false, err
}

// Int32 reads an integer of -2³¹ … 2³¹-1.
func (r *Reader) Int32() (int32, error) {
	n, err := r.integer("i32", math.MinInt32, math.MaxInt32)
	if n.kind == negative {
		return int32(n.i), err
	}
	return int32(n.u), err
}

// integer reads an integer of low … high; low is never positive. Numbers
// written as floats are refused, whatever their value.
func (r *Reader) integer(want string, low int64, high uint64) (number, error) {
	n, err := r.numberOr(want)
	switch {
	case err != nil:
		return n, err
	case n.kind == float:
		return n, r.Errorf("invalid type: floating point `%s`, expected %s", float64Text(n.f), want)
	case n.kind == positive && n.u > high:
		return n, r.Errorf("invalid value: integer `%d`, expected %s", n.u, want)
	case n.kind == negative && n.i < low:
		return n, r.Errorf("invalid value: integer `%d`, expected %s", n.i, want)
	}
	return n, nil
}

// Float32 reads a number. One beyond the range of float32 is out of range, as
// one beyond float64's is.
func (r *Reader) Float32() (float32, error) {
	n, err := r.numberOr("f32")
	if err != nil {
		return 0, err
	}
	f := float32(n.f)
	switch n.kind {
	case positive:
		f = float32(n.u)
	case negative:
		f = float32(n.i)
	}
	if math.IsInf(float64(f), 0) {
		return 0, r.syntax("number out of range")
	}
	return f, nil
}

// numberOr reads a number, or fails with what is there instead.
func (r *Reader) numberOr(want string) (number, error) {
	if c := r.next(); c != '-' && (c < '0' || c > '9') {
		return number{}, r.unexpected(want)
	}
	return r.number()
}

// number reads the number that is next.
func (r *Reader) number() (number, error) {
	from := r.pos
	minus := r.data[r.pos] == '-'
	if minus {
		r.pos++
	}
	u, exact := uint64(0), true
	switch c := r.peek(); {
	case c == '0':
		r.pos++
		if isDigit(r.peek()) {
			return number{}, r.syntaxAhead("invalid number")
		}
	case isDigit(c):
		for isDigit(r.peek()) {
			d := uint64(r.data[r.pos] - '0')
			if exact = exact && !mulOverflows(u, d); exact {
				u = u*10 + d
			}
			r.pos++
		}
	case r.atEnd():
		return number{}, r.syntax("EOF while parsing a value")
	default:
		r.pos++
		return number{}, r.syntax("invalid number")
	}
	if r.peek() == '.' {
		exact = false
		r.pos++
		if err := r.digits(r.syntaxAhead); err != nil {
			return number{}, err
		}
	}
	if c := r.peek(); c == 'e' || c == 'E' {
		exact = false
		r.pos++
		if c := r.peek(); c == '+' || c == '-' {
			r.pos++
		}
		if err := r.digits(r.syntax); err != nil {
			return number{}, err
		}
	}
	switch {
	case exact && !minus:
		return number{kind: positive, u: u}, nil
	case exact && u != 0 && u <= 1<<63:
		return number{kind: negative, i: -int64(u)}, nil // -2⁶³ negates to itself
	}
	f, err := strconv.ParseFloat(string(r.data[from:r.pos]), 64)
	if err != nil {
		return number{}, r.syntax("number out of range")
	}
	return number{kind: float, f: f}, nil
}

// digits reads one digit or more; fail makes the error if there is none.
func (r *Reader) digits(fail func(string) error) error {
	if !isDigit(r.peek()) {
		if r.atEnd() {
			return fail("EOF while parsing a value")
		}
		return fail("invalid number")
	}
	for isDigit(r.peek()) {
		r.pos++
	}
	return nil
}

// peek returns the next byte, 0 at the end.
func (r *Reader) peek() byte {
	if r.atEnd() {
		return 0
	}
	return r.data[r.pos]
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func (n number) String() string {
	switch n.kind {
	case positive:
		return fmt.Sprintf("integer `%d`", n.u)
	case negative:
		return fmt.Sprintf("integer `%d`", n.i)
	}
	return fmt.Sprintf("floating point `%s`", float64Text(n.f))
}

// float64Text prints f in the shortest form that reads back, always with a
// point or an exponent: 10.0, 0.00001, 1.8446744073709552e19.
func float64Text(f float64) string {
	if a := math.Abs(f); a != 0 && (a < 1e-5 || a >= 1e16) {
		s := strconv.FormatFloat(f, 'e', -1, 64)
		s = strings.Replace(s, "e+0", "e", 1)
		s = strings.Replace(s, "e+", "e", 1)
		return strings.Replace(s, "e-0", "e-", 1)
	}
	s := strconv.FormatFloat(f, 'f', -1, 64)
	if !strings.Contains(s, ".") {
		s += ".0"
	}
	return s
}
