// What Context refuses to enqueue: descriptors that would read or write
// outside of what there is.
#include "context.h"

#include <algorithm>
#include <cmath>

#include "error.h"

namespace millrace {
namespace {

bool within(int32_t v, int32_t n) { return v >= 0 && v < n; }

}  // namespace

void Context::check_batch(const mr_batch& b) {
  const struct {
    const char* name;
    int32_t n, cap;
  } lengths[] = {{"tokens", b.n_tokens, b.cap_tokens}, {"sequences", b.n_seqs, b.cap_seqs},
                 {"rows", b.n_rows, b.cap_rows},       {"page deltas", b.n_pages, b.cap_pages},
                 {"parameter deltas", b.n_params, b.cap_params}, {"count deltas", b.n_counts, b.cap_counts},
                 {"bias deltas", b.n_biases, b.cap_biases}};
  for (const auto& i : lengths)
    if (!within(i.n, i.cap + 1)) fail(MR_INVALID, "%d %s, the limit is %d", i.n, i.name, i.cap);

  for (int i = 0; i < b.n_tokens; i++)
    if (b.tokens[i] != MR_LAST_TOKEN && !within(b.tokens[i], model_->vocab()))
      fail(MR_INVALID, "token %d: id %d of %d", i, b.tokens[i], model_->vocab());
  batch_number_++;
  check_deltas(b);
  check_seqs(b);
  check_rows(b);
}

void Context::check_deltas(const mr_batch& b) {
  const mr_limits& l = limits_;
  for (int i = 0; i < b.n_pages; i++) {
    const mr_page_delta& d = b.pages[i];
    if (!within(d.slot, l.max_slots) || !within(d.index, l.max_pages_per_slot) || !within(d.page, pages_))
      fail(MR_INVALID, "page delta %d: slot %d of %d, index %d of %d, page %d of %d", i, d.slot, l.max_slots, d.index,
           l.max_pages_per_slot, d.page, pages_);
  }
  for (int i = 0; i < b.n_params; i++) {
    const int32_t slot = b.params[i].slot;
    if (!within(slot, l.max_slots)) fail(MR_INVALID, "parameter delta %d: slot %d of %d", i, slot, l.max_slots);
    renewed_in_[slot] = batch_number_;
    biases_[slot] = 0;
  }
  for (int i = 0; i < b.n_counts; i++)
    if (!within(b.counts[i].slot, l.max_slots) || !within(b.counts[i].token, model_->vocab()))
      fail(MR_INVALID, "count delta %d: slot %d of %d, token %d of %d", i, b.counts[i].slot, l.max_slots,
           b.counts[i].token, model_->vocab());
  for (int i = 0; i < b.n_biases; i++) {
    const mr_bias_delta& d = b.biases[i];
    if (!within(d.slot, l.max_slots) || renewed_in_[d.slot] != batch_number_ || !within(d.token, model_->vocab()))
      fail(MR_INVALID, "bias delta %d: slot %d has no parameters in this batch, or token %d is not of %d", i, d.slot,
           d.token, model_->vocab());
    if (!(std::fabs(d.bias) <= MR_MAX_BIAS))
      fail(MR_INVALID, "bias delta %d: bias %g, want a magnitude of at most %d", i, double(d.bias), MR_MAX_BIAS);
    if (++biases_[d.slot] > MR_MAX_BIASES)
      fail(MR_INVALID, "bias delta %d: slot %d has more than %d", i, d.slot, MR_MAX_BIASES);
  }
}

// Fills owner_.
void Context::check_seqs(const mr_batch& b) {
  const int table = limits_.max_pages_per_slot;
  std::fill_n(owner_.begin(), b.n_tokens, -1);
  for (int i = 0; i < b.n_seqs; i++) {
    const mr_seq& s = b.seqs[i];
    if (!within(s.slot, limits_.max_slots) || in_batch_[s.slot] == batch_number_)
      fail(MR_INVALID, "sequence %d: slot %d of %d, each at most once", i, s.slot, limits_.max_slots);
    in_batch_[s.slot] = batch_number_;
    if (s.start < 0 || s.count < 0 || s.start > b.n_tokens - s.count)
      fail(MR_INVALID, "sequence %d: %d tokens from %d on of %d", i, s.count, s.start, b.n_tokens);
    if (s.kv_len < s.count || s.kv_len > table * kPageTokens)
      fail(MR_INVALID, "sequence %d: %d tokens in the cache with %d new ones, the limit is %d", i, s.kv_len, s.count,
           table * kPageTokens);
    for (int j = 0; j < s.count; j++) {
      const int t = s.start + j, pos = s.kv_len - s.count + j;
      if (owner_[t] != -1) fail(MR_INVALID, "sequence %d: token %d belongs to two sequences", i, t);
      owner_[t] = s.slot;
      if (b.pos[t] != pos) fail(MR_INVALID, "sequence %d: token %d at position %d, want %d", i, t, b.pos[t], pos);
    }
    for (int page = 0; page * kPageTokens < s.kv_len; page++) {
      if (known_pages_[size_t(s.slot) * table + page]) continue;
      const bool comes = std::any_of(b.pages, b.pages + b.n_pages, [&](const mr_page_delta& d) {
        return d.slot == s.slot && d.index == page;
      });
      if (!comes) fail(MR_INVALID, "sequence %d: slot %d has no page %d", i, s.slot, page);
    }
  }
  for (int t = 0; t < b.n_tokens; t++)
    if (owner_[t] == -1) fail(MR_INVALID, "token %d belongs to no sequence", t);
}

void Context::check_rows(const mr_batch& b) {
  for (int i = 0; i < b.n_rows; i++) {
    const mr_row& r = b.rows[i];
    if (!within(r.token, b.n_tokens) || owner_[r.token] != r.slot)
      fail(MR_INVALID, "row %d: token %d of %d is not of slot %d", i, r.token, b.n_tokens, r.slot);
    check_answer(r, i);
  }
}

// What a row asks for, in a batch number of its own: Forward and Sample both
// look, since it may change between them.
void Context::check_answer(const mr_row& r, int i) {
  if (!within(r.top_n, MR_MAX_TOP_N + 1))
    fail(MR_INVALID, "row %d: %d alternatives, the limit is %d", i, r.top_n, MR_MAX_TOP_N);
  if (r.kind == 1) {
    if (!within(r.target, model_->vocab()))
      fail(MR_INVALID, "row %d: target %d of %d", i, r.target, model_->vocab());
  } else if (r.kind != 0) {
    fail(MR_INVALID, "row %d: unknown kind %d", i, r.kind);
  } else if (sampled_in_[r.slot] == batch_number_) {
    fail(MR_INVALID, "row %d: slot %d is sampled twice", i, r.slot);
  } else {
    sampled_in_[r.slot] = batch_number_;
  }
}

void Context::check_choices(const mr_batch& b) {
  if (b.n_masks < 0) fail(MR_INVALID, "masks that are no whole number or not in the batch's array");
  if (b.n_masks > b.cap_masks) fail(MR_INVALID, "%d masks, the limit is %d", b.n_masks, b.cap_masks);
  batch_number_++;
  for (int i = 0; i < b.n_rows; i++) {
    const mr_row& r = b.rows[i];
    // The caller may not touch these two, but what follows would read through them.
    if (!within(r.token, b.n_tokens) || !within(r.slot, limits_.max_slots))
      fail(MR_INVALID, "row %d: token %d of %d, slot %d of %d", i, r.token, b.n_tokens, r.slot, limits_.max_slots);
    if (!within(r.mask, b.n_masks + 1)) fail(MR_INVALID, "row %d: mask %d of %d", i, r.mask, b.n_masks);
    check_answer(r, i);
  }
}

}  // namespace millrace
