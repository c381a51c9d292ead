// Model's attention: what is written to the cache, and how its work is shared.
#include <algorithm>
#include <cstring>

#include "model.h"

namespace millrace {
namespace {

constexpr int kBlockRows = 48;  // query rows that share a pass over the cache
constexpr int kPartHeads = 4;   // query heads that share one at least, if more workers want some

// The most memory for attention states that workers share, unless one
// sequence needs more.
constexpr size_t kPartialFloats = size_t(16) << 20;

}  // namespace

// Stores one token's keys and values where its position belongs. Rounding here
// and reading everything back, the current chunk too, is what makes a result
// independent of how a prompt was cut.
void Model::write_cache(const Op& op, int token, float* scratch) {
  const Cache& c = program_.caches[op.i[MR_WRITE_CACHE]];
  const int pos = step_.batch->pos[token], lane = pos % kPageTokens;
  const int page = page_table(seq_of(token), c.group)[pos / kPageTokens];
  const bool latent = c.kind == MR_CACHE_LATENT;
  const float* x = values_[op.in[0]].row(token);
  const float* y = op.in[1] < 0 ? nullptr : values_[op.in[1]].row(token);
  for (int h = 0; h < c.heads; h++) {
    char* keys = cached(c, page, h);
    if (latent) {
      const int first = program_.width(op.in[0]);
      if (program_.cache == kPageW8) {  // groups may have columns of both
        std::copy(x, x + first, scratch);
        if (y != nullptr) std::copy(y, y + c.key_width - first, scratch + first);
        store_codes(scratch, c.key_width, false, lane, keys, scratch + c.key_width);
        continue;
      }
      store_keys(x, first, 0, lane, keys);
      store_keys(y, c.key_width - first, first, lane, keys);
      continue;
    }
    const float* values = y + h * c.value_width;
    if (program_.cache == kPageW8) {
      store_codes(x + h * c.key_width, c.key_width, false, lane, keys, scratch);
      store_codes(values, c.value_width, true, lane, keys + c.key_bytes, scratch);
      continue;
    }
    store_keys(x + h * c.key_width, c.key_width, 0, lane, keys);
    // Neighbouring columns are neighbours in a panel of values, 16 at a time.
    for (int d = 0; d < c.value_width; d += kPanel) {
      const int n = std::min(kPanel, c.value_width - d);
      const size_t at = size_t(d) * kPageTokens + size_t(lane) * kPanel;
      if (program_.cache == kPageF32)
        std::memcpy(reinterpret_cast<float*>(keys + c.key_bytes) + at, values + d, n * sizeof(float));
      else
        kernels_.to_f16(values + d, reinterpret_cast<uint16_t*>(keys + c.key_bytes) + at, n);
    }
  }
}

// Stores n columns of a key, from `column` on, in its lane of a page.
void Model::store_keys(const float* key, int n, int column, int lane, char* page) const {
  if (program_.cache == kPageF32) {
    float* to = reinterpret_cast<float*>(page) + size_t(column) * kPanel + lane;
    for (int i = 0; i < n; i++) to[size_t(i) * kPanel] = key[i];
    return;
  }
  constexpr int kAtOnce = 256;
  uint16_t half[kAtOnce];
  uint16_t* to = reinterpret_cast<uint16_t*>(page) + size_t(column) * kPanel + lane;
  for (int first = 0; first < n; first += kAtOnce) {
    const int m = std::min(kAtOnce, n - first);
    kernels_.to_f16(key + first, half, m);
    for (int i = 0; i < m; i++) to[size_t(first + i) * kPanel] = half[i];
  }
}

// Stores a row of n codes and its scales in its lane of a page: each column of keys is
// 16 positions, 16 columns of values are neighbours.
void Model::store_codes(const float* row, int n, bool values, int lane, char* page, float* scratch) const {
  const int padded = (n + kPanel - 1) / kPanel * kPanel, width = values ? padded : n;
  int8_t* codes = reinterpret_cast<int8_t*>(scratch);
  uint16_t* scales = reinterpret_cast<uint16_t*>(codes + padded);
  kernels_.to_w8(row, n, program_.scale_group, codes, scales);
  if (values)
    for (int d = 0; d < n; d += kPanel) std::memcpy(page + (d + lane) * size_t(kPanel), codes + d, kPanel);
  else
    for (int d = 0; d < n; d++) page[size_t(d) * kPanel + lane] = char(codes[d]);
  uint16_t* to = reinterpret_cast<uint16_t*>(page + size_t(width) * kPanel) + lane;
  for (int first = 0, g = 0; first < n; first += program_.scale_group, g++) to[size_t(g) * kPanel] = scales[g];
}

// A row of a latent, and codes and scales of any, a byte and at most two for each of
// its columns.
size_t Model::write_floats(const Op& op) const {
  const Cache& c = program_.caches[op.i[MR_WRITE_CACHE]];
  return c.key_width + std::max(c.key_width, c.blocks() * kPanel) + kPanel;
}

// Rows of the largest block of queries: whole tokens.
int Model::block_rows(const Attention& a) const { return std::max(kBlockRows / a.group, 1) * a.group; }

size_t Model::attention_floats(const Op& op) const {
  const Cache& c = program_.caches[op.i[MR_ATTN_CACHE]];
  const int rows = block_rows(program_.attentions[op.attention]), dim = c.blocks() * kPanel;
  return 2 * state_floats(rows, dim) + attend_scratch(rows, c.key_width, dim, c.kind == MR_CACHE_LATENT, program_.cache);
}

// What a block of one sequence needs, or as many as are shared at most:
// cut_blocks shares less than two of a block's KV heads a worker.
size_t Model::partial_floats(const Op& op) const {
  const Attention& a = program_.attentions[op.attention];
  const size_t splits = (size_t(limits_.max_pages_per_slot) * kPageTokens + kSplit - 1) / kSplit;
  const size_t head = splits * state_floats(block_rows(a), a.padded_dim);
  return splits == 1 ? 0 : std::max(head * a.kv_heads, std::min(head * 2 * threads_, kPartialFloats));
}

// What a unit of a block's work is made of: a KV head and a part of its query heads.
AttendArgs Model::attend_args(const Op& op, const Block& b, int unit, float* scratch) const {
  const Cache& c = program_.caches[op.i[MR_ATTN_CACHE]];
  const int parts = cuts_[op.attention].parts, group = program_.attentions[op.attention].group / parts;
  const int heads = op.i[MR_ATTN_HEADS], head = unit * group;
  const auto part = [&](int v, int width) { return values_[v].row(b.first) + head * width; };
  AttendArgs a{};
  a.q_dim = program_.width(op.in[0]) / heads;
  a.q = part(op.in[0], a.q_dim);
  a.q_stride = values_[op.in[0]].stride;
  if (op.in[1] >= 0) {
    a.rest_dim = program_.width(op.in[1]) / heads;
    a.rest = part(op.in[1], a.rest_dim);
    a.rest_stride = values_[op.in[1]].stride;
  }
  a.value_dim = c.value_width;
  a.out = part(op.out[0], c.value_width);
  a.out_stride = values_[op.out[0]].stride;
  a.pages = page_table(step_.batch->seqs[b.seq], c.group);
  a.keys = cached(c, 0, unit / parts);
  a.values = c.kind == MR_CACHE_LATENT ? nullptr : a.keys + c.key_bytes;
  a.page_stride = program_.page_bytes;
  a.scale_group = program_.scale_group;
  a.scratch = scratch;
  a.spans = spans_.empty() ? nullptr : &spans_[b.first];
  a.tokens = b.count;
  a.first_pos = step_.batch->pos[b.first];
  a.group = group;
  a.window = op.i[MR_ATTN_WINDOW];
  a.chunk = op.i[MR_ATTN_CHUNK];
  a.sight = op.i[MR_ATTN_SIGHT];
  a.length = step_.batch->seqs[b.seq].kv_len;
  a.slopes = op.slopes.empty() ? nullptr : op.slopes.data() + head;
  a.sinks = op.tensor[0] == nullptr ? nullptr : op.vector(0) + head;
  a.scale = op.f[MR_ATTN_SCALE];
  a.cap = op.f[MR_ATTN_CAP];
  return a;
}

void Model::cut_attention() {
  for (size_t i = 0; i < cuts_.size(); i++) cut_blocks(program_.attentions[i], cuts_[i]);
}

// Cuts each sequence's tokens into blocks that attend together, and finds those
// that one worker would be busy with for long after all others were done: their
// splits are shared. Where there are still fewer than workers, as with the one head of a
// latent, so are the query heads of a KV head. Neither changes a result.
void Model::cut_blocks(const Attention& a, Cut& cut) {
  const mr_batch& b = *step_.batch;
  const int most = block_rows(a) / a.group;
  cut.blocks.clear();
  int64_t total = 0, units = 0;
  for (int s = 0; s < b.n_seqs; s++) {
    const mr_seq& seq = b.seqs[s];
    for (int t = 0; t < seq.count; t += most) {
      AttendArgs seen{};
      seen.tokens = std::min(most, seq.count - t);
      seen.first_pos = b.pos[seq.start + t];
      seen.window = a.window;
      seen.chunk = a.chunk;
      seen.sight = a.sight;
      seen.length = seq.kv_len;
      seen.spans = spans_.empty() ? nullptr : &spans_[seq.start + t];
      const int begin = seen.begin(), end = seen.end();
      Block block;
      block.seq = s;
      block.first = seq.start + t;
      block.count = seen.tokens;
      block.split = begin / kSplit;
      block.splits = (end - 1) / kSplit - block.split + 1;
      block.work = int64_t(end - begin) * block.count;
      total += block.work;
      units += int64_t(a.kv_heads) * std::max(1, (end - begin) / kSplit);
      cut.blocks.push_back(block);
    }
  }
  cut.parts = 1;
  for (int parts = 2; units * cut.parts < threads_ && a.group / parts >= kPartHeads; parts++)
    if (a.group % parts == 0) cut.parts = parts;
  const int all = a.kv_heads * cut.parts;
  // Those with most work first: what is left at the end is short.
  std::sort(cut.blocks.begin(), cut.blocks.end(), [](const Block& x, const Block& y) {
    return x.work != y.work ? x.work > y.work : x.first < y.first;
  });
  cut.first.assign(1, 0);
  size_t used = 0;
  for (Block& block : cut.blocks) {
    const size_t floats = all * block.splits * state_floats(block.count * a.group / cut.parts, a.padded_dim);
    const bool long_one = 2 * threads_ * block.work > total * all;
    if (block.splits == 1 || !long_one || used + floats > partial_.bytes() / sizeof(float)) break;
    block.state = used;
    used += floats;
    cut.first.push_back(cut.first.back() + block.splits * all);
  }
}

void Model::run_attention(const Op& op, Pool& pool, int worker, Shares* shares) {
  const Attention& kind = program_.attentions[op.attention];
  const Cut& cut = cuts_[op.attention];
  const auto attend_split = kernels_.attend_split[program_.cache];
  const int units = kind.kv_heads * cut.parts;  // of a block's work
  const size_t most = state_floats(block_rows(kind), kind.padded_dim);
  float *own = scratch(worker), *next = own + most, *rest = next + most;  // two states and scratch
  const int shared = int(cut.first.size()) - 1, items = cut.first.back();  // blocks, and their splits
  const auto split_state = [&](const Block& b, int unit, int split) {
    return partial_.as<float>() + b.state +
           (size_t(unit) * b.splits + split) * state_floats(b.count * kind.group / cut.parts, kind.padded_dim);
  };

  const int64_t all = items + int64_t(cut.blocks.size() - shared) * units;
  int at = 0;  // the shared block of the last item
  for (int64_t i = shares[0].take(); i < all; i = shares[0].take()) {
    if (i < items) {
      while (cut.first[at + 1] <= i) at++;
      const Block& b = cut.blocks[at];
      const int unit = int(i - cut.first[at]) / b.splits, split = int(i - cut.first[at]) % b.splits;
      attend_split(attend_args(op, b, unit, rest), b.split + split, split_state(b, unit, split));
      continue;
    }
    const Block& b = cut.blocks[shared + (i - items) / units];
    const AttendArgs a = attend_args(op, b, int((i - items) % units), rest);
    attend_split(a, b.split, own);
    for (int s = 1; s < b.splits; s++) {
      attend_split(a, b.split + s, next);
      kernels_.attend_merge(a, own, next);
    }
    kernels_.attend_finish(a, own);
  }
  if (shared == 0) return;
  pool.barrier();
  for (int64_t i = shares[1].take(); i < int64_t(shared) * units; i = shares[1].take()) {
    const Block& b = cut.blocks[i / units];
    const int unit = int(i % units);
    const AttendArgs a = attend_args(op, b, unit, rest);
    for (int s = 1; s < b.splits; s++)
      kernels_.attend_merge(a, split_state(b, unit, 0), split_state(b, unit, s));
    kernels_.attend_finish(a, split_state(b, unit, 0));
  }
}

}  // namespace millrace
