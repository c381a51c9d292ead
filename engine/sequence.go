package engine

import (
	"context"
	"slices"
	"time"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/page"
)

type state int

const (
	waiting state = iota // in Engine.waiting (or still in the inbox)
	held                 // in forks of another, until that one's prompt is computed
	active               // in Engine.active, has a slot
	ended                // in none of them; the Stream has been told or will be (unpublished)
)

// sequence is a Request in the engine. The loop owns it once it has taken it from the
// inbox.
//
// The tokens of a sequence are its prompt and what was generated. Three counts
// describe how far it is:
//
//	computed  tokens whose keys and values are in pages, or will be once the
//	          steps launched so far are done; while one of them verifies a draft,
//	          that is counted too
//	known     tokens whose ids the host has seen
//	total     known, and those that steps in flight will sample
//
// A step may compute total − computed tokens of it. Computing the last one yields
// the next token, so total grows by one; a token that is not known yet is fed as
// device.LastToken. Where a sample was not taken, because its mask was late, it is
// taken from the same hidden row later, and no token is computed twice (again).
// Preemption sets computed to zero and nothing else: what was generated is computed
// again, like a prompt.
type sequence struct {
	output
	req        *Request
	constraint *constraintState // nil in free text
	rules      *rules           // nil if there are none
	equal      []int32          // see repeats
	pictures   pictures         // its images
	forks      []*sequence      // of the same prompt, held until it is computed
	released   bool             // its forks need not be held for the prompt
	ctx        context.Context
	done       <-chan struct{} // ctx.Done()

	state      state
	prev, next *sequence // in the queue it waits in; next also in the inbox

	limit    int // total may not exceed it: prompt + MaxNewTokens
	computed int
	total    int

	slot       int32
	tables     []table    // in Engine.tables; by group
	root       page.Key   // of keys
	keys       []page.Key // of full pages of known tokens, as far as needed
	registered int        // leading pages offered to the prefix cache
	ropeLen    int32      // Seq.RopeLen

	live       page.ID // its state, if there are recurrent layers
	from       int32   // StateDelta.From of its next step
	spare      page.ID // the state before the draft that is in flight, or None
	back       int     // tokens that spare has seen
	saved      page.ID // a snapshot that is to be registered in the cache, or None
	savedPages int     // after how many pages it was made

	admitted    bool // has run before
	preempted   int
	luck        float64 // of lengths.predict
	refused     int     // Engine.released when there was no room for it
	blocked     int     // number of the step when it was first refused as the first in line
	due         int     // of the step when there is to be room for it
	delays      int     // how often that was predicted
	passed      int     // sequences admitted before it since, perhaps at its cost
	batch       int     // number of the last step it was part of
	row         int     // of its sample in that step; -1: none
	counted     int     // tokens in the device's counts, if penalties need any
	unpublished bool    // in Engine.unpublished

	expected   []int32 // what the model's head expects from expectedAt on
	expectedAt int
	confirmed  int  // of these, the first so many have come
	gap        bool // the head has not run in all of its steps

	guess     []int32 // of which draft is the beginning
	byHead    bool    // it is the head's, in
	headGuess []int32 // memory of its own, since what is expected changes
	draft     []int32 // of the next step
	drafted   int     // tokens of a draft in computed, until it is verified
	accepted  int     // of these, those that were drawn
	predicted int     // of drafted, those of the prediction: so many at most
	odds      float64 // that the next token of draft will be accepted with all before it
	sure      float64 // that all before it will

	score  []Token // the prompt's, as far as applied; nil if not wanted
	scored int     // prompt tokens scored, or in flight to be
	top    []Alternative
}

// newSequence makes a sequence of req, with the keys of its prompt. What it
// generates takes memory as it comes.
func (e *Engine) newSequence(ctx context.Context, req *Request, root page.Key, keys []page.Key) *sequence {
	limit := len(req.Tokens) + req.MaxNewTokens
	s := &sequence{
		output: newOutput(&Stream{wake: make(chan struct{}, 1), times: Times{Submitted: e.now()}}, req.MaxNewTokens),
		req:    req,
		ctx:    ctx,
		done:   ctx.Done(),
		limit:  limit,
		total:  len(req.Tokens),
		row:    -1,
		batch:  -1,
		root:   root,
		keys:   keys,
		live:   page.None,
		spare:  page.None,
		saved:  page.None,
		equal:  make([]int32, req.Repetition.sizes()),
	}
	if e.speculation.head.exists {
		drafts := make([]int32, 2*device.MaxDrafts)
		s.expected, s.headGuess = drafts[:0:device.MaxDrafts], drafts[device.MaxDrafts:]
	}
	s.ropeLen = e.ropeLen(len(req.Tokens))
	if req.PromptLogprobs {
		s.score = make([]Token, 0, len(req.Tokens))
		e.addScore(s, Token{ID: req.Tokens[0], Logprob: nan})
		s.scored = len(s.score)
	}
	return s
}

// addScore adds the score of the next token of the prompt, and of the image tokens after
// it. These have none: no model learns to predict them, and rows of the image take their
// places.
func (e *Engine) addScore(s *sequence, t Token) {
	s.score = append(s.score, t)
	for i := len(s.score); i < len(s.req.Tokens) && e.isImageToken(s, i); i++ {
		s.score = append(s.score, Token{ID: s.req.Tokens[i], Logprob: nan})
	}
}

