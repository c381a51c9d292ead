package sample

// Counts is what a sequence has seen, as penalties need it. The zero value is
// unusable; see NewCounts.
type Counts struct {
	seen  []int32 // distinct ids, in order of first sight
	table []int32 // by id: 0 never seen, otherwise 1 + times generated
}

// NewCounts returns empty counts for ids below vocab.
func NewCounts(vocab int) *Counts {
	return &Counts{table: make([]int32, vocab)}
}

// Reset forgets everything, in time proportional to what was seen.
func (c *Counts) Reset() {
	for _, id := range c.seen {
		c.table[id] = 0
	}
	c.seen = c.seen[:0]
}

// Add counts one more sight of id, which must be below vocab, in the prompt or
// among the generated tokens.
func (c *Counts) Add(id int32, generated bool) {
	if c.table[id] == 0 {
		c.seen = append(c.seen, id)
		c.table[id] = 1
	}
	if generated {
		c.table[id]++
	}
}

// Seen reports whether id was added.
func (c *Counts) Seen(id int32) bool { return c.table[id] > 0 }

// Generated returns how often id was generated.
func (c *Counts) Generated(id int32) int {
	return max(0, int(c.table[id])-1)
}
