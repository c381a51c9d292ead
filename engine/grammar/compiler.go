package grammar

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace-ai/millrace/engine/native"
)

// ErrBusy says that others' grammars take the places or the memory that this
// one would need, and none became free in time.
var ErrBusy = errors.New("grammar compiler is busy")

// CompileLimit is how long Compile keeps its caller waiting, at most.
const CompileLimit = 1800 * time.Millisecond

const (
	// DefaultMemory is what grammars may take in all where SetMemory says nothing
	// else. It suffices for a constant of 100 kB, which takes 44 MB.
	DefaultMemory = 2 * (quickTrials + slowTrials) * trialMemory
	// maxUntried bounds a source that is compiled without a trial.
	maxUntried = 16 << 10
	// heavy is a compilation that must not take the place of others.
	heavy = 30 * time.Millisecond
)

// limits are those of every grammar. Those of one mask keep it in the tens of
// milliseconds, the lexer states keep a matcher under 20 MB or so.
var limits = native.MatcherLimits{
	InitialFuel: 1_000_000,
	StepFuel:    100_000,
	StepItems:   250_000,
	LexerStates: 10_000,
	GrammarSize: 200_000,
}

// limitsOf are the limits for one grammar: each byte of a constant is a state
// of its lexer.
func limitsOf(source string) native.MatcherLimits {
	const long = 1000
	l := limits
	start := -1 // of a quoted text
	for i := 0; i < len(source); i++ {
		switch {
		case source[i] == '\\':
			i++
		case source[i] != '"':
		case start < 0:
			start = i
		default:
			if n := i - start; n > long {
				l.LexerStates += n
			}
			start = -1
		}
	}
	return l
}

// A Compiler turns Specs into Matchers for one vocabulary. Its methods may be
// called by any number of goroutines, Masks by one at a time.
type Compiler struct {
	trie       *native.TokenTrie
	vocabulary *vocabulary
	eos        []int32

	trials *trials
	slots  chan struct{} // one for each compilation that may run here
	heavy  chan struct{} // and for each that takes long
	limit  time.Duration // CompileLimit; tests on busy machines take more
	cache  *cache
	memory memory

	untried func(error) // see OnUntried

	mu      sync.Mutex
	flights map[[sha256.Size]byte]*flight

	bytes atomic.Int64 // of all matchers
	trim  *time.Timer

	jobs chan job // for the workers
	long chan job // for the one that makes tokens of long texts

	replaced atomic.Int32 // workers in a slow call that others work in the place of

	// users counts the Compiler itself, until Close, and every grammar in the
	// library's memory; the last one takes the trie and the workers with it.
	users  atomic.Int64
	closed sync.Once
}

// NewCompiler makes a Compiler. size is the number of logits of the model: ids
// without a token in the tokenizer are never allowed. Special tokens are never
// allowed either, except those of eos (at least one) where the text may end.
//
// It takes 2 to 4 µs for each token. Close it.
func NewCompiler(tokenizer Vocabulary, size int, eos []int32) (*Compiler, error) {
	if len(eos) == 0 {
		return nil, errors.New("grammars need a token that ends a sequence; the model names none")
	}
	for _, id := range eos {
		if id < 0 || int(id) >= size {
			return nil, fmt.Errorf("end of sequence %d is outside of the vocabulary of %d", id, size)
		}
	}
	v := newVocabulary(tokenizer, size, eos)
	if err := v.check(); err != nil {
		return nil, err
	}
	trie, err := native.NewTokenTrie(v.tokens, eos, v.encode)
	if err != nil {
		return nil, err
	}
	workers := runtime.GOMAXPROCS(0)
	c := &Compiler{
		trie:       trie,
		vocabulary: v,
		eos:        slices.Clone(eos),
		slots:      make(chan struct{}, workers),
		heavy:      make(chan struct{}, 1),
		limit:      CompileLimit,
		flights:    map[[sha256.Size]byte]*flight{},
		untried:    func(error) {},
		jobs:       make(chan job, 1024),
		long:       make(chan job, 1024),
	}
	c.trials = newTrials(func() (*native.TrialProcess, error) { return native.StartTrials(v.tokens, eos) })
	c.trim = time.AfterFunc(time.Hour, native.Trim)
	c.users.Store(1)
	c.cache = newCache(cacheEntries, cacheBytes, c.free)
	c.SetMemory(DefaultMemory)
	for range workers {
		go c.work()
	}
	go c.workLong()
	return c, nil
}

// memory bounds what grammars take, in bytes.
type memory struct {
	compiled int // one grammar
	matchers int // all of them, with those in the cache
}

// SetMemory sets how many bytes grammars may take in all: a half is for
// matchers and the cache, the other for what is compiled or tried. It is called
// before the first Compile.
func (c *Compiler) SetMemory(bytes int) {
	c.trials.memory = min(trialMemory, bytes/2/(quickTrials+slowTrials))
	c.memory = memory{compiled: c.trials.memory / 2, matchers: bytes / 2}
	c.cache.maxBytes = min(cacheBytes, bytes/6)
}

