/* The C ABI between Millrace's engine and a native backend.
 *
 * A backend is one table of functions, mr_backend. The CPU backend's table is
 * linked in; a GPU backend's is found in its shared library under the symbol
 * mr_backend_v8. The semantics are those of the Go interface device.Backend,
 * whose package says what a batch, a slot, a page, a state and a row are, and of
 * package plan, which says what each operation computes; the structs below have
 * the layout of the Go structs of the same name.
 *
 * Plans and batches have been checked by the Go side (plan.Check,
 * device.Checked): a backend may trust every index and size in them.
 *
 * Threads: one thread at a time calls a context; stats() and abandon() may be
 * called by any other. Functions return MR_OK or an error; error() then gives a sentence that
 * stays valid until the next call. Nothing throws across this boundary, and no
 * pointer passed in is kept, except by tensor_adopt.
 */
#ifndef MILLRACE_H
#define MILLRACE_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MR_ABI_VERSION 8
#define MR_PLAN_VERSION 5
#define MR_PAGE_TOKENS 16
#define MR_RING_DEPTH 3
#define MR_MAX_TOP_N 32
#define MR_MAX_DRAFTS 8 /* tokens of one slot in one batch */
#define MR_MAX_BIASES 1024 /* of one slot */
#define MR_MAX_BIAS 100    /* magnitude */
#define MR_LAST_TOKEN INT32_MIN
#define MR_NO_STATE (-1)
#define MR_ZERO_STATE (-2)
#define MR_NONE (-1)

/* plan.MaxIn and so on */
#define MR_MAX_IN 6
#define MR_MAX_OUT 2
#define MR_MAX_WEIGHTS 8
#define MR_MAX_INTS 16
#define MR_MAX_FLOATS 6

typedef enum {
  MR_OK = 0,
  MR_INVALID = 1, /* a call that cannot be right; nothing changed */
  MR_NO_MEMORY = 2,
  MR_FAILED = 3, /* this batch failed, the device is fine */
  MR_LOST = 4,   /* the device is gone; only close() may follow */
  MR_UNSUPPORTED = 5 /* what caps did not promise; nothing changed */
} mr_status;

/* plan.Format: a kind, and of W8, W4 and F8 the columns that share a scale, shifted by
 * MR_GROUP_SHIFT, 0 for a whole row. How a row of theirs is laid out, and what
 * products with it are, is said there. */
typedef enum {
  MR_F32 = 0,
  MR_F16 = 1,
  MR_BF16 = 2,
  MR_W8 = 3,
  MR_W4 = 4,
  MR_F8 = 5,
  MR_KIND_MASK = 0xff,
  MR_GROUP_SHIFT = 8,
  MR_GROUP_MASK = 0xffff << MR_GROUP_SHIFT,
  MR_CODES_E2M1 = 1 << 24,
  MR_CODES_IQ4NL = 2 << 24,
  MR_CODES_NF4 = 3 << 24,
  MR_CODES_MASK = 3 << 24,
  MR_WITH_MINIMUM = 1 << 26
} mr_format;

/* plan.Kind */
typedef enum {
  MR_OP_EMBED,
  MR_OP_EMBED_POSITION,
  MR_OP_RMSNORM,
  MR_OP_LAYERNORM,
  MR_OP_LINEAR,
  MR_OP_LINEAR_HEADS,
  MR_OP_ROPE,
  MR_OP_CACHE_WRITE,
  MR_OP_ATTENTION,
  MR_OP_ACTIVATE,
  MR_OP_ADD,
  MR_OP_ROUTE,
  MR_OP_EXPERTS,
  MR_OP_CONV,
  MR_OP_GATED_DELTA,
  MR_OP_SSM,
  MR_OP_ROWS,
  MR_OP_LOGITS,
  MR_OP_OUTPUT,
  MR_OP_SCALE,
  MR_OP_SPARSIFY,
  MR_OP_JOIN,
  MR_OP_SELECTIVE_SCAN,
  MR_OP_EMBEDDING_BAG,
  MR_NUM_OPS, /* of a whole model; then those of a shard of one */
  MR_OP_ALL_REDUCE = MR_NUM_OPS
} mr_op_kind;

