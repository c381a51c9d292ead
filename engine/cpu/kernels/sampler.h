// Choosing tokens from logits, as package sample defines it.
#ifndef MILLRACE_CPU_SAMPLER_H
#define MILLRACE_CPU_SAMPLER_H

#include <cstdint>
#include <vector>

#include "../../device/abi/millrace.h"
#include "kernels.h"
#include "memory.h"

namespace millrace {

// Counts is what a slot's sequence has seen: an open-addressed hash table of
// tokens, since a sequence is short beside a vocabulary. It has room for
// `most` different tokens and allocates nothing later.
class Counts {
 public:
  struct Entry {
    int32_t token, generated;
  };

  explicit Counts(int most);
  void clear();
  // add reports whether there was room.
  bool add(int32_t token, bool generated);
  const Entry* begin() const { return entries_.as<Entry>(); }
  const Entry* end() const { return begin() + size_; }

 private:
  uint32_t* cell(int32_t token) const;

  int most_, size_ = 0;
  uint32_t mask_;
  Mapping entries_;
  Mapping cells_;  // 1 + index of an entry, 0: empty
};

// Input is what the scores of one row depend on beside its logits.
struct Input {
  const mr_params& params;
  const uint32_t* mask;  // [(vocab + 31) / 32], a bit for each token; null: all are allowed
  const std::vector<mr_bias_delta>& biases;
  int32_t prev;  // the token that the row belongs to
  const Counts& counts;
};

// Sampler is one worker's scratch for rows of one vocabulary.
class Sampler {
 public:
  Sampler(const Kernels& kernels, int vocab);

  // choose and score fill result and up to top_n alternatives, with ties up to
  // MR_MAX_TOP_N. choose overwrites the logits with processed scores.
  void choose(float* logits, const Input& in, const mr_row& row, mr_row_result* result, mr_alternative* top);
  void score(const float* logits, const mr_row& row, mr_row_result* result, mr_alternative* top);

 private:
  // A token that a filter has kept so far; ordered by key, then id.
  struct Candidate {
    double key, weight;
    int32_t id;
    bool before(const Candidate& o) const { return key < o.key || (key == o.key && id < o.id); }
  };

  bool adjust(float* logits, const Input& in);
  void top_k(float* logits, int k);
  void top_p(float* logits, float peak, double p);
  void typical_p(float* logits, float peak, double p);
  void min_p(float* logits, float peak, double p);
  void keep(float* logits, size_t n);
  size_t shortest(double need);
  int32_t draw(const float* logits, float peak, double sum, double u);
  int alternatives(const float* logits, double norm, int n, mr_alternative* top);

  const Kernels& kernels_;
  const int vocab_;
  std::vector<Candidate> ranked_;
  std::vector<float> weights_;
};

// uniform is the draw in [0, 1) for the index-th generated token.
double uniform(uint64_t seed, int32_t index);

}  // namespace millrace
#endif
