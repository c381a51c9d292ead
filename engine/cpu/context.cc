#include "context.h"

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>

#include "error.h"

namespace millrace {
namespace {

// Signals are the host program's; our threads leave them alone.
class SignalsBlocked {
 public:
  SignalsBlocked() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before_);
  }
  ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

 private:
  sigset_t before_;
};

mr_params greedy() {
  mr_params p{};
  p.temperature = p.top_p = p.typical_p = p.repetition_penalty = 1;
  return p;
}

// The most bytes of keys and values per token that are kept in float32 for the
// sake of exactness alone. MILLRACE_CPU_KV=f16 spares none, so that tests of
// small models see the cache that large ones have.
size_t exact_cache_bytes(bool kernels_read_f16) {
  const char* kv = std::getenv("MILLRACE_CPU_KV");
  if (kv && *kv && std::strcmp(kv, "f16") != 0) fail(MR_INVALID, "MILLRACE_CPU_KV=%s: must be f16 or absent", kv);
  if (!kernels_read_f16) return SIZE_MAX;
  return kv && *kv ? 0 : 8192;
}

bool within(int32_t v, int32_t n) { return v >= 0 && v < n; }

}  // namespace

Context::Slot::Slot(int most) : params(greedy()), counts(most) {}

Context::Context(const mr_limits& limits, const Kernels& kernels, int threads) : limits_(limits), kernels_(kernels) {
  const SignalsBlocked blocked;
  pool_ = std::make_unique<Pool>(threads);
  server_ = std::thread([this] { serve(); });
}

Context::~Context() {
  closing_ = true;
  queued_.advance();
  server_.join();
}

void Context::caps(mr_caps* caps) const {
  *caps = {};
  std::snprintf(caps->name, sizeof caps->name, "cpu");
  std::snprintf(caps->detail, sizeof caps->detail, "%s", kernels_.name);
  caps->threads = pool_->threads();
}

void Context::serve() {
  for (uint32_t next = 0;; next++) {
    queued_.wait_past(next);
    if (closing_) return;
    const Job& job = queue_[next % kQueue];
    try {
      if (job.kind == Job::call)
        (*job.fn)();
      else if (job.kind == Job::forward)
        run_forward(*job.entry);
      else
        run_sample(*job.entry);
    } catch (const std::exception& e) {
      if (job.entry != nullptr) job.entry->error = e.what();
    }
    finished_.advance();
  }
}

// Returns what finished_ counts when the job is done.
uint32_t Context::enqueue(Job job) {
  const uint32_t number = queued_.value();
  queue_[number % kQueue] = job;
  queued_.advance();
  return number + 1;
}

void Context::finish(uint32_t job) {
  for (;;) {
    const uint32_t seen = finished_.value();
    if (static_cast<int32_t>(seen - job) >= 0) return;
    finished_.wait_past(seen);
  }
}

void Context::call(const std::function<void()>& fn) {
  Job job;
  job.fn = &fn;
  finish(enqueue(job));
}

int32_t Context::tensor_new(const char* name, mr_dtype dtype, int rank, const int64_t* shape) {
  if (model_) fail(MR_INVALID, "tensor %s announced after the model was set", name);
  tensors_.push_back(std::make_unique<Tensor>(name, dtype, rank, shape, kernels_.f16));
  return static_cast<int32_t>(tensors_.size()) - 1;
}

void Context::tensor_write(int32_t handle, int64_t first, int64_t rows, const void* src, int64_t bytes) {
  if (!within(handle, static_cast<int32_t>(tensors_.size())))
    fail(MR_INVALID, "tensor handle %d, there are %zu", handle, tensors_.size());
  Tensor& t = *tensors_[handle];
  t.check_write(first, rows, bytes);
  call([&] { t.write(*pool_, first, rows, src); });
}

void Context::set_model(const mr_plan& plan, mr_model_info* info) {
  if (model_) fail(MR_INVALID, "the model was already set");
  auto model = std::make_unique<Model>(Program(plan, tensors_, exact_cache_bytes(kernels_.f16)), limits_, kernels_, pool_->threads());
  samplers_.clear();
  for (int i = 0; i < pool_->threads(); i++) samplers_.emplace_back(kernels_, plan.vocab);
  *info = {};
  info->page_bytes = model->page_bytes();
  for (const auto& t : tensors_) info->weight_bytes += static_cast<int64_t>(t->bytes());
  info->workspace_bytes = model->workspace_bytes();
  model_ = std::move(model);
}

