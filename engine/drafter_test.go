package engine

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// sequenceOf returns a sequence of which the loop knows a text.
func sequenceOf(prediction, prompt, generated []int32) *sequence {
	s := &sequence{output: newOutput(&Stream{}, 1<<20), req: &Request{Prediction: prediction, Tokens: prompt, MaxNewTokens: 1 << 20}}
	for _, t := range generated {
		s.append(Token{ID: t})
	}
	return s
}

// What a drafter finds comes after the last tokens wherever they were before, and after
// the longest match of all, as far as it looks.
func TestDrafterFindsTheLongestMatch(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	found, none := 0, 0
	for range 400 {
		vocab := 2 + rng.IntN(30)
		text := make([]int32, 3+rng.IntN(200))
		for i := range text {
			text[i] = int32(rng.IntN(vocab))
			if i > 20 && rng.IntN(4) > 0 { // copies what it has
				text[i] = text[i-20]
			}
		}
		cut := rng.IntN(len(text) - 1)
		cuts := []int{rng.IntN(cut + 1), cut}
		s := sequenceOf(text[:cuts[0]], text[cuts[0]:cuts[1]+1], text[cuts[1]+1:])
		d := newDrafter(len(text))
		d.indexed = 0
		var all outcomes
		d.read(s, &all)
		d.at = -1 // which it may have followed from where less was known
		d.find(s, place(text, len(text)))

		longest, seen := 0, 0
		for p := len(text) - 1; p >= gram && seen < chainDepth; p-- {
			if !slices.Equal(text[p-gram:p], text[len(text)-gram:]) {
				continue
			}
			seen++
			n := 0
			for n < min(p, longestSeen) && text[p-1-n] == text[len(text)-1-n] {
				n++
			}
			longest = max(longest, n)
		}
		switch {
		case longest == 0:
			none++
			if d.at >= 0 {
				t.Fatalf("%v: place %d, and the last tokens were never before", text, d.at)
			}
		case d.at < 0 || d.matched != longest:
			t.Fatalf("%v: place %d after %d tokens, want %d", text, d.at, d.matched, longest)
		default:
			found++
			draft := d.draft(nil, s, 30)
			for i, token := range draft {
				whole := append(slices.Clone(text), draft[:i]...)
				if token != whole[d.at+i] {
					t.Fatalf("%v: draft %v from place %d", text, draft, d.at)
				}
			}
		}
	}
	if found < 100 || none < 20 {
		t.Errorf("%d matches and %d texts without one", found, none)
	}
}

// place returns the latest place after the last tokens of a text but their own.
func place(text []int32, n int) int {
	for p := n - 1; p >= gram; p-- {
		if slices.Equal(text[p-gram:p], text[n-gram:n]) {
			return p
		}
	}
	return -1
}

// A text that is longer than a drafter remembers is searched as far back as it does.
func TestDrafterForgets(t *testing.T) {
	text := make([]int32, 300)
	for i := range text {
		text[i] = int32(i)
	}
	copy(text[200:], text[100:103]) // from where on 103 comes next
	copy(text[297:], text[10:13])   // too long ago
	for _, tt := range []struct{ known, at int }{{203, 103}, {300, -1}} {
		s := sequenceOf(nil, text[:1], text[1:tt.known])
		d := newDrafter(128)
		var all outcomes
		d.read(s, &all)
		if d.at != tt.at {
			t.Errorf("of %d tokens: place %d, want %d", tt.known, d.at, tt.at)
		}
	}
}

// A drafter begins with the client's prediction and comes back to it after a change.
func TestDrafterFollowsThePrediction(t *testing.T) {
	prediction := []int32{10, 11, 12, 13, 14, 15, 16, 17, 18}
	s := sequenceOf(prediction, []int32{1, 2, 3}, nil)
	d := newDrafter(100)
	var all outcomes
	for i, step := range []struct {
		token int32 // that comes
		want  []int32
	}{
		{0, []int32{10, 11}}, {10, []int32{11, 12}}, {99, nil}, {12, nil}, {13, nil}, {14, []int32{15, 16}}, {15, []int32{16, 17}},
	} {
		if i > 0 {
			s.append(Token{ID: step.token})
		}
		d.read(s, &all)
		if got := d.draft(nil, s, 2); !slices.Equal(got, step.want) {
			t.Errorf("after %d tokens: draft %v, want %v", i, got, step.want)
		}
	}
}

// The chance of a guess follows how often guesses after as long a match were right.
func TestDrafterLearns(t *testing.T) {
	d := newDrafter(10)
	var all outcomes
	short, middle, long := matchClass(3), matchClass(8), matchClass(30)
	near := func(what string, got, lo, hi float64) {
		t.Helper()
		if got < lo || got > hi {
			t.Errorf("%s: %.2f, want %.2f to %.2f", what, got, lo, hi)
		}
	}
	near("nothing known", d.chance(short, &all), 0.5, 0.5)
	for i := range 100 {
		d.outcomes.add(short, false, sequenceMemory)
		d.outcomes.add(long, i%10 > 0, sequenceMemory)
		all.add(middle, true, engineMemory)
	}
	near("always wrong", d.chance(short, &all), 0, 0.1)
	near("mostly right", d.chance(long, &all), 0.75, 0.95)
	near("right for others", d.chance(middle, &all), 0.95, 1)
	for range 40 {
		d.outcomes.add(short, true, sequenceMemory)
	}
	near("right of late", d.chance(short, &all), 0.6, 0.95)
	for range 100 {
		all.add(headClass, true, engineMemory)
	}
	near("a head's second token, while only the first is known", d.chance(headClass+1, &all), 0.9, 1)
	for range 100 {
		all.add(headClass+1, false, engineMemory)
	}
	near("a head's second token, always wrong", d.chance(headClass+1, &all), 0, 0.1)
	for range 8 * engineMemory {
		all.fade(headClass + 1)
	}
	near("a head's second token, long ago", d.chance(headClass+1, &all), 0.9, 1)
	near("a head's first token, as before", d.chance(headClass, &all), 0.9, 1)
}
