package body

import "bytes"

// Count returns how many values and how many objects there are in data, which
// should be JSON: the memory that decoding takes grows with them. It reads much
// faster than a Reader and finds no faults.
func Count(data []byte) (values, objects int) {
	values = 1
	for i := 0; i < len(data); i++ {
		switch data[i] {
		case '"':
			i = endOfString(data, i+1)
		case ',', '[':
			values++
		case '{':
			values++
			objects++
		}
	}
	return values, objects
}

// endOfString returns where the string ends that begins at from, after its
// quote: at the quote that no backslash escapes.
func endOfString(data []byte, from int) int {
	for at := from; ; at++ {
		n := bytes.IndexByte(data[at:], '"')
		if n < 0 {
			return len(data)
		}
		at += n
		slashes := at
		for slashes > from && data[slashes-1] == '\\' {
			slashes--
		}
		if (at-slashes)%2 == 0 {
			return at
		}
	}
}
