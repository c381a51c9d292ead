// An op plan made ready to run: its operations gathered into stages, what they
// refer to found, its caches laid out.
#ifndef MILLRACE_CPU_PROGRAM_H
#define MILLRACE_CPU_PROGRAM_H

#include <memory>
#include <vector>

#include "../../device/abi/millrace.h"
#include "kernels.h"
#include "tensor.h"

namespace millrace {

constexpr int kMostTaps = 64;  // of a convolution

// check_plan throws Error for a valid plan that this backend cannot run.
void check_plan(const mr_plan& plan);

constexpr int kMatrices = 3;  // that an operation multiplies with: weights 0, 2 and 4

// Rounding is a value, or columns of it one head after the other, that a stage rounds
// to integers, or to bf16, before it multiplies. at is where in the bytes that a stage has for
// tile_rows rows the tile of the first head stands, tile_bytes from that of the next.
struct Rounding {
  int value, heads;
  Groups groups;
  bool to_bf16;
  size_t at, tile_bytes;
};

// Op is an operation of the plan and what it refers to.
struct Op : mr_op {
  int number = 0;                            // in the plan
  const Tensor* tensor[MR_MAX_WEIGHTS] = {};  // null: none
  // Of some operations a weight in float32, as they read it: of a convolution
  // the taps [K, width], of experts the biases [experts, width], of a selective scan
  // the rates -e^w in the blocks of its state.
  std::vector<float> dense[MR_MAX_WEIGHTS];
  int rounding[kMatrices];  // of a matrix whose x is rounded: which of its stage's roundings; else -1
  int angles = -1;          // of a rotation: which of Program::angles
  int attention = -1;     // which of Program::attentions
  std::vector<float> slopes;

  const float* vector(int w) const { return tensor[w] == nullptr ? nullptr : tensor[w]->vector(); }
  const float* dense_row(int w, int row, int width) const {
    return dense[w].empty() ? nullptr : dense[w].data() + size_t(row) * width;
  }
};

// Head is the logits, or the output, that ends a list of operations.
struct Head : Op {
  std::vector<Rounding> roundings;
};

// Stage is what runs between two barriers, or at one if it is little. Its rows are the batch's tokens or
// its logit rows.
struct Stage {
  enum Kind {
    rows,    // operations that know no other row, one after the other
    linear,  // independent of each other, split by output panels
    heads,   // a matrix for each head
    attention,
    experts,
    conv,
    scan,  // recurrent states
    pick,  // the logit rows among the tokens
  };
  Kind kind = rows;
  bool logit_rows = false;
  std::vector<Op> ops;  // one, but of rows and linear
  std::vector<Rounding> roundings;
  size_t row_floats = 0;      // that operations read and write of each row
  size_t rounded_floats = 0;  // of each row
};

// Angles is one way to rotate: what cosines and sines depend on besides the
// position.
struct Angles {
  int rotary;
  bool pairs;                                    // laid out for rope_pairs
  std::vector<float> frequencies, longer, axes;  // [rotary/2]; those of long sequences and axes may be none
  float scale, factor, theta;
  int original;  // 0: whatever the length

  bool operator==(const Angles& o) const;
  size_t floats() const { return pairs ? size_t(2) * rotary : rotary; }  // of one token
};

// Attention is what decides how the work of an attention is cut.
struct Attention {
  int group;     // query heads on a KV head
  int kv_heads;  // of the cache
  int window, chunk, sight;
  int padded_dim;  // of a value
  bool operator==(const Attention& o) const {
    return group == o.group && kv_heads == o.kv_heads && window == o.window && chunk == o.chunk && sight == o.sight &&
           padded_dim == o.padded_dim;
  }
};

// Cache is one of the plan's and where it is kept: in pages, head after head,
// or in states.
struct Cache : mr_cache {
  size_t offset = 0;                      // bytes of a page, floats of a state
  size_t key_bytes = 0, value_bytes = 0;  // of a head in a page; no values where keys hold them

  // Floats of one column block of a head's state, and how many of them it has.
  size_t block_floats() const { return size_t(key_width) * kPanel; }
  int blocks() const { return (value_width + kPanel - 1) / kPanel; }
  size_t head_bytes() const { return key_bytes + value_bytes; }
};

// Program is immutable. It refers to the tensors it was made from.
class Program {
 public:
  // f16: the kernels can convert it; otherwise float32 takes its place in pages.
  Program(const mr_plan& plan, const std::vector<std::unique_ptr<Tensor>>& tensors, const Kernels& kernels);

  int width(int v) const { return values[v].width; }
  // encodes reports whether the answers are rows rather than tokens.
  bool encodes() const { return head.kind == MR_OP_OUTPUT; }
  // base returns the value whose memory v is in.
  int base(int v) const { return values[v].of < 0 ? v : values[v].of; }

  int vocab, embeds_width, groups;
  PageFormat cache = kPageF32;
  int scale_group = 0;       // of kPageW8
  size_t page_bytes = 0;     // of one page of any group
  size_t state_floats = 0;   // of one state
  std::vector<mr_value> values;
  std::vector<bool> by_token, by_logit_row;  // which rows of a value's memory are used
  std::vector<Cache> caches;
  std::vector<Angles> angles;
  std::vector<Attention> attentions;
  std::vector<Stage> stages;
  size_t first_draft = 0;    // of stages, the first of the draft, and
  size_t further_draft = 0;  // the first of those that run again for each further token
  int draft_state = MR_NONE;  // value that they are given of each token
  Head head;
  Head draft_head;  // if there are stages of a draft
  TileOrder tile_order;  // of rounded rows
  int tile_rows;         // likewise
  size_t rounded_bytes = 0;  // of tile_rows rows, in the stage that rounds most

 private:
  void add(Op op);
  void add_roundings(Op& op, std::vector<Rounding>& roundings);
  void take_angles(Op& op, const mr_plan& plan);
  void take_attention(Op& op, const mr_plan& plan);
  void choose_cache(bool half, bool f16);
  void lay_out_caches();
  size_t page_part(int width) const;
  void mark_stored();
  bool overlap(int a, int b) const;
  bool independent(const Op& a, const Op& b) const;
  Stage& stage(Stage::Kind kind);

  bool dots_;              // matrices of bf16 are multiplied by Kernels::dots
  bool picked_ = false;    // the logit rows have been picked
  bool drafting_ = false;  // what is added is of the draft
  std::vector<bool> draft_caches_;  // written by the draft
};

}  // namespace millrace
#endif
