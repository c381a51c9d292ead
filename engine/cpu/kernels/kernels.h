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
//   w8   [N/16][K/4][16][4]    four neighbouring k share a 32-bit lane; the byte is
//                              the code plus 128
//   w4   [N/16][K/8][16][4]    the same, k to k+3 in the low halves of the bytes,
//                              k+4 to k+7 in the high ones
//   f8   [N/16][K][16]
//
// After the codes of a panel of the last three come its scales, [groups][16], and
// minimums, if there are some: f16, or f32 for f8.
//
// N is padded to 16 with zeros, and K to 2, or to 8 in the last three. The cache has the same layout: a
// page of keys, or of latents, is a panel of 16 positions by their width, a page
// of values is width/16 panels by 16 positions, and attention runs on the same
// tiles as the linear layers. Recurrent states are panels of 16 value columns by
// the width of a key.
//
// Determinism. Every sum runs in one fixed order, that of k, or of the
// position in the sequence, in its own lane, with one fused multiply-add a
// term. How many rows share a call, where a chunk ends and which thread does
// it changes no bit. All kernels work in blocks of 16 lanes, however wide the
// registers are; sets that have fused multiply-add agree bit for bit, but for Dots.
#ifndef MILLRACE_CPU_KERNELS_H
#define MILLRACE_CPU_KERNELS_H

#include <cstddef>
#include <cstdint>

#include "../../device/abi/millrace.h"

namespace millrace {

constexpr int kPanel = 16;                    // output rows of a panel
constexpr int kPageTokens = MR_PAGE_TOKENS;   // positions of a page
constexpr int kScoreBlock = 128;              // positions that share one softmax update
constexpr int kSplit = 1024;                  // positions whose attention state is merged as one
static_assert(kPageTokens == kPanel, "a page of keys is one panel");

// Element types of panels; the kinds of mr_format.
enum Element : int32_t { kF32, kF16, kBF16, kW8, kW4, kF8, kElements };

// How pages hold keys and values. kPageW8 is codes of 8 bits, and after those of a
// head's keys, or values, an f16 scale for each group of their columns and each of
// the 16 positions: [groups][16].
enum PageFormat : int32_t { kPageF32, kPageF16, kPageW8, kPageFormats };

// The finaliser of MurmurHash3 (Appleby): each bit of x decides about half of
// the bits of the result. T is uint32_t or a vector of them.
template <class T>
__attribute__((always_inline)) inline T mix(T x) {
  x = (x ^ x >> 16) * 0x85ebca6bu;
  x = (x ^ x >> 13) * 0xc2b2ae35u;
  return x ^ x >> 16;
}

// Bytes of an element, not of kW4.
constexpr size_t element_bytes(Element e) { return e == kF32 ? 4 : e == kF16 || e == kBF16 ? 2 : 1; }

// panel_bytes is the size of one panel of k columns, padding included.
inline size_t panel_bytes(Element e, int k) { return size_t(kPanel) * ((k + 1) & ~1) * element_bytes(e); }

// panel_offset is where element (lane, k) of a panel stands, in elements.
inline size_t panel_offset(Element e, int lane, int k) {
  return e == kBF16 ? size_t(k / 2) * 2 * kPanel + lane * 2 + (k & 1) : size_t(k) * kPanel + lane;
}

// How k columns are cut into groups, of `group` columns, or all in one if that is 0.
struct Groups {
  int k, group;

  int padded() const { return (k + 7) / 8 * 8; }
  int each() const { return group == 0 || group > k ? k : group; }
  int count() const { return (k + each() - 1) / each(); }
  // The columns of group g, padding included.
  int columns(int g) const { return (g + 1) * each() < k ? each() : padded() - g * each(); }
};

// A quantised panel of k columns.
struct Codes {
  Element element;  // kW8, kW4 or kF8
  Groups groups;
  bool minimum;
  const int8_t* table;  // what the codes of kW4 stand for; null: themselves less 8, or with a minimum themselves

