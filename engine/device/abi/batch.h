// The arrays of a batch, which each backend lays out in memory of its own.
#ifndef MILLRACE_BATCH_H
#define MILLRACE_BATCH_H

#include <cstddef>

#include "millrace.h"

namespace millrace {

// batch_of returns an empty batch whose arrays have room for what the limits allow.
// output_width is 0 for models whose outputs are logits.
inline mr_batch batch_of(const mr_limits& l, int groups, int vocab, int output_width) {
  mr_batch b{};
  b.cap_tokens = b.cap_embeds = b.cap_spans = l.max_tokens;
  b.cap_axes = 3 * l.max_tokens;
  b.cap_seqs = b.cap_params = b.cap_states = b.cap_masks = l.max_slots;
  b.cap_rows = l.max_rows;
  b.cap_pages = groups * (l.max_slots + 2 * l.max_pages_per_slot + l.max_tokens / MR_PAGE_TOKENS);
  b.cap_counts = l.max_count_deltas;
  b.cap_biases = l.max_bias_deltas;
  b.mask_words = (vocab + 31) / 32;
  b.cap_outputs = output_width > 0 ? l.max_rows : 0;
  b.output_width = output_width;
  return b;
}

// take_arrays calls take(array, n), which makes array one of n elements, for each array
// of a batch.
template <class Take>
void take_arrays(mr_batch& b, int embeds_width, Take take) {
  take(b.tokens, size_t(b.cap_tokens));
  take(b.pos, size_t(b.cap_tokens));
  take(b.axes, size_t(b.cap_axes));
  take(b.embeds, size_t(b.cap_embeds) * size_t(embeds_width));
  take(b.seqs, size_t(b.cap_seqs));
  take(b.rows, size_t(b.cap_rows));
  take(b.pages, size_t(b.cap_pages));
  take(b.states, size_t(b.cap_states));
  take(b.params, size_t(b.cap_params));
  take(b.counts, size_t(b.cap_counts));
  take(b.biases, size_t(b.cap_biases));
  take(b.spans, size_t(b.cap_spans));
  take(b.masks, size_t(b.cap_masks) * size_t(b.mask_words));
  take(b.results, size_t(b.cap_rows));
  take(b.top, size_t(b.cap_rows) * MR_MAX_TOP_N);
  take(b.outputs, size_t(b.cap_outputs) * size_t(b.output_width));
}

}  // namespace millrace
#endif
