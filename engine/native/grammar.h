// The calls of llguidance that both a server and a trial make.
#ifndef MILLRACE_GRAMMAR_H
#define MILLRACE_GRAMMAR_H

#include "llguidance.h"

typedef size_t (*mr_tokenize_fn)(const void *user, const uint8_t *text, size_t len, uint32_t *out, size_t out_len);

// mr_new_trie makes a trie of vocab tokens: their lengths, and their bytes one
// after the other. It returns null and the reason if they make none.
LlgTokenizer *mr_new_trie(const uint32_t *lens, const uint8_t *bytes, uint32_t vocab, const uint32_t *eos,
                          uint32_t eos_count, mr_tokenize_fn tokenize, const void *user, char *error, size_t error_len);

// mr_new_matcher compiles on a thread with a stack of MR_COMPILE_STACK bytes,
// of which only what is touched is backed by memory: the library recurses along
// references and groups, and an overflow would end the process. The thread is
// nice by that much more than its caller. NULL if no thread can be created.
LlgMatcher *mr_new_matcher(const LlgConstraintInit *init, const char *kind, const char *data, int nice);

// mr_trim gives freed memory back to the system.
void mr_trim(void);

#define MR_COMPILE_STACK ((size_t)256 << 20)

#endif