/* Fields of mr_op.i and mr_op.f, as package plan names them. */
enum { MR_EMBED_BESIDE = 0, MR_EMBED_FIRST = 1 };
enum { MR_EMBED_OFFSET = 0 };
enum { MR_NORM_GROUP = 0, MR_NORM_GATE = 1 };
enum { MR_LINEAR_ACT = 0 };
enum { MR_HEADS_COUNT = 0 };
enum {
  MR_ROPE_HEADS = 0,
  MR_ROPE_HEAD_DIM = 1,
  MR_ROPE_FIRST = 2,
  MR_ROPE_ROTARY = 3,
  MR_ROPE_TABLE = 4,
  MR_ROPE_INTERLEAVED = 5,
  MR_ROPE_LONG = 6,
  MR_ROPE_ORIGINAL = 7,
  MR_ROPE_AXES = 8
};
enum { MR_WRITE_CACHE = 0 };
enum { MR_ATTN_CACHE = 0, MR_ATTN_HEADS = 1, MR_ATTN_WINDOW = 2, MR_ATTN_SLOPES = 3, MR_ATTN_CHUNK = 4, MR_ATTN_SIGHT = 5 };
enum { MR_ACT_KIND = 0, MR_EXPERTS_SCALE_INPUT = 1 };
enum {
  MR_ROUTE_TOP_K = 0,
  MR_ROUTE_SCORE = 1,
  MR_ROUTE_GROUPS = 2,
  MR_ROUTE_TOP_GROUPS = 3,
  MR_ROUTE_NORMALIZE = 4,
  MR_ROUTE_GROUP_BEST = 5
};
enum { MR_CONV_CACHE = 0, MR_CONV_ACT = 1 };
enum { MR_DELTA_CACHE = 0, MR_DELTA_KEY_HEADS = 1, MR_DELTA_CHANNELS = 2, MR_DELTA_NEGATIVE = 3 };
enum { MR_SSM_CACHE = 0, MR_SSM_GROUPS = 1 };
enum { MR_ROWS_COUNT = 0, MR_ROWS_MEAN = 1 };
enum { MR_SCALE_OFFSET = 0, MR_SCALE_LENGTH = 1 };
enum { MR_SCAN_CACHE = 0 };

enum { MR_EMBED_SCALE = 0 };
enum { MR_NORM_EPS = 0, MR_NORM_SHIFT = 1 };
enum { MR_ACT_LIMIT = 0, MR_ACT_ALPHA = 1 };
enum { MR_LINEAR_SCALE = 2 };
enum { MR_ROPE_SCALE = 0, MR_ROPE_FACTOR = 1, MR_ROPE_THETA = 2 };
enum { MR_ATTN_SCALE = 0, MR_ATTN_CAP = 1 };
enum { MR_ADD_SCALE = 0 };
enum { MR_ROUTE_SCALE = 0, MR_ROUTE_EPS = 1, MR_ROUTE_JITTER = 2 };
enum { MR_DELTA_EPS = 0, MR_DELTA_SCALE = 1 };
enum { MR_SSM_MIN = 0, MR_SSM_MAX = 1 };
enum { MR_LOGITS_CAP = 0, MR_LOGITS_SCALE = 1 };
enum { MR_SCALE_FACTOR = 0, MR_SCALE_LOG = 1 };
enum { MR_SPARSIFY_DEVIATIONS = 0 };

/* plan.Activation */
typedef enum {
  MR_ACT_NONE,
  MR_ACT_SILU,
  MR_ACT_GELU,
  MR_ACT_GELU_TANH,
  MR_ACT_RELU,
  MR_ACT_RELU2,
  MR_ACT_SIGMOID,
  MR_ACT_CLAMPED_SWIGLU,
  MR_ACT_TANH,
  MR_ACT_QUICK_GELU,
  MR_ACT_CLIP,
  MR_ACT_XIELU
} mr_activation;

/* plan.Gate */
typedef enum { MR_GATE_NONE, MR_GATE_AFTER, MR_GATE_BEFORE, MR_GATE_SIGMOID, MR_GATE_MAGNITUDE } mr_gate;
/* plan.Sight */
typedef enum { MR_SIGHT_BACK, MR_SIGHT_SPAN, MR_SIGHT_ALL, MR_SIGHT_CAUSAL } mr_sight;
/* plan.Scoring */
typedef enum { MR_SCORE_SOFTMAX, MR_SCORE_SOFTMAX_CHOSEN, MR_SCORE_SIGMOID, MR_SCORE_SPARSE_MIXER } mr_scoring;
typedef enum { MR_CACHE_KV, MR_CACHE_LATENT, MR_CACHE_STATE } mr_cache_kind;                /* plan.CacheKind */
typedef enum { MR_ROW_SAMPLE, MR_ROW_SCORE, MR_ROW_VERIFY, MR_ROW_AGAIN, MR_ROW_OUTPUT } mr_row_kind; /* device.RowKind */

