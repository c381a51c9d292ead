#include "context.h"

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>

#include "../../device/abi/batch.h"
#include "../../device/abi/error.h"

namespace millrace {
namespace {

// Signals are the host program's; our threads leave them alone, but for those
// that say what a thread itself did wrong: while they are blocked the kernel
// ends the process and asks no handler.
class SignalsBlocked {
 public:
  SignalsBlocked() {
    sigset_t all;
    sigfillset(&all);
    for (const int fault : {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT}) sigdelset(&all, fault);
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

// From this many on, a pass over the weights is bound by arithmetic.
constexpr int kStepTokens = 256;

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

void fill_caps(mr_caps* caps, const Kernels& kernels, int threads) {
  *caps = {};
  std::snprintf(caps->name, sizeof caps->name, "cpu");
  std::snprintf(caps->detail, sizeof caps->detail, "%s", kernels.name);
  caps->ops = (uint64_t(1) << MR_NUM_OPS) - 1;
  caps->formats = 1u << MR_F32 | 1u << MR_F16 | 1u << MR_BF16 | 1u << MR_W8 | 1u << MR_W4 | 1u << MR_F8;
  caps->features =
      MR_FEATURE_ADAPTERS | MR_FEATURE_EMBEDS | MR_FEATURE_AXES | MR_FEATURE_SPANS | MR_FEATURE_VERIFY | MR_FEATURE_DRAFT |
      MR_FEATURE_ABANDON;
  if (kernels.f16) caps->features |= MR_FEATURE_CACHE8;
  caps->threads = threads;
  caps->devices = 1;
  caps->lowered = 1;
  std::snprintf(caps->layout, sizeof caps->layout, "panels16-v1");  // plan.Panels: it changes with what Tensor packs
  caps->adopted = kernels.f16 ? caps->formats : caps->formats & ~(1u << MR_F16);
  caps->step_tokens = kStepTokens;
}

void Context::caps(mr_caps* caps) const { fill_caps(caps, kernels_, pool_->threads()); }

void Context::serve() {
  for (uint32_t next = 0;; next++) {
    queued_.wait_past(next);
    if (closing_) return;
    const Job& job = queue_[next % kQueue];
    const auto start = std::chrono::steady_clock::now();
    if (job.kind == Job::call) {
      (*job.fn)();
      finished_.advance();
      continue;
    }
    try {
      if (job.kind == Job::forward)
        run_forward(*job.entry);
      else
        run_sample(*job.entry);
    } catch (const std::exception& e) {
      job.entry->error = e.what();
    }
    const auto busy = std::chrono::steady_clock::now() - start;
    busy_ns_ += std::chrono::duration_cast<std::chrono::nanoseconds>(busy).count();
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

// Runs fn on the queue's thread and throws here what it throws.
void Context::call(const std::function<void()>& fn) {
  std::exception_ptr thrown;
  const std::function<void()> guarded = [&] {
    try {
      fn();
    } catch (...) {
      thrown = std::current_exception();
    }
  };
  Job job;
  job.fn = &guarded;
  finish(enqueue(job));
  if (thrown) std::rethrow_exception(thrown);
}

int32_t Context::tensor_new(const char* name, mr_format format, int rank, const int64_t* shape) {
  if (model_) fail(MR_INVALID, "tensor %s announced after the model was set", name);
  tensors_.push_back(std::make_unique<Tensor>(name, format, rank, shape, kernels_.f16));
  bytes_ += static_cast<int64_t>(tensors_.back()->bytes());
  return static_cast<int32_t>(tensors_.size()) - 1;
}

void Context::tensor_write(int32_t handle, int64_t first, int64_t rows, const void* src, int64_t bytes) {
  Tensor& t = tensor(handle);
  t.check_write(first, rows, bytes);
  t.write(*pool_, first, rows, src);  // before there is a model, the queue has no use for the pool
}

void Context::tensor_adopt(int32_t handle, const void* packed, int64_t bytes) { tensor(handle).adopt(packed, bytes); }

// Returns a tensor that rows are still to come of.
Tensor& Context::tensor(int32_t handle) {
  if (!within(handle, static_cast<int32_t>(tensors_.size())))
    fail(MR_INVALID, "tensor handle %d, there are %zu", handle, tensors_.size());
  if (model_) fail(MR_INVALID, "tensor %s is written after the model was set", tensors_[handle]->name().c_str());
  return *tensors_[handle];
}

void Context::set_model(const mr_plan& plan, mr_model_info* info) {
  if (model_) fail(MR_INVALID, "the model was already set");
  check_plan(plan);
  if (plan.n_tensors != static_cast<int>(tensors_.size()))
    fail(MR_INVALID, "plan of %d tensors, %zu were announced", plan.n_tensors, tensors_.size());
  for (const auto& t : tensors_)
    if (!t->complete()) fail(MR_INVALID, "tensor %s was not written in full", t->name().c_str());
  auto model = std::make_unique<Model>(Program(plan, tensors_, kernels_), limits_, kernels_, pool_->threads(), &abandoned_);
  samplers_.clear();
  if (!model->encodes())
    for (int i = 0; i < pool_->threads(); i++) samplers_.emplace_back(kernels_, plan.vocab);
  *info = {};
  info->page_bytes = model->page_bytes();
  info->state_bytes = model->state_bytes();
  for (const auto& t : tensors_) info->weight_bytes += static_cast<int64_t>(t->bytes());
  info->workspace_bytes = model->workspace_bytes();
  bytes_ += info->workspace_bytes;
  model_ = std::move(model);
}

void Context::cache_init(int pages, int states) {
  if (!model_) fail(MR_INVALID, "pages reserved before the model was set");
  if (!slots_.empty()) fail(MR_INVALID, "pages reserved twice");
  if (pages < 0 || states < 0) fail(MR_INVALID, "%d pages and %d states", pages, states);
  const mr_limits& l = limits_;
  model_->reserve(pages, states);
  for (RingEntry& e : ring_) e.allocate(l, *model_);
  const int table = l.max_pages_per_slot, most = std::min(model_->vocab(), (table + MR_RING_DEPTH) * kPageTokens);
  if (!model_->encodes()) hidden_ = Mapping(size_t(l.max_slots) * model_->hidden_width() * sizeof(float));
  page_tables_.assign(size_t(l.max_slots) * model_->groups() * table, 0);
  states_.assign(l.max_slots, 0);
  tokens_.resize(l.max_tokens);
  next_.resize(l.max_tokens);
  picked_.reserve(l.max_rows);
  drafted_.reserve(l.max_rows);
  seq_of_slot_.resize(l.max_slots);
  following_seqs_.resize(l.max_slots);
  following_pos_.resize(l.max_slots);
  following_axes_.resize(3 * size_t(l.max_slots));
  runs_.reserve(Model::kLogitRows + 1);
  for (int i = 0; i < l.max_slots; i++) slots_.emplace_back(most);
  bytes_ += model_->cache_bytes();
}

void Context::warm_up() {
  if (slots_.empty()) fail(MR_INVALID, "warm-up before pages were reserved");
  call([&] { model_->warm_up(*pool_); });
}

void* Context::host_alloc(int64_t bytes) {
  if (bytes <= 0) fail(MR_INVALID, "%lld bytes of host memory", static_cast<long long>(bytes));
  Mapping memory(static_cast<size_t>(bytes));
  void* at = memory.data();
  host_memory_[at] = std::move(memory);
  return at;
}

void Context::host_free(void* memory) {
  if (host_memory_.erase(memory) == 0)
    fail(MR_INVALID, "host memory that was not allocated here, or given back before");
}

void Context::adapter_load(int32_t id, int32_t rank, int32_t n, const mr_adapter_target* targets) {
  if (!model_) fail(MR_INVALID, "an adapter before the model was set");
  std::map<int, std::vector<const mr_adapter_target*>> by_tensor;
  for (int i = 0; i < n; i++) {
    if (!within(targets[i].tensor, static_cast<int32_t>(tensors_.size())))
      fail(MR_INVALID, "adapter target %d: tensor %d of %zu", i, targets[i].tensor, tensors_.size());
    by_tensor[targets[i].tensor].push_back(&targets[i]);
  }
  Adapter adapter;
  for (const auto& [tensor, parts] : by_tensor) {
    const int64_t matrices = tensors_[tensor]->matrices(), cols = tensors_[tensor]->cols();
    const int64_t low = (rank + kPanel - 1) / kPanel * kPanel, all = low * int64_t(parts.size());
    // Beside weights of 16 bits f16 is near enough, and half as much to read.
    const bool half = kernels_.f16 && tensors_[tensor]->element() != kF32;
    const auto make = [&](int64_t matrices, int64_t rows, int64_t cols) {
      const int64_t shape[] = {matrices, rows, cols};
      return std::make_unique<Tensor>("adapter", half ? MR_F16 : MR_F32, 3, shape, true);
    };
    const auto write = [&](Tensor& to, int64_t first, int64_t rows, const float* from) {
      const int64_t n = rows * to.cols();
      std::vector<uint16_t> rounded(half ? n : 0);
      if (half) kernels_.to_f16(from, rounded.data(), int(n));
      const void* src = half ? static_cast<const void*>(rounded.data()) : from;
      call([&] { to.write(*pool_, first, rows, src); });
    };
    AdapterTarget to;
    to.tensor = tensor;
    to.a = make(matrices, all, cols);
    for (size_t i = 0; i < parts.size(); i++) {
      const mr_adapter_target& t = *parts[i];
      const int64_t lead = t.first % kPanel, rows = lead + t.rows;  // rows of zeros before b, so that panels line up
      AdapterTarget::Part part = {t.first / kPanel, int(low * int64_t(i)), make(matrices, rows, rank)};
      for (int64_t m = 0; m < matrices; m++) {
        write(*to.a, m * all + part.low, rank, t.a + m * rank * cols);
        write(*part.b, m * rows + lead, t.rows, t.b + m * t.rows * rank);
      }
      to.parts.push_back(std::move(part));
    }
    adapter.targets.push_back(std::move(to));
  }
  call([&] {
    const int64_t before = model_->adapter_bytes();
    model_->load_adapter(id, std::move(adapter));
    bytes_ += model_->adapter_bytes() - before;
  });
}

void Context::adapter_drop(int32_t id) {
  if (!model_) fail(MR_INVALID, "an adapter before the model was set");
  call([&] {
    const int64_t before = model_->adapter_bytes();
    model_->drop_adapter(id);
    bytes_ += model_->adapter_bytes() - before;
  });
}

void Context::page_read(int page, void* dst, int64_t bytes) {
  copy(dst, page_memory(page), bytes, model_->page_bytes());
}
void Context::page_write(int page, const void* src, int64_t bytes) {
  copy(page_memory(page), src, bytes, model_->page_bytes());
}
void Context::state_read(int state, void* dst, int64_t bytes) {
  copy(dst, state_memory(state), bytes, model_->state_bytes());
}
void Context::state_write(int state, const void* src, int64_t bytes) {
  copy(state_memory(state), src, bytes, model_->state_bytes());
}

char* Context::page_memory(int page) const {
  if (slots_.empty()) fail(MR_INVALID, "a page before pages were reserved");
  return model_->page(page);
}
char* Context::state_memory(int state) const {
  if (slots_.empty()) fail(MR_INVALID, "a state before states were reserved");
  return reinterpret_cast<char*>(model_->state(state));
}

// Copies between the caches and the caller's memory, after what is queued.
void Context::copy(void* to, const void* from, int64_t bytes, int64_t want) {
  if (bytes != want) fail(MR_INVALID, "a copy of %lld bytes, expected %lld", static_cast<long long>(bytes),
                          static_cast<long long>(want));
  call([&] { std::memcpy(to, from, size_t(bytes)); });
}

void Context::stats(mr_stats* stats) const {
  *stats = {steps_, step_tokens_, busy_ns_, bytes_};
}

void RingEntry::allocate(const mr_limits& l, const Model& model) {
  batch = batch_of(l, model.groups(), model.vocab(), model.encodes() ? model.hidden_width() : 0);
  size_t bytes = 0;
  const auto lay_out = [&](auto*& array, size_t n) {
    array = reinterpret_cast<std::remove_reference_t<decltype(array)>>(arrays.data() + bytes);
    bytes += (n * sizeof *array + 63) / 64 * 64;
  };
  take_arrays(batch, model.embeds_width(), lay_out);  // only measures
  arrays = Mapping(bytes, Pages::small);
  bytes = 0;
  take_arrays(batch, model.embeds_width(), lay_out);
}

mr_batch* Context::batch(int i) { return !slots_.empty() && within(i, MR_RING_DEPTH) ? &ring_[i].batch : nullptr; }

RingEntry& Context::entry(const char* call, int i, RingEntry::State want) {
  if (slots_.empty()) fail(MR_INVALID, "%s before pages were reserved", call);
  if (!within(i, MR_RING_DEPTH)) fail(MR_INVALID, "%s of ring entry %d, there are %d", call, i, MR_RING_DEPTH);
  if (ring_[i].state != want) fail(MR_INVALID, "%s of ring entry %d out of order", call, i);
  return ring_[i];
}

void Context::forward(int i) {
  RingEntry& e = entry("forward", i, RingEntry::idle);
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
  Job job;
  job.kind = Job::sample;
  job.entry = &e;
  e.done_at = enqueue(job);
  e.state = RingEntry::sampled;
}

void Context::wait(int i) {
  const bool given_up = within(i, MR_RING_DEPTH) && ring_[i].state == RingEntry::forwarded;
  RingEntry& e = entry("wait", i, given_up ? RingEntry::forwarded : RingEntry::sampled);
  finish(e.done_at);
  e.state = RingEntry::idle;
  if (!e.error.empty()) fail(MR_FAILED, "%s", e.error.c_str());
}

void Context::apply_deltas(const mr_batch& b) {
  for (int i = 0; i < b.n_pages; i++) {
    const mr_page_delta& d = b.pages[i];
    page_tables_[(size_t(d.slot) * model_->groups() + d.group) * limits_.max_pages_per_slot + d.index] = d.page;
  }
  for (int i = 0; i < b.n_states; i++) states_[b.states[i].slot] = b.states[i].live;
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
  picked_.clear();
  for (int r = 0; r < b.n_rows; r++) picked_.push_back(b.rows[r].token);
  model_->forward(*pool_, step(b));
  if (model_->encodes() && abandoned_) throw std::runtime_error("the forward pass was abandoned");
  if (!model_->encodes()) keep_hidden(b);
  steps_++;
  step_tokens_ += b.n_tokens;
}

Step Context::step(const mr_batch& b) const {
  Step step;
  step.tokens = tokens_.data();
  step.rows = picked_.data();
  step.n_rows = static_cast<int>(picked_.size());
  step.batch = &b;
  step.pages = page_tables_.data();
  step.pages_per_slot = limits_.max_pages_per_slot;
  step.states = states_.data();
  return step;
}

// Keeps what the last logit row of each slot is made of, and brings it where it
// is wanted again.
void Context::keep_hidden(const mr_batch& b) {
  const size_t bytes = model_->hidden_width() * sizeof(float);
  for (int r = 0; r < b.n_rows; r++) {
    const mr_row& row = b.rows[r];
    if (row.kind == MR_ROW_AGAIN) {
      std::memcpy(model_->hidden_row(r), hidden_of(row.slot), bytes);
    } else if (r + 1 == b.n_rows || b.rows[r + 1].slot != row.slot) {
      std::memcpy(hidden_of(row.slot), model_->hidden_row(r), bytes);
      slots_[row.slot].row_token = tokens_[row.token];
    }
  }
}

void Context::run_sample(RingEntry& e) {
  if (!e.error.empty()) return;  // its forward pass failed
  mr_batch& b = e.batch;
  if (model_->encodes()) {
    for (int r = 0; r < b.n_rows; r++)
      std::memcpy(b.outputs + size_t(r) * b.output_width, model_->hidden_row(r), b.output_width * sizeof(float));
    return;
  }
  for (int r = 0; r < b.n_rows; r++) slots_[b.rows[r].slot].is_void = false;
  for (int first = 0; first < b.n_rows; first += Model::kLogitRows) {
    const int n = std::min(Model::kLogitRows, b.n_rows - first);
    model_->logits(*pool_, model_->head(), first, n);
    // Rows to verify depend on those of their slot before them.
    runs_.clear();
    for (int r = 0; r < n; r++) {
      const mr_row& row = b.rows[first + r];
      const bool follows = r > 0 && row.kind == MR_ROW_VERIFY && row.slot == b.rows[first + r - 1].slot;
      if (!follows) runs_.push_back(r);
    }
    const int runs = static_cast<int>(runs_.size());
    runs_.push_back(n);
    row_shares_.reset();
    const auto job = [&](int worker) {
      for (int64_t i = row_shares_.take(); i < runs; i = row_shares_.take())
        for (int r = runs_[i]; r < runs_[i + 1]; r++) answer(b, first + r, model_->logits_row(r), samplers_[worker]);
    };
    if (runs == 1)
      job(0);
    else
      pool_->run(job);
  }
  b.draft_ns = b.further_draft_ns = 0;
  if (b.draft == 1) run_draft(b);
}

// Drafts tokens after the last one that each sequence of the batch has chosen.
void Context::run_draft(mr_batch& b) {
  const auto now = [] { return std::chrono::steady_clock::now(); };
  const auto since = [&](auto start) { return std::chrono::duration_cast<std::chrono::nanoseconds>(now() - start).count(); };
  const auto start = now();
  for (int s = 0; s < b.n_seqs; s++) {
    seq_of_slot_[b.seqs[s].slot] = s;
    const int first = b.seqs[s].start, last = first + b.seqs[s].count - 1;
    std::copy(&tokens_[first] + 1, &tokens_[last] + 1, &next_[first]);
    next_[last] = b.seqs[s].next;
  }
  picked_.clear();
  drafted_.clear();
  for (int r = 0; r < b.n_rows; r++) {
    const mr_row& row = b.rows[r];
    mr_row_result& result = b.results[r];
    for (int32_t& draft : result.drafts) draft = MR_NONE;
    if ((row.kind != MR_ROW_SAMPLE && row.kind != MR_ROW_VERIFY) || result.invalid || result.is_void) continue;
    next_[row.token] = result.token;
    if (row.kind == MR_ROW_VERIFY && result.token == row.target) continue;  // the next row is its slot's too
    if (b.seqs[seq_of_slot_[row.slot]].drafts == 0) continue;
    picked_.push_back(row.token);
    drafted_.push_back(r);
  }
  Step s = step(b);
  s.tokens = next_.data();
  model_->draft(*pool_, s);
  draft_tokens(b, 0);
  const auto further = now();
  for (int i = 1; i < MR_MAX_DRAFTS && follow_draft(b, i); i++) {
    s = step(following_);
    s.tokens = next_.data();
    model_->draft_further(*pool_, s);
    draft_tokens(b, i);
  }
  b.further_draft_ns = since(further);
  b.draft_ns = since(start);
}

// Makes following_ what follows the last of i drafted tokens, in the sequences that want
// more of them, and reports whether there are any.
bool Context::follow_draft(const mr_batch& b, int i) {
  int n = 0;
  for (size_t r = 0; r < drafted_.size(); r++) {
    const mr_row& row = b.rows[drafted_[r]];
    const mr_seq& of = b.seqs[seq_of_slot_[row.slot]];
    const int32_t token = b.results[drafted_[r]].drafts[i - 1], pos = b.pos[row.token] + i;
    if (of.drafts <= i || token == MR_NONE) continue;
    model_->carry(n, int(r));
    next_[n] = token;
    picked_[n] = n;
    following_pos_[n] = pos;
    following_seqs_[n] = {of.slot, n, 1, pos + 1, 0, of.rope_len, 0, 0};
    drafted_[n++] = drafted_[r];
  }
  picked_.resize(n);
  drafted_.resize(n);
  for (int axis = 0; axis < 3 && b.n_axes > 0; axis++)
    for (int r = 0; r < n; r++)
      following_axes_[size_t(axis) * n + r] = b.axes[size_t(axis) * b.n_tokens + b.rows[drafted_[r]].token] + i;
  following_ = {};
  following_.pos = following_pos_.data();
  following_.axes = following_axes_.data();
  following_.seqs = following_seqs_.data();
  following_.n_tokens = following_.n_seqs = n;
  following_.n_axes = b.n_axes > 0 ? 3 * n : 0;
  return n > 0;
}

// Drafts token i of each row that was picked.
void Context::draft_tokens(mr_batch& b, int i) {
  const int rows = static_cast<int>(picked_.size());
  for (int first = 0; first < rows; first += Model::kLogitRows) {
    const int n = std::min(Model::kLogitRows, rows - first);
    model_->logits(*pool_, model_->draft_head(), first, n);
    row_shares_.reset();
    const auto job = [&](int) {
      for (int64_t r = row_shares_.take(); r < n; r = row_shares_.take()) {
        float *logits = model_->logits_row(int(r)), *end = logits + model_->vocab();
        model_->finish_logits(model_->draft_head(), logits);
        float* best = std::find(logits, end, kernels_.highest(logits, model_->vocab()));
        if (best != end) b.results[drafted_[first + r]].drafts[i] = int32_t(best - logits);
      }
    };
    if (n == 1)
      job(0);
    else
      pool_->run(job);
  }
}

void Context::answer(const mr_batch& b, int r, float* logits, Sampler& sampler) {
  const mr_row& row = b.rows[r];
  mr_row_result* result = &b.results[r];
  mr_alternative* top = b.top + size_t(r) * MR_MAX_TOP_N;
  Slot& slot = slots_[row.slot];
  if (row.kind == MR_ROW_VERIFY && slot.is_void) {
    *result = {};
    result->is_void = 1;
    return;
  }
  model_->finish_logits(model_->head(), logits);
  if (row.kind == MR_ROW_SCORE) {
    sampler.score(logits, row, result, top);
    return;
  }
  const uint32_t* mask = row.mask == 0 ? nullptr : b.masks + size_t(row.mask - 1) * b.mask_words;
  const int32_t prev = row.kind == MR_ROW_AGAIN ? slot.row_token : tokens_[row.token];
  sampler.choose(logits, {slot.params, mask, slot.biases, prev, slot.counts}, row, result, top);
  slot.is_void = result->invalid != 0 || result->token != row.target;
  if (result->invalid) return;
  slot.last = result->token;
  slot.counts.add(result->token, true);  // without room only where nothing reads it
}

}  // namespace millrace
