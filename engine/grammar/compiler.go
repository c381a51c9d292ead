package grammar

import (
	"context"
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

// ErrBusy says that every slot for compiling is taken by a grammar that
// overran its time, and none became free in time.
var ErrBusy = errors.New("grammar compiler is busy")

// CompileLimit is how long Compile keeps its caller waiting, at most.
const CompileLimit = time.Second

// limits are those of every grammar. Those of one mask keep it in the tens of
// milliseconds, the lexer states keep a matcher under 20 MB or so.
var limits = native.MatcherLimits{
	InitialFuel: 1_000_000,
	StepFuel:    100_000,
	StepItems:   50_000,
	LexerStates: 10_000,
	GrammarSize: 200_000,
}

// A Compiler turns Specs into Matchers for one vocabulary. Its methods may be
// called by any number of goroutines, Masks by one at a time.
type Compiler struct {
	trie       *native.TokenTrie
	vocabulary *vocabulary
	eos        []int32

	slots chan struct{} // one for each compilation that may run
	limit time.Duration // CompileLimit; tests on busy machines take more
	cache *cache

	jobs  chan job    // for the workers
	long  chan job    // for the one that makes tokens of long texts
	timer *time.Timer // of wait

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
		limit:      CompileLimit,
		jobs:       make(chan job, 1024),
		long:       make(chan job, 1024),
		timer:      time.NewTimer(time.Hour),
	}
	c.users.Store(1)
	c.cache = newCache(cacheEntries, cacheBytes, c.free)
	for range workers {
		go c.work(c.jobs, longText)
	}
	go c.work(c.long, anyText)
	return c, nil
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

// adopt counts a grammar in the library's memory, free gives it back.
func (c *Compiler) adopt(m *native.Matcher) *native.Matcher {
	c.users.Add(1)
	return m
}

func (c *Compiler) free(m *native.Matcher) {
	m.Free()
	c.release()
}

func (c *Compiler) release() {
	if c.users.Add(-1) == 0 {
		close(c.jobs)
		close(c.long)
		c.trie.Free()
	}
}

// Compile returns a Matcher at the beginning of the grammar. The error is an
// *Error if the grammar is at fault, ErrBusy, or the context's. It returns
// within CompileLimit, or twice that where all slots are taken; a compilation
// that takes longer keeps its slot until it ends.
func (c *Compiler) Compile(ctx context.Context, spec Spec) (*Matcher, error) {
	key := spec.key()
	if m := c.cache.clone(key); m != nil {
		return c.matcher(c.adopt(m)), nil
	}
	source, err := spec.source()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, 2*c.limit, ErrBusy)
	defer cancel()
	select {
	case c.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}

	type result struct {
		m   *native.Matcher
		err error
	}
	done := make(chan result, 1)
	c.users.Add(1) // the compilation uses the trie, and who takes its result then
	go func() {
		m, err := c.compile(spec.Kind, source)
		<-c.slots
		done <- result{m, err}
	}()
	late := time.NewTimer(c.limit)
	defer late.Stop()
	select {
	case r := <-done:
		defer c.release()
		if r.err != nil {
			return nil, spec.located(r.err)
		}
		clone := c.matcher(c.adopt(r.m.Clone()))
		c.cache.add(key, r.m, len(source))
		return clone, nil
	case <-late.C:
		err = errorf("%s takes longer than %v to compile", spec.Kind, c.limit)
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	go func() {
		defer c.release()
		if r := <-done; r.m != nil {
			c.free(r.m)
		}
	}()
	return nil, err
}

// compile makes a grammar and its first mask, which shows whether any text
// satisfies it at all and spares the requests that share it some work.
func (c *Compiler) compile(kind Kind, source string) (*native.Matcher, error) {
	m, err := c.trie.NewMatcher(string(kind), source, limits)
	if err != nil {
		return nil, explain(kind, err)
	}
	c.adopt(m)
	if err := m.Mask(make([]uint32, c.trie.Words())); err != nil {
		c.free(m)
		if strings.Contains(err.Error(), "NoExtensionBias") {
			return nil, errorf("%s: no text satisfies it", kind)
		}
		return nil, errorf("%s is too complex: %v", kind, err)
	}
	return m, nil
}