/* device.Feature */
enum {
  MR_FEATURE_ADAPTERS = 1,
  MR_FEATURE_EMBEDS = 2,
  MR_FEATURE_AXES = 4,
  MR_FEATURE_SPANS = 8,
  MR_FEATURE_VERIFY = 16,
  MR_FEATURE_CACHE8 = 32,
  MR_FEATURE_DRAFT = 64,
  MR_FEATURE_ABANDON = 128
};

typedef struct {
  char name[16];    /* "cpu" */
  char detail[112]; /* instruction set or GPU, for the log */
  uint64_t ops;     /* bit k: mr_op_kind k */
  int64_t memory;   /* bytes of the device; 0: the host's */
  uint32_t formats; /* bit f: formats of kind f */
  uint32_t features;
  int32_t threads, devices, lowered, launch_depth, step_tokens;
  uint32_t adopted; /* bit f: tensor_adopt takes matrices in formats of kind f */
  char layout[16];  /* of what it takes: "panels16-v1"; "" if nothing */
} mr_caps;

typedef struct {
  int32_t max_tokens, max_rows, max_slots, max_pages_per_slot;
  int32_t max_count_deltas, max_bias_deltas; /* in one batch */
  int32_t threads; /* 0: the backend chooses */
} mr_limits;

typedef struct {
  int64_t page_bytes, state_bytes, weight_bytes, workspace_bytes;
} mr_model_info;

typedef struct {
  int64_t steps, tokens, busy_ns, bytes;
} mr_stats;

/* sample.Params */
typedef struct {
  uint64_t seed;
  float temperature;
  int32_t top_k;
  float top_p, typical_p, repetition_penalty, frequency_penalty, presence_penalty;
  int32_t sample, watermark;
  float min_p;
} mr_params;

typedef struct { int32_t slot, start, count, kv_len, adapter, rope_len, next, drafts; } mr_seq;
typedef struct { int32_t token, slot, kind, target, index, top_n, mask; } mr_row;
typedef struct { int32_t slot, group, index, page; } mr_page_delta;
typedef struct { int32_t slot, live, from, save; } mr_state_delta;
typedef struct { int32_t slot, reserved; mr_params params; } mr_param_delta;
typedef struct { int32_t slot, token, generated; } mr_count_delta;
typedef struct { int32_t slot, token; float bias; } mr_bias_delta;
typedef struct { int32_t start, count; } mr_span;
typedef struct { int32_t token; float logprob; int32_t top_count, invalid, is_void, drafts[MR_MAX_DRAFTS]; } mr_row_result;
typedef struct { int32_t token; float logprob; } mr_alternative;

/* One ring entry: arrays the backend allocated once, and how much of each the
 * engine filled. Capacities are fixed by mr_limits, plan and features. */
typedef struct {
  int32_t *tokens, *pos, *axes; /* axis a of token t at axes[a * n_tokens + t], if n_axes is not 0 */
  float *embeds;
  mr_seq *seqs;
  mr_row *rows;
  mr_page_delta *pages;
  mr_state_delta *states;
  mr_param_delta *params;
  mr_count_delta *counts;
  mr_bias_delta *biases;
  mr_span *spans;
  uint32_t *masks; /* mask m at m * mask_words, max_slots of them */
  mr_row_result *results;
  mr_alternative *top; /* row r at r * MR_MAX_TOP_N */
  float *outputs;      /* row r at r * output_width */
  int32_t cap_tokens, cap_axes, cap_embeds, cap_seqs, cap_rows, cap_pages, cap_states, cap_params, cap_counts, cap_biases,
      cap_spans, cap_masks, cap_outputs; /* cap_embeds and cap_outputs in rows */
  int32_t n_tokens, n_axes, n_embeds, n_seqs, n_rows, n_pages, n_states, n_params, n_counts, n_biases, n_spans;
  int32_t n_masks;    /* set before sample() */
  int32_t mask_words; /* (vocab + 31) / 32 */
  int32_t output_width; /* of the input of MR_OP_OUTPUT; 0, as cap_outputs: the plan ends in MR_OP_LOGITS */
  int32_t draft;        /* 1: run the plan's draft after sampling; else 0 */
  /* Results: how long the draft took, and of that what came after the first tokens. */
  int64_t draft_ns, further_draft_ns;
} mr_batch;

