package engine

import "github.com/millrace-ai/millrace/engine/device"

// A drafter guesses how the text of one sequence goes on: as it did after the last
// tokens when they came before, in the request's prediction, in its prompt or in what
// was generated. It belongs to a slot, which keeps its memory for the next sequence.
//
// Each three tokens in a row have an entry in a table, by their hash, and those of one
// hash are chained, as in Lempel-Ziv compressors (RFC 1951, section 4). A guess is
// followed as long as it is right, so most tokens cost one comparison and one entry.
type drafter struct {
	heads    []int32 // by hash: the place after the last such tokens, plus one; 0: none
	earlier  []int32 // by place, modulo its length: the one before in the chain
	indexed  int     // tokens of the text that were read
	at       int     // the place in the text that is guessed to come next; negative: none
	matched  int     // tokens before it that equal the last ones
	outcomes outcomes
}

const (
	gram        = 3       // tokens that make a guess
	chainDepth  = 16      // places that are looked at for the longest match
	longestSeen = 32      // tokens of a match that are compared
	draftWindow = 1 << 15 // tokens back in which a guess is looked for
	gramBits    = 13      // of a hash
)

// DrafterBytes is what the drafts of one slot take with Config.Speculate, for texts of
// so many tokens.
func DrafterBytes(longest int) int64 { return 4 * int64(1<<gramBits+draftPlaces(longest)) }

// draftPlaces is how many places a drafter remembers: a power of two.
func draftPlaces(longest int) int {
	n := 1
	for n < min(longest, draftWindow) {
		n *= 2
	}
	return n
}

func newDrafter(longest int) drafter {
	return drafter{heads: make([]int32, 1<<gramBits), earlier: make([]int32, draftPlaces(longest)), at: -1}
}

// reset makes d the drafter of another sequence.
func (d *drafter) reset() {
	clear(d.heads)
	d.indexed, d.at, d.matched, d.outcomes = 0, -1, 0, outcomes{}
}

// read takes in the tokens of s that it has not read, and learns from them how good its
// guesses are. all sums that up over sequences.
func (d *drafter) read(s *sequence, all *outcomes) {
	prompt := len(s.req.Prediction) + len(s.req.Tokens)
	for n := len(s.req.Prediction) + s.known(); d.indexed < n; {
		i := d.indexed
		token := s.text(i)
		if d.at >= 0 && i >= prompt {
			right := s.text(d.at) == token
			d.outcomes.add(matchClass(d.matched), right, sequenceMemory)
			all.add(matchClass(d.matched), right, engineMemory)
			if right {
				d.at++
				d.matched++
			} else {
				d.at = -1
			}
		}
		d.indexed++
		if i+1 < gram {
			continue
		}
		head := &d.heads[hashGram(s.text(i-2), s.text(i-1), token)]
		if d.at < 0 && i+1 >= prompt {
			d.find(s, int(*head)-1)
		}
		d.earlier[(i+1)&(len(d.earlier)-1)] = *head
		*head = int32(i + 2)
	}
	if s.generated == 0 && d.at < 0 && len(s.req.Prediction) > 0 {
		d.at, d.matched = 0, longestSeen // the client says so
	}
}

// find looks for the longest match of the last tokens, the latest of several, in the
// chain that begins at a place.
func (d *drafter) find(s *sequence, place int) {
	for depth := 0; depth < chainDepth && place >= 0 && d.indexed-place < len(d.earlier); depth++ {
		n := 0
		for n < min(place, longestSeen) && s.text(place-1-n) == s.text(d.indexed-1-n) {
			n++
		}
		if n >= gram && (d.at < 0 || n > d.matched) {
			d.at, d.matched = place, n
		}
		place = int(d.earlier[place&(len(d.earlier)-1)]) - 1
	}
}

// draft appends the tokens that are guessed to come next, at most so many. A guess that
// reaches the end of the text goes on with itself.
func (d *drafter) draft(dst []int32, s *sequence, most int) []int32 {
	if d.at < 0 {
		return dst
	}
	first := len(dst)
	for i := range most {
		if at := d.at + i; at < d.indexed {
			dst = append(dst, s.text(at))
		} else {
			dst = append(dst, dst[first+at-d.indexed])
		}
	}
	return dst
}

// text returns token i of the prediction, the prompt and what was generated.
func (s *sequence) text(i int) int32 {
	n := len(s.req.Prediction)
	if i < n {
		return s.req.Prediction[i]
	}
	return s.token(i - n)
}

func hashGram(a, b, c int32) uint32 {
	h := uint32(a)*0x9e3779b1 ^ uint32(b)*0x85ebca77 ^ uint32(c)*0xc2b2ae3d
	h ^= h >> 15
	h *= 0x2c1b3c6d
	return h >> (32 - gramBits)
}

// outcomes are how often guesses were right, by how long their match was, and those of
// the model's head. Old ones count less.
type outcomes [matchClasses]struct{ right, wrong float32 }

const (
	matchClasses = headClass + device.MaxDrafts

	sequenceMemory = 32  // outcomes of a class that count
	engineMemory   = 512 // the same over all sequences
	engineWeight   = 4   // outcomes of the sequence that those of all count as
)

// matchClass sorts matches by their length.
func matchClass(n int) int {
	switch {
	case n < 4:
		return 0
	case n < 6:
		return 1
	case n < 9:
		return 2
	case n < 14:
		return 3
	case n < 24:
		return 4
	}
	return 5
}

// add takes in a guess of a class, and fades others as if memory of them counted.
func (o *outcomes) add(class int, right bool, memory float32) {
	c := &o[class]
	c.right -= c.right / memory
	c.wrong -= c.wrong / memory
	if right {
		c.right++
	} else {
		c.wrong++
	}
}

// fade makes the outcomes of classes from one on, of which no more come, count less.
func (o *outcomes) fade(from int) {
	for class := from; class < len(o); class++ {
		o[class].right -= o[class].right / engineMemory
		o[class].wrong -= o[class].wrong / engineMemory
	}
}

// chance estimates how likely a guess of a class is right. Where little is known, a
// further token of the model's head is as likely right as the one before.
func (d *drafter) chance(class int, all *outcomes) float64 {
	first := min(class, headClass)
	usual := float32(0.5)
	for c := first; c <= class; c++ {
		usual = (all[c].right + 2*usual) / (all[c].right + all[c].wrong + 2)
	}
	own := d.outcomes[class]
	return float64((own.right + engineWeight*usual) / (own.right + own.wrong + engineWeight))
}