// MaskWords returns the length of a mask: one bit for each logit, in uint32s,
// token id in bit id%32 of word id/32.
func (c *Compiler) MaskWords() int { return c.trie.Words() }

// EOS returns the tokens that end a text. The caller must not change it.
func (c *Compiler) EOS() []int32 { return c.eos }

// Open returns how many grammars are in memory: in matchers that are not closed,
// and in the cache.
func (c *Compiler) Open() int { return int(c.users.Load()) - 1 }

// Close ends the Compiler: no Compile may run or follow. Matchers stay usable
// until they are closed; the last of them gives the memory back.
func (c *Compiler) Close() {
	c.closed.Do(func() {
		c.cache.clear()
		c.release()
	})
}

// OnUntried has f called, once, when a grammar cannot be tried in a process of
// its own, with the reason. Only those of up to 16 kB are compiled then, and one
// that overruns keeps its place and its memory until it ends. It is called
// before the first Compile.
func (c *Compiler) OnUntried(f func(error)) {
	var once sync.Once
	c.untried = func(err error) { once.Do(func() { f(err) }) }
}

// adopt counts a grammar in the library's memory, free gives it back.
func (c *Compiler) adopt(m *native.Matcher) *native.Matcher {
	c.users.Add(1)
	c.bytes.Add(int64(m.Bytes))
	return m
}

func (c *Compiler) free(m *native.Matcher) {
	const large = 4 << 20 // the system would not get it back by itself
	c.bytes.Add(-int64(m.Bytes))
	m.Free()
	if m.Bytes > large {
		c.trim.Reset(100 * time.Millisecond)
	}
	c.release()
}

func (c *Compiler) release() {
	if c.users.Add(-1) == 0 {
		c.trials.close()
		c.trim.Stop()
		close(c.jobs)
		close(c.long)
		c.trie.Free()
	}
}

// clone returns a matcher at the same place, or ErrBusy if there is no memory for it.
func (c *Compiler) clone(m *native.Matcher) (*Matcher, error) {
	if c.bytes.Load()+int64(m.Bytes) > int64(c.memory.matchers) {
		return nil, ErrBusy
	}
	return c.matcher(c.adopt(m.Clone())), nil
}

// A flight is a compilation with all those that wait for it. It goes on until
// it ends or the last of them leaves.
type flight struct {
	cancel  context.CancelFunc
	waiters map[chan<- landing]bool // guarded by Compiler.mu
	landed  bool                    // the same: each waiter gets its result, also one that leaves
}

type landing struct {
	m   *Matcher
	err error
}

