// Steps of few tokens as CUDA graphs: one call starts what would be hundreds of launches.
#ifndef MILLRACE_CUDA_GRAPH_H
#define MILLRACE_CUDA_GRAPH_H

#include <cuda_runtime.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <tuple>

namespace millrace {

// Graph is work of a stream that was recorded once.
class Graph {
 public:
  // Records what enqueue puts on the stream; nothing of it runs.
  Graph(cudaStream_t stream, const std::function<void()>& enqueue);
  ~Graph();
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;

  void launch(cudaStream_t stream) const;

 private:
  cudaGraphExec_t exec_ = nullptr;
};

// Graphs keeps the graphs that were used last. What a step's launches depend on besides
// what is in the device's memory is its Sizes, so that a graph serves all steps of one.
class Graphs {
 public:
  enum Part { forward, sample, draft, draft_further };
  struct Sizes {
    Part part;
    int rows;    // of grids: see bucket()
    int splits;  // of attention
    bool operator<(const Sizes& o) const { return std::tie(part, rows, splits) < std::tie(o.part, o.rows, o.splits); }
  };

  // How many are kept: each takes the device some hundred KiB.
  static constexpr size_t kMost = 96;

  // MILLRACE_CUDA_GRAPHS=off keeps them off, to debug kernels one by one.
  Graphs();

  // bucket returns for how many rows a graph of n is made: not many more, so that their
  // empty blocks cost little. 0: for so many there is none.
  int bucket(int n) const;

  // prepare returns the graph of steps of these sizes, which it records if there is none:
  // what enqueue puts on the stream. Null: there can be no graphs.
  Graph* prepare(cudaStream_t stream, Sizes sizes, const std::function<void()>& enqueue);

  // Runs what enqueue puts on the stream, as a graph if there can be one.
  void run(cudaStream_t stream, Sizes sizes, const std::function<void()>& enqueue);

  // Forgets all, since what they have recorded has changed. Those in flight run on.
  void clear() { graphs_.clear(); }

 private:
  struct Kept {
    std::unique_ptr<Graph> graph;
    uint64_t used;
  };
  bool off_;
  std::map<Sizes, Kept> graphs_;
  uint64_t uses_ = 0;
};

}  // namespace millrace
#endif
