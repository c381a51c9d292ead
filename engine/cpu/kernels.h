// The arithmetic, as a table of functions: one table for each instruction set
// this binary carries, all built from the same templates (*.hpp), the best one
// chosen by cpuid when a backend opens.
//
// Panels. A matrix [N, K] is stored as panels of 16 output rows, so that one
// vector load feeds 16 sums and no sum is ever spread over lanes:
//
//   f32  [N/16][K][16]         f16  [N/16][K][16]
//   bf16 [N/16][K/2][16][2]    two neighbouring k share a 32-bit lane, so a
//                              shift and a mask make two float vectors of it
//
// N is padded to 16 and K to 2 with zeros. The KV cache has the same layout: a
// page of keys is a panel of 16 positions by head_dim, a page of values is
// head_dim/16 panels by 16 positions, and attention runs on the same tiles as
// the linear layers.
//
// Determinism. Every sum runs in one fixed order, that of k, or of the
// position in the sequence, in its own lane, with one fused multiply-add a
// term. How many rows share a call, where a chunk ends and which thread does
// it changes no bit. All kernels work in blocks of 16 lanes, however wide the
// registers are; sets that have fused multiply-add agree bit for bit.
#ifndef MILLRACE_CPU_KERNELS_H
#define MILLRACE_CPU_KERNELS_H

#include <cstddef>
#include <cstdint>

namespace millrace {

constexpr int kPanel = 16;        // output rows of a panel
constexpr int kPageTokens = 16;   // positions of a KV page
constexpr int kScoreBlock = 128;  // positions that share one softmax update
constexpr int kSplit = 1024;      // positions whose attention state is merged as one

// Element types of panels; the values of mr_dtype.
enum Element : int32_t { kF32, kF16, kBF16 };

// The finaliser of MurmurHash3 (Appleby): each bit of x decides about half of
// the bits of the result. T is uint32_t or a vector of them.
template <class T>
__attribute__((always_inline)) inline T mix(T x) {
  x = (x ^ x >> 16) * 0x85ebca6bu;
  x = (x ^ x >> 13) * 0xc2b2ae35u;
  return x ^ x >> 16;
}

inline size_t element_bytes(Element e) { return e == kF32 ? 4 : 2; }

// panel_bytes is the size of one panel of k columns, padding included.
inline size_t panel_bytes(Element e, int k) { return size_t(kPanel) * ((k + 1) & ~1) * element_bytes(e); }

// panel_offset is where element (lane, k) of a panel stands, in elements.
inline size_t panel_offset(Element e, int lane, int k) {
  return e == kBF16 ? size_t(k / 2) * 2 * kPanel + lane * 2 + (k & 1) : size_t(k) * kPanel + lane;
}

// out[r][p*16 + lane] = sum over k of x[r][k] * w[p][k][lane].
struct MatmulArgs {
  const float* x;  // [rows, k]
  size_t x_stride;
  const char* w;  // panels, panel_bytes apart
  size_t panel_bytes;
  float* out;  // [rows, panels*16]
  size_t out_stride;
  int rows, k, panels;
};

// The queries that share one KV head and a run of tokens of one sequence.
// Row t*group + h of the state belongs to query head h of token t.
struct AttendArgs {
  const float* q;  // first head of the first token; heads head_dim apart
  size_t q_stride;
  float* out;  // as q
  size_t out_stride;
  const int32_t* pages;  // the sequence's page table
  const char* keys;      // the KV head's keys in page 0 of the layer
  const char* values;
  size_t page_stride;  // bytes from a page to the next
  float* scratch;      // attend_scratch floats
  int tokens, first_pos, group, head_dim;
  int window;  // 0: none
  float scale, cap;

  int rows() const { return tokens * group; }
  int padded_dim() const { return (head_dim + kPanel - 1) / kPanel * kPanel; }
  int begin() const { return window > 0 && first_pos >= window ? first_pos - window + 1 : 0; }
  int end() const { return first_pos + tokens; }
};

// Floats of an attention state: for each row its running maximum, sum and
// weighted values.
inline size_t state_floats(int rows, int padded_dim) { return size_t(rows) * (padded_dim + 2); }
// Floats of scratch that attend_split needs.
inline size_t attend_scratch(int rows, int padded_dim) { return size_t(rows) * (padded_dim + kScoreBlock); }

struct Kernels {
  const char* name;
  bool f16;  // f16 panels are understood

  void (*matmul[3])(const MatmulArgs&);  // by Element

  // attend_split sets state to the attention over split s alone: positions
  // [s*kSplit, (s+1)*kSplit). attend_merge adds that of a later split, and
  // attend_finish writes the result. By Element of the cache, never bf16.
  void (*attend_split[3])(const AttendArgs&, int split, float* state);
  void (*attend_merge)(const AttendArgs&, float* state, const float* later);
  void (*attend_finish)(const AttendArgs&, const float* state);

  // Rows of n floats. out may be an input.
  void (*add)(const float* x, const float* y, float* out, int n);
  void (*silu_mul)(const float* x, const float* y, float* out, int n);
  void (*gelu_mul)(const float* x, const float* y, float* out, int n);
  void (*scale)(const float* x, float f, float* out, int n);
  void (*rmsnorm)(const float* x, const float* w, float* out, int n, float eps, float offset);
  // angles: cosines [rotary/2], then sines. head [head_dim] is rotated in place.
  void (*rope)(float* head, const float* angles, int rotary);

  // Logits. mask: x = -inf where the bit, n of them, is 0. watermark: x += delta
  // where mix(index ^ seed) < below. softcap: x = cap*tanh(x/cap). highest: the maximum, NaN if there
  // is one anywhere. temper: x = (x - peak)/t. exp_sum: sum of exp(x - peak).
  void (*mask)(float* x, const uint32_t* bits, int n);
  void (*watermark)(float* x, uint32_t seed, uint32_t below, float delta, int n);
  void (*softcap)(float* x, float cap, int n);
  float (*highest)(const float* x, int n);
  void (*temper)(float* x, float peak, float t, int n);
  double (*exp_sum)(const float* x, float peak, int n);
  void (*exp_shift)(const float* x, float peak, float* out, int n);  // out = exp(x - peak)

  int64_t (*fma_loop)(int64_t rounds);  // does and returns that many operations, for benchmarks
};

// The tables; null where this architecture lacks the set.
const Kernels* portable_kernels();
const Kernels* avx2_kernels();
const Kernels* avx512_kernels();
// The 16-lane templates on AVX2 registers: what AVX-512 runs, for tests.
const Kernels* wide_kernels();

// kernels_for finds a table by name ("portable", "avx2", "wide", "avx512"),
// or the best one for name "". Null if this machine cannot run it.
const Kernels* kernels_for(const char* name);

}  // namespace millrace
#endif
