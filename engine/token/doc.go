// Package token turns text into token ids and back.
//
// A Tokenizer is loaded once from a checkpoint's tokenizer.json and shared by
// all goroutines; it owns the library's object and two tables made from it.
// A Decoder belongs to one generated sequence and turns its ids into pieces of
// text, one step at a time, never breaking a character.
//
// This package is the only user of github.com/daulet/tokenizers. The binding
// is driven through the C ABI of engine/native where its own functions have
// defects, which are hidden here:
//
//   - Text passes through C strings, so NUL cuts a text short and empties a
//     decode. Here lengths are passed.
//   - Failures and panics give empty results, or end the process. Here they are errors.
//   - Offsets count bytes, which TGI's /tokenize takes for characters. Here
//     they are characters, so a span is exactly a slice of the text.
//   - There is no way from a token to its id, to its spelling, to its special
//     flag. Here the vocabulary is read out once.
//   - Truncation and padding left in a tokenizer.json from training apply to
//     every text. Here they are switched off, as in transformers.
//   - add_bos_token and add_eos_token of tokenizer_config.json are not known
//     to it. Here they win over the post-processor, as in transformers.
//
// Decoding does not enter the library for the two decoders that language
// models use (byte-level, and ▁ with byte fallback): it takes the bytes of
// each id from a table, 120,000 tokens a second being asked of two cores. Any
// other decoder works through the library. A test compares both ways.
//
// Not here: chat templates and the archive they live in (engine/native), stop
// strings (engine/stop), grammars (engine/grammar).
package token