  size_t code_bytes() const { return size_t(kPanel) * groups.padded() / (element == kW4 ? 2 : 1); }
  size_t scale_bytes() const { return size_t(kPanel) * groups.count() * (element == kF8 ? 4 : 2); }
  size_t panel_bytes() const { return (code_bytes() + scale_bytes() * (minimum ? 2 : 1) + 63) / 64 * 64; }
};

// out[r][p*16 + lane] = sum over k of x[r][k] * w[p][k][lane].
struct MatmulArgs {
  const float* x;  // [rows, k]
  size_t x_stride;
  const char* w;  // panels, panel_bytes apart
  size_t panel_bytes;
  float* out;  // [rows, panels*16]
  size_t out_stride;
  int rows, k, panels;
  int group = 0;  // of kF8: columns that share a scale
};

constexpr int kMostRows = 128;  // of x in a product of integers

// How the codes of a tile stand, the rows of x that are rounded together.
enum TileOrder : int32_t {
  kByColumns,  // [K/4][8][4]
  // And again in 16 bits: [K/4][2][8][2], the first and the third of four, then the second and
  // the fourth.
  kByColumnsWide,
  kByRows,  // [K/64][16][64]
};

constexpr int tile_rows(TileOrder order) { return order == kByRows ? 16 : 8; }

// What the rows of a tile are rounded to: codes, padded with zeros, then [groups][rows]
// scales, -128 times the sums of codes, those sums times the scales, and of kByColumnsWide
// -128 times the sums less the sums of the products of neighbouring codes.
struct RoundedTile {
  Groups groups;
  TileOrder order;

  int columns() const { return order == kByRows ? (groups.k + 63) / 64 * 64 : groups.padded(); }
  size_t each() const { return size_t(tile_rows(order)) * groups.count() * 4; }
  // Where they stand in a tile, and where it ends.
  size_t scales() const { return size_t(tile_rows(order)) * columns(); }
  size_t offsets() const { return scales() + each(); }
  size_t scaled_sums() const { return scales() + 2 * each(); }
  size_t pair_offsets() const { return scales() + 3 * each(); }
  size_t wide_codes() const { return (scales() + (order == kByColumnsWide ? 4 : 3) * each() + 63) / 64 * 64; }
  size_t bytes() const { return wide_codes() + (order == kByColumnsWide ? 2 * scales() : 0); }
};

// The same product of x rounded to integers and weights kW8 or kW4: the sum over the
// groups, in order, of float(sum of products of codes) * x's scale * w's scale, and after
// each of scaled_sum * minimum. Each operation is rounded on its own, so that all sets agree.
struct IntegerMatmulArgs {
  const char* x;  // tiles, tile_bytes apart
  size_t tile_bytes;
  const char* w;  // panels
  float* out;     // [rows, panels*16]
  size_t out_stride;
  int rows, panels;  // of rows kMostRows at most
  Codes codes;
  const char* then;  // panels that the caller multiplies next, to be fetched; null: none are known
};

// The products of integers, of an instruction set that may be newer than that of the
// other kernels.
struct Integers {
  const char* name;
  TileOrder order;
  // Writes groups [from, to) of row `row` of a tile: x rounded as plan.Format says.
  void (*round)(const float* x, Groups groups, int from, int to, char* tile, int row);
  void (*matmul)(const IntegerMatmulArgs&);
  int64_t (*dot_loop)(int64_t rounds);  // does and returns that many operations, for benchmarks
};

// Products of matrices of bf16 and rows of x that are rounded to bf16 as well, k padded to 2 with
// zeros. They stand in tiles, [K/2][tile_rows][2].
struct DotArgs {
  const char* x;  // tiles, tile_bytes apart
  size_t tile_bytes;
  int tile_rows;  // a multiple of 8
  const char* w;  // panels, panel_bytes apart
  size_t panel_bytes;
  float* out;  // [rows, panels*16]
  size_t out_stride;
  int rows, k, panels;
};

// The products of bf16 of an instruction set with dot products of pairs, for encoders. A sum
// runs in one order, that of the pairs, and in each the odd column before the even one. Subnormal
// numbers are zeros.
struct Dots {
  // Writes row `row` of a tile: k floats rounded to the nearest, ties to even.
  void (*round)(const float* x, int k, char* tile, int tile_rows, int row);
  void (*matmul)(const DotArgs&);
};

// The positions that a token sees beyond its causal window: those of its span.
struct Seen {
  int32_t begin, end;
};

// The queries that share one KV head and a run of tokens of one sequence.
// Row t*group + h of the state belongs to query head h of token t.
struct AttendArgs {
  // Head h of token t: q_dim columns of q at t*q_stride + h*q_dim, then
  // rest_dim of rest likewise.
  const float *q, *rest;
  size_t q_stride, rest_stride;
  int q_dim, rest_dim;
  float* out;  // head h of token t: value_dim columns at t*out_stride + h*value_dim
  size_t out_stride;
  const int32_t* pages;  // the sequence's page table
  const char* keys;      // the KV head's keys in page 0
  const char* values;    // its values; null: the first value_dim columns of the keys
  size_t page_stride;    // bytes from a page to the next
  int scale_group;       // of kPageW8: columns that share a scale
  float* scratch;        // attend_scratch floats
  const Seen* spans;     // by token; null: no token is in a span
  int tokens, first_pos, group, value_dim;
  int window, chunk;    // 0: none
  int sight, length;    // an mr_sight, and all positions there are
  const float* slopes;  // of the heads; null: none
  const float* sinks;   // likewise
  float scale, cap;

