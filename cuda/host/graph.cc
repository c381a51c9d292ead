#include "graph.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "error.h"

namespace millrace {

Graph::Graph(cudaStream_t stream, const std::function<void()>& enqueue) {
  check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "recording a step");
  cudaGraph_t recorded = nullptr;
  try {
    enqueue();
  } catch (...) {
    cudaStreamEndCapture(stream, &recorded);
    if (recorded != nullptr) cudaGraphDestroy(recorded);
    throw;
  }
  check(cudaStreamEndCapture(stream, &recorded), "recording a step");
  const cudaError_t error = cudaGraphInstantiate(&exec_, recorded, 0);
  cudaGraphDestroy(recorded);
  if (error == cudaErrorMemoryAllocation) cudaGetLastError();  // so that the next call does not say it again
  check(error, "preparing a recorded step");
}

// One that is in flight runs to its end.
Graph::~Graph() {
  if (exec_ != nullptr) cudaGraphExecDestroy(exec_);
}

void Graph::launch(cudaStream_t stream) const { check(cudaGraphLaunch(exec_, stream), "starting a recorded step"); }

Graphs::Graphs() {
  const char* graphs = std::getenv("MILLRACE_CUDA_GRAPHS");
  off_ = graphs != nullptr && std::strcmp(graphs, "off") == 0;
}

int Graphs::bucket(int n) const {
  constexpr int kBuckets[] = {1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256};
  if (off_ || n == 0) return 0;
  const int* found = std::lower_bound(std::begin(kBuckets), std::end(kBuckets), n);
  return found == std::end(kBuckets) ? 0 : *found;
}

Graph* Graphs::prepare(cudaStream_t stream, Sizes sizes, const std::function<void()>& enqueue) {
  if (off_) return nullptr;
  auto it = graphs_.find(sizes);
  if (it == graphs_.end()) {
    if (graphs_.size() >= kMost)
      graphs_.erase(std::min_element(graphs_.begin(), graphs_.end(),
                                     [](const auto& a, const auto& b) { return a.second.used < b.second.used; }));
    try {
      it = graphs_.emplace(sizes, Kept{std::make_unique<Graph>(stream, enqueue), 0}).first;
    } catch (const Error& e) {
      if (e.status() != MR_NO_MEMORY) throw;
      off_ = true;  // steps need none
      graphs_.clear();
      return nullptr;
    }
  }
  it->second.used = ++uses_;
  return it->second.graph.get();
}

void Graphs::run(cudaStream_t stream, Sizes sizes, const std::function<void()>& enqueue) {
  if (const Graph* graph = prepare(stream, sizes, enqueue))
    graph->launch(stream);
  else
    enqueue();
}

}  // namespace millrace
