// Adapters of a model.
#include "model.h"

#include <algorithm>

#include "error.h"

namespace millrace {
// What adapters change of a tensor, the first or second matrix of a product.
Adapted Model::adapted(int tensor, int matrix, int capacity) const {
  const size_t each = size_t(kMostAdapters) * kMostTargets;
  const AdapterTarget* targets = reinterpret_cast<const AdapterTarget*>(target_memory_.data()) + size_t(tensor) * each;
  float* low = reinterpret_cast<float*>(low_memory_.data()) + size_t(matrix) * most_low_rows_ * size_t(low_width_);
  return {targets, low, low_width_, capacity};
}

int Model::adapter(int32_t id) const {
  const auto it = adapters_.find(id);
  return it == adapters_.end() ? 0 : it->second.number;
}

int64_t Model::adapter_bytes() const {
  int64_t bytes = int64_t(target_memory_.bytes() + low_memory_.bytes());
  for (const auto& [id, adapter] : adapters_) bytes += int64_t(adapter.memory.bytes());
  return bytes;
}

void Model::load_adapter(int32_t id, int32_t rank, int32_t n, const mr_adapter_target* targets) {
  const size_t each = size_t(kMostAdapters) * kMostTargets;
  graphs_.clear();  // they know where adapters are, or that there are none
  int number = 1;
  while (number < kMostAdapters && std::any_of(adapters_.begin(), adapters_.end(),
                                               [&](const auto& a) { return a.second.number == number; }))
    number++;
  if (number == kMostAdapters) fail(MR_NO_MEMORY, "%d adapters are loaded, no more fit", kMostAdapters - 1);

  std::vector<int> used(tensors_.size());  // targets of a tensor
  const auto floats = [&](const mr_adapter_target& t, bool second) {
    const Weight& w = weight(t.tensor);
    return size_t(tensors_[size_t(t.tensor)]->matrices()) * size_t(rank) * size_t(second ? t.rows : w.cols);
  };
  std::vector<float*> at;
  const auto lay_out = [&](Arena arena) {
    at.clear();
    for (int i = 0; i < n; i++)
      for (const bool second : {false, true}) at.push_back(arena.take<float>(floats(targets[i], second)));
    return arena.used();
  };
  for (int i = 0; i < n; i++) {
    if (targets[i].tensor < 0 || targets[i].tensor >= int32_t(tensors_.size()))
      fail(MR_INVALID, "adapter target %d: tensor %d of %zu", i, targets[i].tensor, tensors_.size());
    if (++used[size_t(targets[i].tensor)] > kMostTargets)
      fail(MR_UNSUPPORTED, "an adapter changes tensor %s in more than %d places", tensors_[size_t(targets[i].tensor)]->name().c_str(),
           kMostTargets);
  }
  Memory memory(Memory::device, lay_out(Arena(nullptr)), "an adapter");
  lay_out(Arena(memory.data()));

  const int width = std::max(low_width_, rank * *std::max_element(used.begin(), used.end()));
  if (target_memory_.bytes() == 0) {
    targets_.resize(tensors_.size() * each);
    target_memory_ = Memory(Memory::device, targets_.size() * sizeof(AdapterTarget), "adapters");
  }
  if (width > low_width_) {
    low_memory_ = Memory();
    low_width_ = 0;
    low_memory_ = Memory(Memory::device, 2 * most_low_rows_ * size_t(width) * sizeof(float), "adapters");
    low_width_ = width;
  }
  std::fill(used.begin(), used.end(), 0);
  for (int i = 0; i < n; i++) {
    const mr_adapter_target& t = targets[i];
    float *a = at[size_t(2 * i)], *b = at[size_t(2 * i + 1)];
    check(cudaMemcpyAsync(a, t.a, floats(t, false) * sizeof(float), cudaMemcpyHostToDevice, stream_), "copying an adapter");
    check(cudaMemcpyAsync(b, t.b, floats(t, true) * sizeof(float), cudaMemcpyHostToDevice, stream_), "copying an adapter");
    const int place = used[size_t(t.tensor)]++;
    targets_[size_t(t.tensor) * each + size_t(number * kMostTargets + place)] = {a, b, t.first, t.rows, rank, place * rank};
  }
  write_targets();
  adapters_[id] = {number, std::move(memory)};
}

void Model::drop_adapter(int32_t id) {
  const auto it = adapters_.find(id);
  if (it == adapters_.end()) fail(MR_INVALID, "no adapter %d is loaded", id);
  const size_t each = size_t(kMostAdapters) * kMostTargets;
  for (size_t t = 0; t < tensors_.size(); t++)
    for (int i = 0; i < kMostTargets; i++) targets_[t * each + size_t(it->second.number * kMostTargets + i)] = {};
  write_targets();
  adapters_.erase(it);
  graphs_.clear();
}

// Waits for all steps in flight, too.
void Model::write_targets() {
  check(cudaMemcpyAsync(target_memory_.data(), targets_.data(), target_memory_.bytes(), cudaMemcpyHostToDevice, stream_),
        "copying an adapter");
  check(cudaStreamSynchronize(stream_), "copying an adapter");
}

}  // namespace millrace
