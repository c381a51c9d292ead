// The part of llguidance's C ABI (crate version 1.9.1, in libtokenizers.a)
// that Millrace calls. Struct members, their order and types are the crate's:
// another version means comparing them with its llguidance.h.
//
// Ownership
//   Input is borrowed for the call, except the tokenizer and the user data of
//   its function, which must outlive everything made with them. Objects are
//   freed with the function beside their maker.
//
// Errors
//   A function that returns int32_t returns -1 on failure, and the matcher
//   stays failed: llg_matcher_get_error has the reason. Panics arrive there too.
//
// Threads
//   The tokenizer is for any number of threads. A matcher is for one at a time.
#ifndef MILLRACE_LLGUIDANCE_H
#define MILLRACE_LLGUIDANCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct LlgTokenizer LlgTokenizer;
typedef struct LlgMatcher LlgMatcher;

// Writes up to out_len tokens of bytes and returns how many there are.
typedef size_t (*LlgTokenizeFn)(const void *user, const uint8_t *bytes, size_t len, uint32_t *out, size_t out_len);

typedef struct {
  size_t struct_size;
  uint32_t vocab_size;
  uint32_t tok_eos;
  const uint32_t *token_lens;   // [vocab_size]
  const uint8_t *token_bytes;   // all tokens, one after the other
  const char *tokenizer_json;   // null: the two above count
  bool tokenize_assumes_string; // the function gets valid UTF-8 only
  LlgTokenizeFn tokenize_fn;
  bool use_approximate_greedy_tokenize_fn;
  const void *tokenize_user_data;
  const char *const *slices;    // null: the library's choice
  const uint32_t *tok_eos_extra;
  uint32_t tok_eos_extra_count;
} LlgTokenizerInitV2;

typedef struct {
  size_t max_items_in_row;
  uint64_t initial_lexer_fuel;
  uint64_t step_lexer_fuel;
  size_t step_max_items;
  size_t max_lexer_states;
  size_t max_grammar_size;
  bool precompute_large_lexemes;
  bool verbose_errors;
} LlgParserLimits;

typedef struct {
  const LlgTokenizer *tokenizer;
  uint32_t log_buffer_level;
  uint32_t log_stderr_level;
  bool ff_tokens_ok; // a matcher ignores this and the next
  bool backtrack_ok;
  LlgParserLimits limits;
} LlgConstraintInit;

// Null on failure, with the reason in error.
LlgTokenizer *llg_new_tokenizer_v2(const LlgTokenizerInitV2 *init, char *error, size_t error_len);
void llg_free_tokenizer(LlgTokenizer *tokenizer);

void llg_constraint_init_set_defaults(LlgConstraintInit *init, const LlgTokenizer *tokenizer);

// Never null; a bad grammar makes a failed matcher. kind: "json_schema", "regex", "lark".
LlgMatcher *llg_new_matcher(const LlgConstraintInit *init, const char *kind, const char *data);
LlgMatcher *llg_clone_matcher(const LlgMatcher *matcher);
void llg_free_matcher(LlgMatcher *matcher);

// Null without an error; else the matcher's own text, until it is freed.
const char *llg_matcher_get_error(LlgMatcher *matcher);

// mask_bytes must be the vocabulary's size in bits, rounded up to whole uint32_t.
int32_t llg_matcher_compute_mask_into(LlgMatcher *matcher, uint32_t *mask, size_t mask_bytes);
int32_t llg_matcher_consume_token(LlgMatcher *matcher, uint32_t token);
int32_t llg_matcher_compute_ff_tokens(LlgMatcher *matcher, uint32_t *out, size_t out_len);
int32_t llg_matcher_reset(LlgMatcher *matcher);
bool llg_matcher_is_accepting(LlgMatcher *matcher);
bool llg_matcher_is_stopped(const LlgMatcher *matcher);

#endif
