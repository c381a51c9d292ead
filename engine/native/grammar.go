package native

/*
#include <stdlib.h>
#include "grammar.h"

extern size_t millraceTokenize(uintptr_t user, uint8_t *text, size_t len, uint32_t *out, size_t out_len);

// instead is the tokenizer of the call that this thread makes, 0: the trie's.
static __thread uintptr_t instead;

static size_t tokenize(const void *user, const uint8_t *text, size_t len, uint32_t *out, size_t out_len) {
  return millraceTokenize(instead ? instead : (uintptr_t)user, (uint8_t *)text, len, out, out_len);
}

static int32_t compute_ff_tokens(LlgMatcher *matcher, uint32_t *out, size_t out_len, uintptr_t tokenizer) {
  instead = tokenizer;
  int32_t n = llg_matcher_compute_ff_tokens(matcher, out, out_len);
  instead = 0;
  return n;
}

// new_trie has tokenize call back to Go: the handle is a number and not a pointer.
static LlgTokenizer *new_trie(const uint32_t *lens, const uint8_t *bytes, uint32_t vocab, const uint32_t *eos,
                              uint32_t eos_count, uintptr_t user, char *error, size_t error_len) {
  return mr_new_trie(lens, bytes, vocab, eos, eos_count, tokenize, (const void *)user, error, error_len);
}
*/
import "C"

import (
	"errors"
	"runtime/cgo"
	"strings"
	"sync/atomic"
	"unsafe"
)

// A TokenTrie is a vocabulary as grammars see it: the bytes of each token in a
// tree. Any number of goroutines may use it until Free.
type TokenTrie struct {
	trie     *C.LlgTokenizer
	tokenize cgo.Handle
	words    int
}

// NewTokenTrie makes the trie of tokens, indexed by id. A token without bytes
// is never allowed, and neither is one that begins with 0xFF unless it is one
// of eos (at least one id) and the grammar may end. tokenize makes tokens of
// valid UTF-8, as the model would have been shown that text; it must not keep
// its argument, and is called by many goroutines at once.
func NewTokenTrie(tokens [][]byte, eos []int32, tokenize func([]byte) []int32) (*TokenTrie, error) {
	if len(tokens) == 0 || len(eos) == 0 {
		return nil, errors.New("a token trie needs tokens and an end of sequence")
	}
	lens := make([]uint32, len(tokens))
	var all []byte
	for i, t := range tokens {
		lens[i] = uint32(len(t))
		all = append(all, t...)
	}
	if len(all) == 0 {
		return nil, errors.New("no token of the vocabulary has bytes")
	}
	t := &TokenTrie{tokenize: cgo.NewHandle(tokenize), words: (len(tokens) + 31) / 32}
	var reason [512]byte
	t.trie = C.new_trie((*C.uint32_t)(unsafe.SliceData(lens)), (*C.uint8_t)(unsafe.SliceData(all)), C.uint32_t(len(tokens)),
		(*C.uint32_t)(unsafe.Pointer(unsafe.SliceData(eos))), C.uint32_t(len(eos)), C.uintptr_t(t.tokenize),
		(*C.char)(unsafe.Pointer(&reason[0])), C.size_t(len(reason)))
	if t.trie == nil {
		t.tokenize.Delete()
		return nil, errors.New(C.GoString((*C.char)(unsafe.Pointer(&reason[0]))))
	}
	return t, nil
}

// Words returns the length of a mask: one bit for each token id, in uint32s.
func (t *TokenTrie) Words() int { return t.words }

// Free gives the trie's memory back; no matcher made with it may be left.
func (t *TokenTrie) Free() {
	C.llg_free_tokenizer(t.trie)
	t.tokenize.Delete()
}

// MatcherLimits bound what a grammar may cost. A zero is the library's default.
type MatcherLimits struct {
	ItemsInRow  int // parser items alive at one byte
	InitialFuel int // regular expression nodes made when the grammar is compiled
	StepFuel    int // the same in the computation of one mask
	StepItems   int // parser items made in the computation of one mask
	LexerStates int // states of a matcher's lexer, 1 to 2 kB each
	GrammarSize int // symbols in the compiled grammar
}

// A Matcher is a bare handle to a compiled grammar and a place in it: for one
// goroutine at a time, and not to be used after Free. A method that fails
// leaves the matcher failed for good.
type Matcher struct {
	Bytes int          // the memory it takes, if its maker says so; clones take as much
	Slow  *atomic.Bool // set by its user: its calls take long, as those of its clones do

	matcher *C.LlgMatcher
	words   int
}