  int rows() const { return tokens * group; }
  int key_dim() const { return q_dim + rest_dim; }
  int padded_dim() const { return (value_dim + kPanel - 1) / kPanel * kPanel; }
  // The positions token t sees: from(t) … to(t)-1.
  int from(int t) const {
    if (sight == MR_SIGHT_ALL) return 0;
    const int pos = first_pos + t;
    if (sight == MR_SIGHT_SPAN) return spans != nullptr ? spans[t].begin : pos;
    int begin = window > 0 && pos >= window ? pos - window + 1 : 0;
    if (chunk > 0 && pos - pos % chunk > begin) begin = pos - pos % chunk;
    return spans != nullptr && spans[t].begin < begin ? spans[t].begin : begin;
  }
  int to(int t) const {
    if (sight == MR_SIGHT_ALL) return length;
    return spans != nullptr && sight != MR_SIGHT_CAUSAL ? spans[t].end : first_pos + t + 1;
  }
  // What any of the tokens sees.
  int begin() const {
    int least = from(0);
    for (int t = 1; t < tokens && spans != nullptr; t++) least = from(t) < least ? from(t) : least;
    return least;
  }
  int end() const {
    int most = to(tokens - 1);
    for (int t = 0; t < tokens && spans != nullptr; t++) most = to(t) > most ? to(t) : most;
    return most;
  }
};

// Floats of an attention state: for each row its weighted values, running maximum
// and sum. States that follow each other begin at whole vectors.
inline size_t state_floats(int rows, int padded_dim) {
  return (size_t(rows) * (padded_dim + 2) + kPanel - 1) / kPanel * kPanel;
}
// Floats of scratch that attend_split needs: the keys and values of a block of
// positions, if they are converted; scores; queries.
inline size_t attend_scratch(int rows, int key_dim, int padded_dim, bool latent, PageFormat format) {
  const size_t keys = format == kPageF32 ? 0 : key_dim, values = format == kPageF32 && !latent ? 0 : padded_dim;
  return kScoreBlock * (keys + values + rows) + size_t(rows) * key_dim;
}

// Activation is an mr_activation with its factors; the last two are p and n of
// MR_ACT_XIELU, or the bounds of an MR_ACT_CLIP without a limit.
struct Activation {
  int32_t kind;
  float limit, alpha;
  float positive = 0, negative = 0;
};

// One row of a norm, n floats that are one group.
struct NormArgs {
  const float* x;
  const float *weight, *bias;  // null: none
  const float* gate;           // null: none
  int gate_kind;               // mr_gate
  float* out;
  int n;
  float eps, shift;
};

// A recurrence of some tokens of one sequence on 16 columns of one head's
// state. With S [key_dim, 16], and k, q, v, decay and factor of a token:
//
//   gated_delta:  S = decay S; S = S + k (factor (v - Sᵀk))ᵀ; out = Sᵀq
//   ssm:          S = decay S + k (factor v)ᵀ;                out = Sᵀq + skip v
//
// kimi_delta is gated_delta with a decay for each row of S. selective is ssm whose
// decay, factor and skip are columns' own, with d = softplus(factor):
//
//   selective:    S = exp(rates d) S + k (d v)ᵀ;              out = Sᵀq + skips v
struct ScanArgs {
  float* state;  // [key_dim][16]
  int key_dim, columns, tokens;  // columns of the 16 that are there
  const float *k, *q;
  size_t k_stride, q_stride;  // from a token to the next
  const float* v;
  size_t v_stride;
  float* out;
  size_t out_stride;
  const float *decay, *factor;
  size_t gate_stride;
  float skip;
  const float *rates, *skips;  // of selective: [key_dim][16], [columns]
};

struct Kernels {
  const char* name;
  bool f16;  // f16 panels are understood

