/* The C ABI between Millrace's engine and a native backend.
 *
 * A backend is one table of functions, mr_backend. The CPU backend's table is
 * linked in; a GPU backend's is found in its shared library under the symbol
 * mr_backend_v1. The semantics are those of the Go interface device.Backend,
 * whose package says what a batch, a slot, a page and a row are; the structs
 * below have the layout of the Go structs of the same name.
 *
 * Threads: one thread at a time calls a context. Functions return MR_OK or an
 * error; error() then gives a sentence that stays valid until the next call.
 * Nothing throws across this boundary, and no pointer passed in is kept.
 */
#ifndef MILLRACE_H
#define MILLRACE_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MR_ABI_VERSION 2
#define MR_PAGE_TOKENS 16
#define MR_RING_DEPTH 3
#define MR_MAX_TOP_N 32
#define MR_MAX_BIASES 1024 /* of one slot */
#define MR_MAX_BIAS 100    /* magnitude */
#define MR_LAST_TOKEN INT32_MIN

typedef enum {
  MR_OK = 0,
  MR_INVALID = 1, /* a call or a plan that cannot be right; nothing changed */
  MR_NO_MEMORY = 2,
  MR_FAILED = 3, /* this batch failed, the device is fine */
  MR_LOST = 4    /* the device is gone; only close() may follow */
} mr_status;

typedef enum { MR_F32 = 0, MR_F16 = 1, MR_BF16 = 2 } mr_dtype;

typedef struct {
  char name[16];    /* "cpu" */
  char detail[112]; /* instruction set or GPU, for the log */
  int32_t threads;
  int32_t reserved;
} mr_caps;

typedef struct {
  int32_t max_tokens, max_rows, max_slots, max_pages_per_slot;
  int32_t max_page_deltas, max_count_deltas, max_bias_deltas; /* in one batch */
  int32_t threads; /* 0: the backend chooses */
} mr_limits;

typedef struct {
  int64_t page_bytes, weight_bytes, workspace_bytes;
} mr_model_info;

/* sample.Params */
typedef struct {
  uint64_t seed;
  float temperature;
  int32_t top_k;
  float top_p, typical_p, repetition_penalty, frequency_penalty, presence_penalty;
  int32_t sample, watermark, reserved;
} mr_params;

typedef struct { int32_t slot, start, count, kv_len; } mr_seq;
typedef struct { int32_t token, slot, kind, target, index, top_n, mask; } mr_row; /* kind: 0 sample, 1 score */
typedef struct { int32_t slot, index, page; } mr_page_delta;
typedef struct { int32_t slot, reserved; mr_params params; } mr_param_delta;
typedef struct { int32_t slot, token, generated; } mr_count_delta;
typedef struct { int32_t slot, token; float bias; } mr_bias_delta;
typedef struct { int32_t token; float logprob; int32_t top_count, invalid; } mr_row_result;
typedef struct { int32_t token; float logprob; } mr_alternative;

/* One ring entry: arrays the backend allocated once, and how much of each the
 * engine filled. Capacities are fixed by mr_limits. */
typedef struct {
  int32_t *tokens, *pos;
  mr_seq *seqs;
  mr_row *rows;
  mr_page_delta *pages;
  mr_param_delta *params;
  mr_count_delta *counts;
  mr_bias_delta *biases;
  uint32_t *masks; /* mask m at m * mask_words, max_slots of them */
  mr_row_result *results;
  mr_alternative *top; /* row r at r * MR_MAX_TOP_N */
  int32_t cap_tokens, cap_seqs, cap_rows, cap_pages, cap_params, cap_counts, cap_biases, cap_masks;
  int32_t n_tokens, n_seqs, n_rows, n_pages, n_params, n_counts, n_biases;
  int32_t n_masks; /* set before sample(); -1: the engine left something unusable */
  int32_t mask_words; /* (vocab + 31) / 32 */
} mr_batch;

/* plan.Op; kinds are plan.Kind in order. */
typedef struct {
  int32_t kind, out, in, in2, weight, bias, layer, table;
  int32_t heads, kv_heads, head_dim, rotary, group, window;
  float f0, f1;
} mr_op;

/* plan.Plan; all arrays are only read during model(). Table i has
 * table_len[i] entries at tables + the sum of those before it. */
typedef struct {
  int32_t version, vocab, hidden, layers, kv_width;
  int32_t n_values, n_tables, n_tensors, n_ops;
  const int32_t *widths;
  const int32_t *table_len;
  const float *tables;
  const mr_op *ops;
} mr_plan;

typedef struct mr_context mr_context;

typedef struct {
  int32_t abi_version;
  /* Never fails for want of hardware: caps.name is empty then. */
  mr_status (*probe)(mr_caps *caps);
  mr_status (*open)(const mr_limits *limits, mr_context **ctx);
  const char *(*error)(mr_context *ctx); /* ctx may be NULL after a failed open */
  mr_status (*caps)(mr_context *ctx, mr_caps *caps);
  mr_status (*tensor_new)(mr_context *ctx, const char *name, mr_dtype dtype, int32_t rank, const int64_t *shape, int32_t *handle);
  mr_status (*tensor_write)(mr_context *ctx, int32_t handle, int64_t first_row, int64_t rows, const void *src, int64_t bytes);
  mr_status (*model)(mr_context *ctx, const mr_plan *plan, mr_model_info *info);
  mr_status (*kv_init)(mr_context *ctx, int32_t pages);
  mr_batch *(*batch)(mr_context *ctx, int32_t i); /* NULL before kv_init */
  mr_status (*forward)(mr_context *ctx, int32_t i);
  mr_status (*sample)(mr_context *ctx, int32_t i);
  mr_status (*wait)(mr_context *ctx, int32_t i);
  void (*close)(mr_context *ctx);
} mr_backend;

#ifdef __cplusplus
}
#endif
#endif