// Compile returns a Matcher at the beginning of the grammar. The error is an
// *Error if the grammar is at fault, ErrBusy, or the context's. It returns
// within CompileLimit, and what it has begun ends within that too.
func (c *Compiler) Compile(ctx context.Context, spec Spec) (*Matcher, error) {
	key := spec.key()
	if m, err := c.cache.clone(key, c.clone); m != nil || err != nil {
		return m, err
	}
	source, err := spec.source()
	if err != nil {
		return nil, err
	}
	done := make(chan landing, 1)
	c.mu.Lock()
	f := c.flights[key]
	if f == nil {
		f = &flight{waiters: map[chan<- landing]bool{}}
		c.flights[key] = f
		var flying context.Context
		flying, f.cancel = context.WithTimeoutCause(context.Background(), c.limit, ErrBusy)
		c.users.Add(1)
		go func() {
			m, bytes, err := c.compile(flying, spec.Kind, source)
			if err != nil {
				err = spec.located(err)
			}
			c.land(key, f, m, bytes, err)
		}()
	}
	f.waiters[done] = true
	c.mu.Unlock()

	ctx, cancel := context.WithTimeoutCause(ctx, c.limit, ErrBusy)
	defer cancel()
	select {
	case r := <-done:
		return r.m, r.err
	case <-ctx.Done():
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.landed {
		go func() {
			if r := <-done; r.m != nil {
				r.m.Close()
			}
		}()
		return nil, context.Cause(ctx)
	}
	delete(f.waiters, done)
	if len(f.waiters) == 0 {
		f.cancel()
		delete(c.flights, key) // later requests must not wait for what is given up
	}
	return nil, context.Cause(ctx)
}

// land gives the grammar m, which takes so many bytes in the cache, or the
// error to all who wait for it. When they have it, nothing of the flight is left.
func (c *Compiler) land(key [sha256.Size]byte, f *flight, m *native.Matcher, bytes int, err error) {
	c.mu.Lock()
	f.landed = true
	if c.flights[key] == f {
		delete(c.flights, key)
	}
	c.mu.Unlock()
	f.cancel()
	results := map[chan<- landing]landing{}
	for done := range f.waiters {
		r := landing{err: err}
		if m != nil {
			r.m, r.err = c.clone(m)
		}
		results[done] = r
	}
	var fault *Error
	switch {
	case m != nil:
		c.cache.add(key, m, bytes)
	case errors.As(err, &fault):
		c.cache.refuse(key, fault)
	}
	c.release()
	for done, r := range results {
		done <- r
	}
}

// compile makes a grammar, with its first mask, which shows whether any text
// satisfies it at all and spares the requests that share it some work.
func (c *Compiler) compile(ctx context.Context, kind Kind, source string) (m *native.Matcher, bytes int, err error) {
	l := limitsOf(source)
	tried, err := c.cost(ctx, kind, source, l)
	if err != nil {
		return nil, 0, err
	}
	slots, nice := c.slots, 0
	if tried.CPU >= heavy {
		slots, nice = c.heavy, heavyNice
	}
	select {
	case slots <- struct{}{}:
	case <-ctx.Done():
		return nil, 0, context.Cause(ctx)
	}
	type made struct {
		m   *native.Matcher
		err error
	}
	done := make(chan made)
	c.users.Add(1)
	go func() {
		m, err := c.make(kind, source, l, nice, tried.CloneBytes)
		<-slots
		if max(tried.Peak, tried.Bytes) > 8<<20 {
			c.trim.Reset(100 * time.Millisecond)
		}
		c.release() // a grammar counts by itself
		select {
		case done <- made{m, err}:
		case <-ctx.Done():
			if m != nil {
				c.free(m)
			}
		}
	}()
	select {
	case r := <-done:
		return r.m, tried.Bytes, r.err
	case <-ctx.Done():
		return nil, 0, context.Cause(ctx)
	}
}

// cost tries a grammar, unless it is known to be cheap.
func (c *Compiler) cost(ctx context.Context, kind Kind, source string, l native.MatcherLimits) (native.TrialResult, error) {
	bytes := compiledBytes(len(source))
	if cheap(kind, source) {
		return native.TrialResult{Bytes: bytes, CloneBytes: bytes}, nil
	}
	r, err := c.trials.run(ctx, kind, source, l)
	switch {
	case err == nil:
		return r, c.verdict(kind, r)
	case !errors.Is(err, errNoTrial):
		return r, err
	}
	c.untried(err)
	if len(source) > maxUntried {
		return r, errorf("%s of %d bytes: the limit is %d where grammars cannot be tried before they are compiled", kind, len(source), maxUntried)
	}
	bytes *= 3 // constants take the most for their length
	return native.TrialResult{CPU: heavy, Bytes: bytes, CloneBytes: bytes}, nil
}

// verdict returns what is wrong with a grammar by its trial.
func (c *Compiler) verdict(kind Kind, r native.TrialResult) error {
	const mega = 1 << 20
	switch r.Status {
	case native.TrialOK:
		if r.Bytes > c.memory.compiled {
			return errorf("%s is too complex: it compiles to %d MB, the limit is %d", kind, r.Bytes/mega, c.memory.compiled/mega)
		}
		return nil
	case native.TrialRefused:
		return explain(kind, errors.New(r.Message))
	case native.TrialNoMask:
		return noMask(kind, errors.New(r.Message))
	case native.TrialNoWalk:
		// An end that no text leads out of is not the fault of the limits: it may never be reached.
		if isDeadEnd(r.Message) {
			return nil
		}
		return tooComplex(kind)
	case native.TrialLate:
		return errorf("%s is too complex: it takes too long to compile", kind)
	case native.TrialBusy:
		return ErrBusy
	}
	return errorf("%s is too complex: to compile it takes more than %d MB of memory, or the grammar library fails on it", kind, c.trials.memory/mega)
}

// make compiles.
func (c *Compiler) make(kind Kind, source string, l native.MatcherLimits, nice, bytes int) (*native.Matcher, error) {
	m, err := c.trie.NewMatcher(string(kind), source, l, nice)
	if err != nil {
		return nil, explain(kind, err)
	}
	m.Bytes = bytes
	c.adopt(m)
	if err := m.Mask(make([]uint32, c.trie.Words())); err != nil {
		c.free(m)
		return nil, noMask(kind, err)
	}
	return m, nil
}

// tooComplex is a grammar beyond the limits of the library, whose words for them
// mean nothing to a client.
func tooComplex(kind Kind) *Error {
	return errorf("%s is too complex: it has too many states", kind)
}

func noMask(kind Kind, err error) *Error {
	if strings.Contains(err.Error(), "NoExtensionBias") {
		return errorf("%s: no text satisfies it", kind)
	}
	return tooComplex(kind)
}

// isDeadEnd reports whether the library says that no text goes on from here.
func isDeadEnd(message string) bool { return strings.Contains(message, "NoExtension") }