  void (*matmul[kElements])(const MatmulArgs&);  // by Element; null for those that Integers multiplies

  // attend_split sets state to the attention over split s alone: positions
  // [s*kSplit, (s+1)*kSplit). attend_merge adds that of a later split, and
  // attend_finish writes the result. By PageFormat; of those but kPageF32 null
  // where f16 is false.
  void (*attend_split[kPageFormats])(const AttendArgs&, int split, float* state);
  void (*attend_merge)(const AttendArgs&, float* state, const float* later);
  void (*attend_finish)(const AttendArgs&, const float* state);

  void (*gated_delta)(const ScanArgs&);
  void (*kimi_delta)(const ScanArgs&);
  void (*ssm)(const ScanArgs&);
  void (*selective)(const ScanArgs&);
  void (*decays)(const float* x, const float* bias, float rate, float* out, int n);  // exp(rate softplus(x + bias))
  // One token of a convolution: out = bias + sum over j of weight[j*stride + i] * taps[j][i], bias
  // null for none.
  void (*conv)(const float* const* taps, int k, const float* weight, size_t stride, const float* bias, bool silu,
               float* out, int n);

  // Rows of n floats. out may be an input.
  void (*add)(const float* x, const float* y, float f, float* out, int n);  // x + f*y
  void (*scale)(const float* x, float f, float* out, int n);
  void (*activate)(const Activation& act, const float* x, const float* y, float* out, int n);  // y null: not gated
  void (*rmsnorm)(const NormArgs&);
  void (*layernorm)(const NormArgs&);
  void (*sparsify)(const float* x, float deviations, float* out, int n);  // max(x - (mean + deviations * sd), 0)
  void (*unit)(const float* x, float eps, float f, float* out, int n);  // f * x / sqrt(sum of squares + eps)
  // Rotate x [rotary] in place. angles: of rope cosines [rotary/2], then sines;
  // of rope_pairs a cosine for each element, then sines, those of even ones
  // negated.
  void (*rope)(float* x, const float* angles, int rotary);
  void (*rope_pairs)(float* x, const float* angles, int rotary);
  // Rounds to nearest, ties to even; what is too large becomes the largest f16,
  // since an infinity in the cache would spoil its sequence. NaN stays NaN. Null
  // where f16 is false.
  void (*to_f16)(const float* x, uint16_t* out, int n);
  // Rounds a row as MR_W8 with scales for groups of columns: n codes, zeros up to
  // a multiple of 16, and the scales. A group with a NaN or an infinity becomes NaN. Null
  // where f16 is false.
  void (*to_w8)(const float* x, int n, int group, int8_t* codes, uint16_t* scales);

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

  const Integers* integers;
  const Dots* dots;  // null: there are none
};

// The tables; null where this architecture lacks the set.
const Kernels* portable_kernels();
const Kernels* avx2_kernels();
const Kernels* avx512_kernels();
// The 16-lane templates on AVX2 registers: what AVX-512 runs, for tests.
const Kernels* wide_kernels();

// The same for integers.
const Integers* portable_integers();
const Integers* avx2_integers();
const Integers* avxvnni_integers();
const Integers* avx512_integers();
const Integers* avx512vnni_integers();
const Integers* amx_integers();
// The same with its tiles in C++, for tests.
const Integers* amx_emulated_integers();
const Integers* dotprod_integers();
const Integers* i8mm_integers();

// And for bf16.
const Dots* avx512bf16_dots();
// The same with fused multiply-adds, for tests.
const Dots* emulated_dots();

// kernels_for finds a table by name ("portable", "dotprod", "i8mm", "avx2", "avxvnni", "wide",
// "avx512", "avx512vnni", "avx512bf16", "amx", "amx-emulated", "bf16-emulated"), or the best one
// for name "". Null if this machine cannot run it.
const Kernels* kernels_for(const char* name);

// chosen_isa is the name in MILLRACE_CPU_ISA: of a lesser instruction set, for tests and for looking
// into a difference between machines. "" if there is none.
const char* chosen_isa();

}  // namespace millrace
#endif
