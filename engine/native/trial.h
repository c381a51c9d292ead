// What a server and its trial process say to each other, over sockets.
//
// The process reads on descriptor 0, first a trial_vocabulary with the tokens'
// lengths, their bytes and the ends of sequence, then single bytes that each
// carry a descriptor: a socket. For each it forks. The child writes one byte
// there when it is ready, reads a trial_request with the grammar's kind and
// text, writes a trial_answer with its message, perhaps one of TRIAL_SLOW before
// that, and ends. It is killed when the
// other end of its socket is closed.
#ifndef MILLRACE_TRIAL_H
#define MILLRACE_TRIAL_H

#include <stdint.h>

// MR_TRIAL_NAME as argv[0] makes the trial process of any program that has this package.
#define MR_TRIAL_NAME "millrace-grammar-trial"

typedef struct {
  uint32_t tokens, eos_count;
  uint64_t bytes;  // of all tokens
} trial_vocabulary;

typedef struct {
  uint64_t kind_len, text_len;
  uint64_t items_in_row, initial_fuel, step_fuel, step_items, lexer_states, grammar_size;
  uint64_t nice, slow_nice;
  uint64_t quick_us;         // of processor time: then the trial is slow, and says so
  uint64_t cpu_us, wall_us;  // the trial ends itself then
  uint64_t memory;           // bytes
  uint64_t steps;            // tokens drawn after the first mask
} trial_request;

enum { TRIAL_OK, TRIAL_REFUSED, TRIAL_NO_MASK, TRIAL_NO_WALK, TRIAL_LATE, TRIAL_BUSY, TRIAL_SLOW };

typedef struct {
  uint64_t status;
  uint64_t cpu_us;       // that the compilation and its first mask took
  uint64_t bytes;        // the compiled grammar after its first mask
  uint64_t clone_bytes;  // a clone of it
  uint64_t peak;         // the most that was needed meanwhile
  uint64_t message_len;  // at most TRIAL_MESSAGE
} trial_answer;

#define TRIAL_MESSAGE 4096

#endif
