package engine

import (
	"math/bits"
	"time"

	"github.com/millrace-ai/millrace/engine/page"
)

// pace learns how long steps take, and bounds how many prompt tokens a step computes
// while sequences generate, so that their readers do not wait long.
//
// A step is taken to last as long as its decoding sequences would alone, and a little
// longer for each token of a prompt. The first is kept by the number of sequences, in
// powers of two; the second rises at once and falls slowly. Both change with the length
// of what is attended to, so only recent steps count. An encoder that computes on the
// same processor makes both longer as long as it runs: steps beside one have a pace of
// their own.
type pace struct {
	last    time.Duration     // of the step before
	decode  [32]time.Duration // by bits.Len of the sequences; 0: not seen
	prompt  float64           // nanoseconds for a token
	largest float64           // prompt tokens of a step, recently
	tried   prompted          // the last step with prompts
}

// prompted is a step with tokens of prompts.
type prompted struct {
	took             time.Duration
	decodes, prompts int
}

// Bounds of a step beside which sequences generate.
const (
	promptStep = 100 * time.Millisecond
	forcedStep = 50 * time.Millisecond // with nothing but text that a grammar forces, of which there may be much
	decodeSpan = 2                     // or so many times as long as one without prompts, if that is more
	aim        = 0.9                   // of these, since no prediction is exact
	// leastPrompt is how many tokens of prompts a step computes however long they
	// take. Far into a long prompt a page of them may take several steps' time.
	leastPrompt = 4
)

// observe takes in a step of so many sequences with one token each, and so many
// tokens of others.
func (p *pace) observe(took time.Duration, decodes, prompts int) {
	p.last = took
	if prompts == 0 {
		at := &p.decode[bits.Len(uint(decodes))]
		if *at == 0 {
			*at = took
			if each := p.each(p.tried); each < p.prompt { // which was said to take all of its step
				p.prompt, p.largest = each, float64(p.tried.prompts) // and no longer rests on larger ones
			}
		}
		*at += (min(took, 2**at) - *at) / 4 // one step that hangs changes little
		return
	}
	p.tried = prompted{took, decodes, prompts}
	if each := p.each(p.tried); p.largest == 0 || each > p.prompt {
		p.prompt = each
	} else {
		p.prompt += (each - p.prompt) / 4
	}
	p.largest = max(float64(prompts), p.largest*7/8)
}

// each returns what a token of the prompts of a step took.
func (p *pace) each(s prompted) float64 {
	return float64(max(0, s.took-p.alone(s.decodes))) / float64(max(1, s.prompts))
}

// alone predicts how long a step takes in which so many sequences decode and
// nothing else happens: as one of about as many, or of fewer, or of more. A step
// without any takes as long as the shortest.
func (p *pace) alone(decodes int) time.Duration {
	n := bits.Len(uint(decodes))
	for i := n; i > 0; i-- {
		if p.decode[i] > 0 {
			return p.decode[i]
		}
	}
	for _, took := range p.decode[n:] {
		if took > 0 {
			return took
		}
	}
	return 0
}

// prompts returns how many tokens of prompts fit into a step of a given time beside
// so many sequences that decode: leastPrompt at least, so that prompts advance, and at
// most a page or twice as many as were tried lately, since what few tokens took
// says little about many.
func (p *pace) prompts(decodes int, step time.Duration) int {
	alone := p.alone(decodes)
	left := float64(max(step, decodeSpan*alone))*aim - float64(alone)
	n := max(page.Tokens, 2*p.largest)
	if p.prompt > 0 {
		n = min(n, left/p.prompt)
	}
	return max(leastPrompt, int(n))
}