// NewMatcher compiles a grammar, text of the given kind: "json_schema",
// "regex" or "lark", on a thread that is nice by so much. The call cannot be
// interrupted.
func (t *TokenTrie) NewMatcher(kind, text string, limits MatcherLimits, nice int) (*Matcher, error) {
	if strings.ContainsRune(text, 0) {
		return nil, errors.New("a grammar cannot contain NUL")
	}
	var init C.LlgConstraintInit
	C.llg_constraint_init_set_defaults(&init, t.trie)
	init.log_stderr_level = 0
	set := func(to *C.size_t, n int) {
		if n != 0 {
			*to = C.size_t(n)
		}
	}
	set(&init.limits.max_items_in_row, limits.ItemsInRow)
	set(&init.limits.step_max_items, limits.StepItems)
	set(&init.limits.max_lexer_states, limits.LexerStates)
	set(&init.limits.max_grammar_size, limits.GrammarSize)
	if limits.InitialFuel != 0 {
		init.limits.initial_lexer_fuel = C.uint64_t(limits.InitialFuel)
	}
	if limits.StepFuel != 0 {
		init.limits.step_lexer_fuel = C.uint64_t(limits.StepFuel)
	}
	init.limits.verbose_errors = false // they would quote the generated text

	k, data := C.CString(kind), C.CString(text)
	defer C.free(unsafe.Pointer(k))
	defer C.free(unsafe.Pointer(data))
	m := &Matcher{Slow: new(atomic.Bool), matcher: C.mr_new_matcher(&init, k, data, C.int(nice)), words: t.words}
	if m.matcher == nil {
		return nil, errors.New("no thread to compile the grammar on")
	}
	if err := m.err(); err != nil {
		m.Free()
		return nil, err
	}
	return m, nil
}

// err returns the reason why the matcher failed, in the library's words.
func (m *Matcher) err() error {
	text := C.llg_matcher_get_error(m.matcher)
	if text == nil {
		return nil
	}
	return errors.New(reason(C.GoString(text)))
}

// reason is an error's text without the mark that the library puts under it.
func reason(text string) string { return strings.TrimSuffix(text, "\n<non-verbose/>") }

func (m *Matcher) check(status C.int32_t) error {
	if status >= 0 {
		return nil
	}
	if err := m.err(); err != nil {
		return err
	}
	return errors.New("the grammar's matcher failed without a reason")
}

// Mask sets the bits of the tokens that may come next, and clears the others.
// dst has the trie's number of words. After the end only the ends of sequence are set.
func (m *Matcher) Mask(dst []uint32) error {
	if len(dst) != m.words {
		return errors.New("mask of a wrong length")
	}
	return m.check(C.llg_matcher_compute_mask_into(m.matcher, (*C.uint32_t)(unsafe.SliceData(dst)), C.size_t(4*len(dst))))
}

// Accept moves the matcher past token.
func (m *Matcher) Accept(token int32) error {
	return m.check(C.llg_matcher_consume_token(m.matcher, C.uint32_t(token)))
}

// A Tokenize is a function that takes the place of a trie's for some calls.
type Tokenize cgo.Handle

// NewTokenize returns a Tokenize of f, which is as NewTokenTrie's but for the
// goroutines that use it alone. Free it.
func NewTokenize(f func([]byte) []int32) Tokenize { return Tokenize(cgo.NewHandle(f)) }

// Free ends the use of t.
func (t Tokenize) Free() { cgo.Handle(t).Delete() }

// Forced fills dst with the tokens that must come next, and returns how many they
// are. All of the text that must come next is shown to tokenize, or to the trie's
// function if that is zero. The matcher asks again each time.
func (m *Matcher) Forced(dst []int32, tokenize Tokenize) (int, error) {
	if len(dst) == 0 {
		return 0, nil
	}
	n := C.compute_ff_tokens(m.matcher, (*C.uint32_t)(unsafe.Pointer(unsafe.SliceData(dst))), C.size_t(len(dst)), C.uintptr_t(tokenize))
	return max(int(n), 0), m.check(n)
}

// Accepting reports whether the text so far is complete.
func (m *Matcher) Accepting() bool { return bool(C.llg_matcher_is_accepting(m.matcher)) }

// Stopped reports whether nothing may follow but the end.
func (m *Matcher) Stopped() bool { return bool(C.llg_matcher_is_stopped(m.matcher)) }

// Reset moves the matcher to the beginning. A failed one cannot be reset.
func (m *Matcher) Reset() error { return m.check(C.llg_matcher_reset(m.matcher)) }

// Clone returns an independent matcher at the same place.
func (m *Matcher) Clone() *Matcher {
	return &Matcher{Bytes: m.Bytes, Slow: m.Slow, matcher: C.llg_clone_matcher(m.matcher), words: m.words}
}

// Free gives the matcher's memory back.
func (m *Matcher) Free() { C.llg_free_matcher(m.matcher) }

// Trim gives memory back to the system that the library has freed. The
// allocator keeps what it got for large work, once for each thread that did
// some: without this, one text after the other would take memory as if all
// were tokenized at once.
func Trim() { C.mr_trim() }