// pagesFor returns how many pages hold n tokens.
func pagesFor(n int) int { return (n + page.Tokens - 1) / page.Tokens }

func (s *sequence) known() int { return len(s.req.Tokens) + s.generated }

// wants returns how many tokens the next step may compute: none once every token
// that the request may produce is in flight. The last token of a prompt that is only
// scored need not be computed.
func (s *sequence) wants() int {
	switch {
	case s.scoreOnly():
		return s.total - 1 - s.computed
	case s.total == s.limit:
		return 0
	}
	return s.total - s.computed
}

// scoreOnly reports whether nothing is to be generated.
func (s *sequence) scoreOnly() bool { return s.req.MaxNewTokens == 0 }

// scoredAll reports whether s is done because nothing is to be generated.
func (s *sequence) scoredAll() bool { return s.scoreOnly() && len(s.score) == len(s.req.Tokens) }

// token returns the known token at position i.
func (s *sequence) token(i int) int32 {
	if i < len(s.req.Tokens) {
		return s.req.Tokens[i]
	}
	return s.id(i - len(s.req.Tokens))
}

// drawn returns a generated token, or one of the draft, which comes after those that are
// known.
func (s *sequence) drawn(i int) int32 {
	if i < s.generated {
		return s.id(i)
	}
	return s.draft[i-s.generated]
}

// scoring reports whether prompt tokens are still to be scored, for which
// they must be computed.
func (s *sequence) scoring() bool { return s.score != nil && s.scored < len(s.req.Tokens) }

// fullPages returns the keys of the first n pages, which hold known tokens,
// deriving those of generated tokens.
func (s *sequence) fullPages(n int) []page.Key {
	for len(s.keys) < n {
		parent, first := s.root, len(s.keys)*page.Tokens
		if len(s.keys) > 0 {
			parent = s.keys[len(s.keys)-1]
		}
		var tokens [page.Tokens]int32
		for i := range tokens {
			tokens[i] = s.token(first + i)
		}
		if len(s.keys) == cap(s.keys) {
			s.growKeys()
		}
		s.keys = append(s.keys, parent.Next(tokens[:], s.contentsIn(first)...))
	}
	return s.keys[:n]
}

// contentsIn says which tokens of the page that begins at a place stand for images.
func (s *sequence) contentsIn(first int) (contents []page.Content) {
	for i := s.imageAt(first); i < len(s.req.Images) && s.req.Images[i].First < first+page.Tokens; i++ {
		m := &s.req.Images[i]
		contents = append(contents, page.Content{Hash: m.Hash, First: m.First - first, Count: m.Count})
	}
	return contents
}

// growKeys makes room for the keys of generated tokens, half as many again as
// there are.
func (s *sequence) growKeys() {
	const least = 32
	more := min(max(least, len(s.keys)/2), s.limit/page.Tokens-len(s.keys))
	s.keys = slices.Grow(s.keys, more)
	s.stream.hold.grow(int64(more) * keyBytes)
}

// cancelled reports whether its caller has gone.
func (s *sequence) cancelled() bool {
	if s.stream.closed.Load() {
		return true
	}
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

// commit adds a sampled token with its alternatives.
func (s *sequence) commit(r device.RowResult, top []device.Alternative) {
	s.append(s.made(r, top))
	s.counted = s.known()
}

// made is a token as the device returns it.
func (s *sequence) made(r device.RowResult, top []device.Alternative) Token {
	t := Token{ID: r.Token, Logprob: r.Logprob}
	if len(top) > 0 {
		t.Top = s.alternatives(len(top))
		for i, a := range top {
			t.Top[i] = Alternative{ID: a.Token, Logprob: a.Logprob}
		}
	}
	return t
}

// force adds a token that was the only choice. The device has not sampled it, so
// has not counted it either.
func (s *sequence) force(token int32) {
	t := Token{ID: token}
	if s.req.TopN > 0 {
		t.Top = s.alternatives(1)
		t.Top[0] = Alternative{ID: token}
	}
	s.append(t)
}

// again reports whether the token after all known ones is still to be sampled from
// what is computed, because its mask was late.
func (s *sequence) again() bool { return s.computed == s.total && s.total < s.limit && !s.forcing() }

// alternatives returns n entries cut from a slab, which is renewed as needed.
func (s *sequence) alternatives(n int) []Alternative {
	const tokensPerSlab = 64
	if len(s.top) < n {
		left := s.limit - s.total + 1
		if s.score != nil && len(s.score) < len(s.req.Tokens) {
			left += len(s.req.Tokens) - len(s.score)
		}
		s.top = make([]Alternative, max(n, s.req.TopN*min(tokensPerSlab, left)))
		if s.score == nil || len(s.score) == len(s.req.Tokens) { // else there from the beginning
			s.stream.hold.grow(int64(len(s.top)) * alternativeBytes)
		}
	}
	cut := s.top[:n:n]
	s.top = s.top[n:]
	return cut
}

// abandon ends the sequence and its forks without touching anything but their
// Streams and grammars.
func (s *sequence) abandon(why error) {
	for _, f := range s.forks {
		f.abandon(why)
	}
	s.forks = nil
	s.dropConstraint()
	if s.stream.state.Load()&1 == 1 {
		return
	}
	if s.state != ended {
		s.state = ended
		s.stream.err = why
		s.stream.finished = time.Now()
	}
	s.stream.hold.letGo()
	s.stream.publish(s.generated, true)
}