void Context::kv_init(int pages) {
  if (!model_) fail(MR_INVALID, "KV pages reserved before the model was set");
  if (pages_ != 0) fail(MR_INVALID, "KV pages reserved twice");
  if (pages <= 0) fail(MR_INVALID, "%d KV pages, want a positive number", pages);
  const mr_limits& l = limits_;
  model_->reserve(pages);
  for (RingEntry& e : ring_) e.allocate(l, model_->vocab());
  const int table = l.max_pages_per_slot, most = std::min(model_->vocab(), (table + MR_RING_DEPTH) * kPageTokens);
  for (int i = 0; i < l.max_slots; i++) slots_.emplace_back(most);
  page_tables_.assign(size_t(l.max_slots) * table, 0);
  known_pages_.assign(size_t(l.max_slots) * table, false);
  tokens_.resize(l.max_tokens);
  owner_.resize(l.max_tokens);
  in_batch_.assign(l.max_slots, 0);
  sampled_in_.assign(l.max_slots, 0);
  renewed_in_.assign(l.max_slots, 0);
  biases_.assign(l.max_slots, 0);
  pages_ = pages;
}

void RingEntry::allocate(const mr_limits& l, int vocab) {
  batch.cap_tokens = l.max_tokens;
  batch.cap_seqs = batch.cap_params = l.max_slots;
  batch.cap_rows = l.max_rows;
  batch.cap_pages = l.max_page_deltas;
  batch.cap_counts = l.max_count_deltas;
  batch.cap_biases = l.max_bias_deltas;
  batch.cap_masks = l.max_slots;
  batch.mask_words = (vocab + 31) / 32;
  size_t bytes = 0;
  const auto lay_out = [&](auto*& array, size_t n) {
    array = reinterpret_cast<std::remove_reference_t<decltype(array)>>(arrays.data() + bytes);
    bytes += (n * sizeof *array + 63) / 64 * 64;
  };
  for (int pass = 0; pass < 2; pass++) {  // the first one only measures
    if (pass == 1) arrays = Mapping(bytes);
    bytes = 0;
    lay_out(batch.tokens, batch.cap_tokens);
    lay_out(batch.pos, batch.cap_tokens);
    lay_out(batch.seqs, batch.cap_seqs);
    lay_out(batch.rows, batch.cap_rows);
    lay_out(batch.pages, batch.cap_pages);
    lay_out(batch.params, batch.cap_params);
    lay_out(batch.counts, batch.cap_counts);
    lay_out(batch.biases, batch.cap_biases);
    lay_out(batch.masks, size_t(batch.cap_masks) * batch.mask_words);
    lay_out(batch.results, batch.cap_rows);
    lay_out(batch.top, size_t(batch.cap_rows) * MR_MAX_TOP_N);
  }
}

mr_batch* Context::batch(int i) { return pages_ != 0 && within(i, MR_RING_DEPTH) ? &ring_[i].batch : nullptr; }

RingEntry& Context::entry(const char* call, int i, RingEntry::State want) {
  if (pages_ == 0) fail(MR_INVALID, "%s before KV pages were reserved", call);
  if (!within(i, MR_RING_DEPTH)) fail(MR_INVALID, "%s of ring entry %d, there are %d", call, i, MR_RING_DEPTH);
  if (ring_[i].state != want) fail(MR_INVALID, "%s of ring entry %d out of order", call, i);
  return ring_[i];
}

void Context::forward(int i) {
  RingEntry& e = entry("forward", i, RingEntry::idle);
  check_batch(e.batch);
  for (int d = 0; d < e.batch.n_pages; d++)
    known_pages_[size_t(e.batch.pages[d].slot) * limits_.max_pages_per_slot + e.batch.pages[d].index] = true;
  e.error.clear();
  Job job;
  job.kind = Job::forward;
  job.entry = &e;
  e.done_at = enqueue(job);
  e.state = RingEntry::forwarded;
  last_forward_ = i;
}

