package plan

import "slices"

// whole is all of the checkpoint's tensor called name, which has this shape. Of
// more than two dimensions all but the last are rows, so that a convolution's
// [width, 1, K] is a matrix and experts' [experts, rows, cols] follow each other.
func whole(name string, shape ...int) Part {
	p := Part{Name: name, Shape: shape, Rows: Range{0, 1, 1}, Cols: Range{0, 1, 1}}
	for i, n := range shape {
		if i > 0 && i == len(shape)-1 {
			p.Cols.N = n
		} else {
			p.Rows.N *= n
		}
	}
	return p
}

// flat is all of the checkpoint's tensor called name as a matrix: what has this shape there
// is a row for each of its first dimension.
func flat(name string, shape ...int) Part {
	cols := 1
	for _, n := range shape[1:] {
		cols *= n
	}
	p := whole(name, shape[0], cols)
	p.Stored = shape
	return p
}

// mxfp4 is all of a tensor [matrices, rows, cols] that the checkpoint stores as
// blocks and scales (EncodingMXFP4).
func mxfp4(blocks, scales string, shape ...int) Part {
	p := whole(blocks, shape...)
	p.Encoding, p.Scales = EncodingMXFP4, scales
	return p
}

// ternary is all of a tensor [rows, cols] that the checkpoint stores packed
// (EncodingTernary): a quarter of the rows after the other.
func ternary(name, scale string, rows, cols int) []Part {
	parts := make([]Part, 4)
	for i := range parts {
		parts[i] = whole(name, rows/4, cols)
		parts[i].Encoding, parts[i].Scales, parts[i].Quarter = EncodingTernary, scale, i
	}
	return parts
}

// rows takes n of the part's rows: first, first+step, ….
func (p Part) rows(first, step, n int) Part {
	p.Rows = Range{p.Rows.First + first*p.Rows.Step, step * p.Rows.Step, n}
	return p
}

// cols takes n of the part's columns: first, first+step, ….
func (p Part) cols(first, step, n int) Part {
	p.Cols = Range{p.Cols.First + first*p.Cols.Step, step * p.Cols.Step, n}
	return p
}

// transposed swaps rows and columns, of the part as a whole. rows, cols and
// blocks go on counting as the checkpoint does.
func (p Part) transposed() Part {
	p.Transpose = !p.Transpose
	return p
}

// blocks cuts the part's rows into count equal blocks, of heads or experts, and
// takes of each n rows from first on: a part for each block.
func (p Part) blocks(count, first, n int) []Part {
	parts := make([]Part, count)
	for i := range parts {
		parts[i] = p.rows(i*(p.Rows.N/count)+first, 1, n)
	}
	return parts
}

// size is the rows that the part fills in the plan's tensor, and their length.
func (p Part) size() (rows, cols int) {
	if p.Transpose {
		return p.Cols.N, p.Rows.N
	}
	return p.Rows.N, p.Cols.N
}

func (p Part) equal(q Part) bool {
	return p.Name == q.Name && slices.Equal(p.Shape, q.Shape) && slices.Equal(p.Stored, q.Stored) && p.Rows == q.Rows && p.Cols == q.Cols &&
		p.Transpose == q.Transpose && p.To == q.To && p.Encoding == q.Encoding && p.Scales == q.Scales && p.Quarter == q.Quarter
}
