// The mr_* functions of libtokenizers.a, Millrace's Rust library. In the same
// archive: daulet/tokenizers' tokenizers_* (the header is in its Go module)
// and llguidance's llg_* (llguidance.h in its crate).
//
// Ownership
//   Input is borrowed for the call. Each text is (pointer, length): NUL is a
//   character like any other, and a pointer may be null if the length is 0.
//   A result's data belongs to the caller. Bytes and error texts are freed
//   with mr_free(data, len), objects with the function named beside their maker.
//
// Errors
//   failed = MR_FAILED: data is the reason, UTF-8, not NUL-terminated. A panic in
//   Rust arrives here too ("internal error: ..."); none crosses the border.
//   MR_LIMIT is the same for input that asks for more than it may have.
//   MR_TOO_LONG: the answer would be longer than the caller allows; no data.
//   Out of memory ends the process with one line and status 1.
//
// Threads
//   An object may be used by any number of threads at once, except while
//   mr_tokenizer_frame changes it or it is freed.
#ifndef MILLRACE_NATIVE_H
#define MILLRACE_NATIVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MR_FAILED = 1, MR_LIMIT = 2, MR_TOO_LONG = 3 };

typedef struct {
  void *data;  // bytes, an object, or (failed) the reason; null if empty
  size_t len;  // bytes; 0 for an object
  uint8_t failed;
} mr_result;

void mr_free(void *data, size_t len);

// --- Tokenizers -------------------------------------------------------------
// A handle is the same object as tokenizers_from_bytes makes: either set of
// functions takes it, and tokenizers_free_tokenizer frees it.

// Object: a handle from the text of a tokenizer.json, its truncation and padding switched off.
// vocabulary, unless that fails: uint32_t, how many ids there are; for each, uint32_t, where its
// spelling ends; for each, uint8_t, flags (1 exists, 2 added token, 4 special); all spellings.
// Fails if an id is 2^22 or more.
mr_result mr_tokenizer_new(const uint8_t *json, size_t len, mr_result *vocabulary);

// Makes the post-processor "bos text eos"; an empty name leaves that token out. No data.
// Fails if the vocabulary lacks a token. Before the handle is shared only.
mr_result mr_tokenizer_frame(void *handle, const uint8_t *bos, size_t bos_len, const uint8_t *eos, size_t eos_len);

// uint32_t[]: the ids of text. Invalid UTF-8 is read as U+FFFD, one for each
// maximal part, as everywhere here. add_special: let the post-processor add its
// tokens. mark: a character that is in text only to keep special tokens from
// being found, and is not tokenized; 0: none.
mr_result mr_encode(const void *handle, const uint8_t *text, size_t len, bool add_special, uint32_t mark);

// uint32_t[][3]: id, start, stop of each token; offsets count characters of
// text without marks, and are 0, 0 for what the post-processor added.
mr_result mr_encode_spans(const void *handle, const uint8_t *text, size_t len, bool add_special, uint32_t mark);

// UTF-8: the text of ids. An id without a token adds nothing.
mr_result mr_decode(const void *handle, const uint32_t *ids, size_t count, bool skip_special);

// uint32_t[1]: the id of the token spelled so; no data if there is none.
mr_result mr_token_to_id(const void *handle, const uint8_t *token, size_t len);

// JSON: the decoder part of the tokenizer.json, "null" without one.
mr_result mr_decoder_json(const void *handle);

// --- Chat templates ---------------------------------------------------------

typedef struct mr_chat mr_chat;
typedef struct mr_marks mr_marks;

// Object: a compiled Jinja template, in transformers' environment (trim_blocks,
// lstrip_blocks, loop controls, raise_exception, strftime_now, Python's tojson).
// MR_LIMIT for one that is too large or too deep to be compiled.
mr_result mr_chat_new(const uint8_t *source, size_t len);

// UTF-8: the template rendered with the members of a JSON object as variables.
// What the template raises is the reason word for word. MR_TOO_LONG for a text
// of more than max_bytes; MR_LIMIT for a template that takes more steps, memory,
// stack or time than a context of this size can need. *mark is the character
// that stands in spellings of special tokens that the context has, 0 if it has
// none; null marks look for none.
mr_result mr_chat_render(const mr_chat *chat, const uint8_t *context, size_t len, size_t max_bytes, const mr_marks *marks, uint32_t *mark);

void mr_chat_free(mr_chat *chat);

// Object: what finds these spellings, a JSON list of texts. bos_token and its
// like in a context are the checkpoint's, and stay as they are.
mr_result mr_marks_new(const uint8_t *spellings, size_t len);

void mr_marks_free(mr_marks *marks);

#endif