void Context::sample(int i) {
  RingEntry& e = entry("sample", i, RingEntry::forwarded);
  if (i != last_forward_) fail(MR_INVALID, "sample of ring entry %d, the last forward was of %d", i, last_forward_);
  try {
    check_choices(e.batch);
  } catch (const Error&) {  // ends the batch, once nothing reads it any more
    finish(e.done_at);
    e.state = RingEntry::idle;
    throw;
  }
  Job job;
  job.kind = Job::sample;
  job.entry = &e;
  e.done_at = enqueue(job);
  e.state = RingEntry::sampled;
}

void Context::wait(int i) {
  RingEntry& e = entry("wait", i, RingEntry::sampled);
  finish(e.done_at);
  e.state = RingEntry::idle;
  if (!e.error.empty()) fail(MR_FAILED, "%s", e.error.c_str());
}

void Context::apply_deltas(const mr_batch& b) {
  for (int i = 0; i < b.n_pages; i++)
    page_tables_[size_t(b.pages[i].slot) * limits_.max_pages_per_slot + b.pages[i].index] = b.pages[i].page;
  for (int i = 0; i < b.n_params; i++) {
    Slot& slot = slots_[b.params[i].slot];
    slot.params = b.params[i].params;
    slot.counts.clear();
    slot.biases.clear();
  }
  for (int i = 0; i < b.n_biases; i++) slots_[b.biases[i].slot].biases.push_back(b.biases[i]);
  for (int i = 0; i < b.n_counts; i++)
    if (!slots_[b.counts[i].slot].counts.add(b.counts[i].token, b.counts[i].generated == 1))
      fail(MR_FAILED, "slot %d has counted more different tokens than a sequence can hold", b.counts[i].slot);
}

void Context::run_forward(RingEntry& e) {
  const mr_batch& b = e.batch;
  apply_deltas(b);
  for (int s = 0; s < b.n_seqs; s++)
    for (int t = b.seqs[s].start; t < b.seqs[s].start + b.seqs[s].count; t++)
      tokens_[t] = b.tokens[t] == MR_LAST_TOKEN ? slots_[b.seqs[s].slot].last : b.tokens[t];
  Step step;
  step.tokens = tokens_.data();
  step.pos = b.pos;
  step.seqs = b.seqs;
  step.rows = b.rows;
  step.n_tokens = b.n_tokens;
  step.n_seqs = b.n_seqs;
  step.n_rows = b.n_rows;
  step.pages = page_tables_.data();
  step.pages_per_slot = limits_.max_pages_per_slot;
  model_->forward(*pool_, step);
}

void Context::run_sample(RingEntry& e) {
  if (!e.error.empty()) return;  // its forward pass failed
  const mr_batch& b = e.batch;
  for (int first = 0; first < b.n_rows; first += Model::kLogitRows) {
    const int n = std::min(Model::kLogitRows, b.n_rows - first);
    model_->logits(*pool_, first, n);
    row_shares_.reset();
    pool_->run([&](int worker) {
      for (int64_t r = row_shares_.take(); r < n; r = row_shares_.take())
        answer(b, first + int(r), model_->logits_row(int(r)), samplers_[worker]);
    });
  }
}

void Context::answer(const mr_batch& b, int r, float* logits, Sampler& sampler) {
  const mr_row& row = b.rows[r];
  mr_row_result* result = &b.results[r];
  mr_alternative* top = b.top + size_t(r) * MR_MAX_TOP_N;
  if (model_->logits_cap() > 0) kernels_.softcap(logits, model_->logits_cap(), model_->vocab());
  if (row.kind == 1) {
    sampler.score(logits, row, result, top);
    return;
  }
  Slot& slot = slots_[row.slot];
  const uint32_t* mask = row.mask == 0 ? nullptr : b.masks + size_t(row.mask - 1) * b.mask_words;
  sampler.choose(logits, {slot.params, mask, slot.biases, tokens_[row.token], slot.counts}, row, result, top);
  if (result->invalid) return;
  slot.last = result->token;
  slot.counts.add(result->token, true);  // without room only where nothing reads it
}

}  // namespace millrace