/* plan.Op */
typedef struct {
  int32_t kind, in[MR_MAX_IN], out[MR_MAX_OUT], weight[MR_MAX_WEIGHTS], i[MR_MAX_INTS];
  float f[MR_MAX_FLOATS];
} mr_op;

typedef struct { int32_t width, of, column; } mr_value;                                   /* plan.Value */
typedef struct { int32_t kind, group, heads, key_width, value_width, window, format; } mr_cache; /* plan.Cache; format is an mr_format */

/* plan.Plan; all arrays are only read during the call. Table i has
 * table_len[i] entries at tables + the sum of those before it. */
typedef struct {
  int32_t version, vocab;
  int32_t embeds_width; /* of a row of mr_batch.embeds */
  int32_t n_values, n_tables, n_tensors, n_caches, n_groups, n_ops;
  int32_t n_draft; /* operations of the draft, which follow the n_ops others in ops */
  const mr_value *values;
  const int32_t *table_len;
  const float *tables;
  const mr_cache *caches;
  const mr_op *ops;
} mr_plan;

/* device.AdapterTarget; a [matrices, rank, cols of the tensor], b [matrices, rows, rank] */
typedef struct {
  int32_t tensor, first, rows, reserved;
  const float *a, *b;
} mr_adapter_target;

typedef struct mr_context mr_context;

typedef struct {
  int32_t abi_version;
  /* Never fails for want of hardware: caps.name is empty then. */
  mr_status (*probe)(mr_caps *caps);
  mr_status (*open)(const mr_limits *limits, mr_context **ctx);
  const char *(*error)(mr_context *ctx); /* ctx may be NULL after a failed open */
  mr_status (*caps)(mr_context *ctx, mr_caps *caps);
  /* No tensor need be there, and none is looked at. */
  mr_status (*plan_check)(mr_context *ctx, const mr_plan *plan);
  mr_status (*tensor_new)(mr_context *ctx, const char *name, mr_format format, int32_t rank, const int64_t *shape, int32_t *handle);
  mr_status (*tensor_write)(mr_context *ctx, int32_t handle, int64_t first_row, int64_t rows, const void *src, int64_t bytes);
  /* Instead of tensor_write: all matrices of the tensor as caps.layout has them, in
   * memory that is aligned to 64 bytes, only read, and as it is until close(). */
  mr_status (*tensor_adopt)(mr_context *ctx, int32_t handle, const void *packed, int64_t bytes);
  mr_status (*model)(mr_context *ctx, const mr_plan *plan, mr_model_info *info);
  mr_status (*cache_init)(mr_context *ctx, int32_t pages, int32_t states);
  mr_status (*warm_up)(mr_context *ctx);
  mr_status (*host_alloc)(mr_context *ctx, int64_t bytes, void **memory);
  mr_status (*host_free)(mr_context *ctx, void *memory);
  mr_status (*adapter_load)(mr_context *ctx, int32_t id, int32_t rank, int32_t n, const mr_adapter_target *targets);
  mr_status (*adapter_drop)(mr_context *ctx, int32_t id);
  /* One page or state, of page_bytes or state_bytes, while no batch is in flight. */
  mr_status (*page_read)(mr_context *ctx, int32_t page, void *dst, int64_t bytes);
  mr_status (*page_write)(mr_context *ctx, int32_t page, const void *src, int64_t bytes);
  mr_status (*state_read)(mr_context *ctx, int32_t state, void *dst, int64_t bytes);
  mr_status (*state_write)(mr_context *ctx, int32_t state, const void *src, int64_t bytes);
  mr_batch *(*batch)(mr_context *ctx, int32_t i); /* NULL before cache_init */
  mr_status (*forward)(mr_context *ctx, int32_t i);
  mr_status (*sample)(mr_context *ctx, int32_t i);
  mr_status (*wait)(mr_context *ctx, int32_t i); /* also of a forward that no sample follows */
  mr_status (*stats)(mr_context *ctx, mr_stats *stats);
  mr_status (*abandon)(mr_context *ctx, int32_t yes); /* NULL without MR_FEATURE_ABANDON */
  void (*close)(mr_context *ctx);
} mr_backend;

#ifdef __cplusplus
}
#endif
#endif
