#include "grammar.h"

#include <pthread.h>
#include <string.h>
#include <unistd.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

LlgTokenizer *mr_new_trie(const uint32_t *lens, const uint8_t *bytes, uint32_t vocab, const uint32_t *eos,
                          uint32_t eos_count, mr_tokenize_fn tokenize, const void *user, char *error, size_t error_len) {
  LlgTokenizerInitV2 init;
  memset(&init, 0, sizeof init);
  init.struct_size = sizeof init;
  init.vocab_size = vocab;
  init.tok_eos = eos[0];
  init.tok_eos_extra = eos + 1;
  init.tok_eos_extra_count = eos_count - 1;
  init.token_lens = lens;
  init.token_bytes = bytes;
  init.tokenize_assumes_string = true;
  init.tokenize_fn = tokenize;
  init.tokenize_user_data = user;
  return llg_new_tokenizer_v2(&init, error, error_len);
}

typedef struct {
  const LlgConstraintInit *init;
  const char *kind, *data;
  int nice;
  LlgMatcher *matcher;
} compilation;

static void *compile(void *arg) {
  compilation *c = arg;
#ifdef __linux__
  if (c->nice && nice(c->nice)) {  // Linux counts a thread's own; a thread that stays as it was does no harm
  }
#endif
  c->matcher = llg_new_matcher(c->init, c->kind, c->data);
  return NULL;
}

LlgMatcher *mr_new_matcher(const LlgConstraintInit *init, const char *kind, const char *data, int nice) {
  compilation c = {init, kind, data, nice, NULL};
  pthread_attr_t attr;
  pthread_t thread;
  if (pthread_attr_init(&attr) != 0) return NULL;
  int failed = pthread_attr_setstacksize(&attr, MR_COMPILE_STACK);
  if (!failed) failed = pthread_create(&thread, &attr, compile, &c);
  pthread_attr_destroy(&attr);
  if (!failed) pthread_join(thread, NULL);
  return c.matcher;
}

void mr_trim(void) {
#ifdef __GLIBC__
  malloc_trim(0);
#endif
}
