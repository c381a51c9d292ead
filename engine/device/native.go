package device

/*
#include <stdlib.h>
#include "abi/millrace.h"

// Go cannot call through C function pointers; these can.
static mr_status mr_call_probe(const mr_backend *b, mr_caps *caps) { return b->probe(caps); }
static mr_status mr_call_open(const mr_backend *b, const mr_limits *l, mr_context **ctx) { return b->open(l, ctx); }
static const char *mr_call_error(const mr_backend *b, mr_context *ctx) { return b->error(ctx); }
static mr_status mr_call_caps(const mr_backend *b, mr_context *ctx, mr_caps *caps) { return b->caps(ctx, caps); }
static mr_status mr_call_tensor_new(const mr_backend *b, mr_context *ctx, const char *name, mr_format format, int32_t rank, const int64_t *shape, int32_t *handle) {
	return b->tensor_new(ctx, name, format, rank, shape, handle);
}
static mr_status mr_call_tensor_write(const mr_backend *b, mr_context *ctx, int32_t handle, int64_t first, int64_t rows, const void *src, int64_t bytes) {
	return b->tensor_write(ctx, handle, first, rows, src, bytes);
}
static mr_status mr_call_tensor_adopt(const mr_backend *b, mr_context *ctx, int32_t handle, const void *packed, int64_t bytes) {
	return b->tensor_adopt(ctx, handle, packed, bytes);
}
// The arrays are arguments of their own: a Go struct that held pointers to
// them could not be passed.
static mr_plan mr_join_plan(mr_plan p, const mr_value *values, const int32_t *table_len, const float *tables, const mr_cache *caches, const mr_op *ops) {
	p.values = values;
	p.table_len = table_len;
	p.tables = tables;
	p.caches = caches;
	p.ops = ops;
	return p;
}
static mr_status mr_call_plan_check(const mr_backend *b, mr_context *ctx, mr_plan p, const mr_value *values, const int32_t *table_len, const float *tables, const mr_cache *caches, const mr_op *ops) {
	p = mr_join_plan(p, values, table_len, tables, caches, ops);
	return b->plan_check(ctx, &p);
}
static mr_status mr_call_model(const mr_backend *b, mr_context *ctx, mr_plan p, const mr_value *values, const int32_t *table_len, const float *tables, const mr_cache *caches, const mr_op *ops, mr_model_info *info) {
	p = mr_join_plan(p, values, table_len, tables, caches, ops);
	return b->model(ctx, &p, info);
}
static mr_status mr_call_cache_init(const mr_backend *b, mr_context *ctx, int32_t pages, int32_t states) { return b->cache_init(ctx, pages, states); }
static mr_status mr_call_warm_up(const mr_backend *b, mr_context *ctx) { return b->warm_up(ctx); }
static mr_status mr_call_host_alloc(const mr_backend *b, mr_context *ctx, int64_t bytes, void **memory) { return b->host_alloc(ctx, bytes, memory); }
static mr_status mr_call_host_free(const mr_backend *b, mr_context *ctx, void *memory) { return b->host_free(ctx, memory); }
static mr_status mr_call_adapter_load(const mr_backend *b, mr_context *ctx, int32_t id, int32_t rank, int32_t n, const mr_adapter_target *targets) {
	return b->adapter_load(ctx, id, rank, n, targets);
}
static mr_status mr_call_adapter_drop(const mr_backend *b, mr_context *ctx, int32_t id) { return b->adapter_drop(ctx, id); }
static mr_status mr_call_page_read(const mr_backend *b, mr_context *ctx, int32_t page, void *dst, int64_t bytes) { return b->page_read(ctx, page, dst, bytes); }
static mr_status mr_call_page_write(const mr_backend *b, mr_context *ctx, int32_t page, const void *src, int64_t bytes) {
	return b->page_write(ctx, page, src, bytes);
}
static mr_status mr_call_state_read(const mr_backend *b, mr_context *ctx, int32_t state, void *dst, int64_t bytes) {
	return b->state_read(ctx, state, dst, bytes);
}
static mr_status mr_call_state_write(const mr_backend *b, mr_context *ctx, int32_t state, const void *src, int64_t bytes) {
	return b->state_write(ctx, state, src, bytes);
}
static mr_batch *mr_call_batch(const mr_backend *b, mr_context *ctx, int32_t i) { return b->batch(ctx, i); }
static mr_status mr_call_forward(const mr_backend *b, mr_context *ctx, int32_t i) { return b->forward(ctx, i); }
static mr_status mr_call_sample(const mr_backend *b, mr_context *ctx, int32_t i) { return b->sample(ctx, i); }
static mr_status mr_call_wait(const mr_backend *b, mr_context *ctx, int32_t i) { return b->wait(ctx, i); }
static mr_status mr_call_stats(const mr_backend *b, mr_context *ctx, mr_stats *stats) { return b->stats(ctx, stats); }
static void mr_call_close(const mr_backend *b, mr_context *ctx) { b->close(ctx); }
*/
import "C"

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	"sync"
	"time"
	"unsafe"

	_ "github.com/millrace-ai/millrace/engine/device/abi" // millrace.h
	"github.com/millrace-ai/millrace/engine/plan"
	"github.com/millrace-ai/millrace/engine/sample"
)

// The structs that cross the boundary unconverted have one size on both sides.
var (
	_ [C.sizeof_mr_seq]byte         = [unsafe.Sizeof(Seq{})]byte{}
	_ [C.sizeof_mr_row]byte         = [unsafe.Sizeof(Row{})]byte{}
	_ [C.sizeof_mr_page_delta]byte  = [unsafe.Sizeof(PageDelta{})]byte{}
	_ [C.sizeof_mr_state_delta]byte = [unsafe.Sizeof(StateDelta{})]byte{}
	_ [C.sizeof_mr_param_delta]byte = [unsafe.Sizeof(ParamDelta{})]byte{}
	_ [C.sizeof_mr_count_delta]byte = [unsafe.Sizeof(CountDelta{})]byte{}
	_ [C.sizeof_mr_bias_delta]byte  = [unsafe.Sizeof(BiasDelta{})]byte{}
	_ [C.sizeof_mr_span]byte        = [unsafe.Sizeof(Span{})]byte{}
	_ [C.sizeof_mr_row_result]byte  = [unsafe.Sizeof(RowResult{})]byte{}
	_ [C.sizeof_mr_alternative]byte = [unsafe.Sizeof(Alternative{})]byte{}
	_ [C.sizeof_mr_params]byte      = [unsafe.Sizeof(sample.Params{})]byte{}
	_ [C.sizeof_mr_op]byte          = [unsafe.Sizeof(plan.Op{})]byte{}
	_ [C.sizeof_mr_value]byte       = [unsafe.Sizeof(plan.Value{})]byte{}
	_ [C.sizeof_mr_cache]byte       = [unsafe.Sizeof(plan.Cache{})]byte{}
)

// The header's constants are those of Go: the difference of a pair that does not
// agree is beyond a string of one byte, which does not compile.
var (
	_ = "="[C.MR_PLAN_VERSION-plan.Version]
	_ = "="[C.MR_PAGE_TOKENS-PageTokens]
	_ = "="[C.MR_RING_DEPTH-RingDepth]
	_ = "="[C.MR_MAX_TOP_N-MaxTopN]
	_ = "="[C.MR_MAX_BIASES-sample.MaxBiases]
	_ = "="[C.MR_MAX_BIAS-sample.MaxBias]
	_ = "="[C.MR_LAST_TOKEN-LastToken]
	_ = "="[C.MR_NO_STATE-NoState]
	_ = "="[C.MR_ZERO_STATE-ZeroState]
	_ = "="[C.MR_NONE-plan.None]
	_ = "="[C.MR_MAX_IN-plan.MaxIn]
	_ = "="[C.MR_MAX_OUT-plan.MaxOut]
	_ = "="[C.MR_MAX_WEIGHTS-plan.MaxWeights]
	_ = "="[C.MR_MAX_INTS-plan.MaxInts]
	_ = "="[C.MR_MAX_FLOATS-plan.MaxFloats]

	_ = "="[C.MR_F32-plan.F32]
	_ = "="[C.MR_F16-plan.F16]
	_ = "="[C.MR_BF16-plan.BF16]
	_ = "="[C.MR_W8-plan.W8]
	_ = "="[C.MR_W4-plan.W4]
	_ = "="[C.MR_F8-plan.F8]
	_ = "="[C.MR_CODES_E2M1-plan.CodesE2M1]
	_ = "="[C.MR_CODES_IQ4NL-plan.CodesIQ4NL]
	_ = "="[C.MR_CODES_NF4-plan.CodesNF4]
	_ = "="[C.MR_WITH_MINIMUM-plan.WithMinimum]

	_ = "="[C.MR_OP_EMBED-plan.OpEmbed]
	_ = "="[C.MR_OP_EMBED_POSITION-plan.OpEmbedPosition]
	_ = "="[C.MR_OP_RMSNORM-plan.OpRMSNorm]
	_ = "="[C.MR_OP_LAYERNORM-plan.OpLayerNorm]
	_ = "="[C.MR_OP_LINEAR-plan.OpLinear]
	_ = "="[C.MR_OP_LINEAR_HEADS-plan.OpLinearHeads]
	_ = "="[C.MR_OP_ROPE-plan.OpRope]
	_ = "="[C.MR_OP_CACHE_WRITE-plan.OpCacheWrite]
	_ = "="[C.MR_OP_ATTENTION-plan.OpAttention]
	_ = "="[C.MR_OP_ACTIVATE-plan.OpActivate]
	_ = "="[C.MR_OP_ADD-plan.OpAdd]
	_ = "="[C.MR_OP_ROUTE-plan.OpRoute]
	_ = "="[C.MR_OP_EXPERTS-plan.OpExperts]
	_ = "="[C.MR_OP_CONV-plan.OpConv]
	_ = "="[C.MR_OP_GATED_DELTA-plan.OpGatedDelta]
	_ = "="[C.MR_OP_SSM-plan.OpSSM]
	_ = "="[C.MR_OP_ROWS-plan.OpRows]
	_ = "="[C.MR_OP_LOGITS-plan.OpLogits]
	_ = "="[C.MR_OP_OUTPUT-plan.OpOutput]
	_ = "="[C.MR_OP_SCALE-plan.OpScale]
	_ = "="[C.MR_OP_SPARSIFY-plan.OpSparsify]
	_ = "="[C.MR_OP_JOIN-plan.OpJoin]
	_ = "="[C.MR_OP_SELECTIVE_SCAN-plan.OpSelectiveScan]

	_ = "="[C.MR_EMBED_OFFSET-plan.EmbedOffset]
	_ = "="[C.MR_EMBED_BESIDE-plan.EmbedBeside]
	_ = "="[C.MR_NORM_GROUP-plan.NormGroup]
	_ = "="[C.MR_NORM_GATE-plan.NormGate]
	_ = "="[C.MR_LINEAR_ACT-plan.LinearAct]
	_ = "="[C.MR_HEADS_COUNT-plan.HeadsCount]
	_ = "="[C.MR_ROPE_HEADS-plan.RopeHeads]
	_ = "="[C.MR_ROPE_HEAD_DIM-plan.RopeHeadDim]
	_ = "="[C.MR_ROPE_FIRST-plan.RopeFirst]
	_ = "="[C.MR_ROPE_ROTARY-plan.RopeRotary]
	_ = "="[C.MR_ROPE_TABLE-plan.RopeTable]
	_ = "="[C.MR_ROPE_INTERLEAVED-plan.RopeInterleaved]
	_ = "="[C.MR_ROPE_LONG-plan.RopeLong]
	_ = "="[C.MR_ROPE_ORIGINAL-plan.RopeOriginal]
	_ = "="[C.MR_ROPE_AXES-plan.RopeAxes]
	_ = "="[C.MR_WRITE_CACHE-plan.WriteCache]
	_ = "="[C.MR_ATTN_CACHE-plan.AttnCache]
	_ = "="[C.MR_ATTN_HEADS-plan.AttnHeads]
	_ = "="[C.MR_ATTN_WINDOW-plan.AttnWindow]
	_ = "="[C.MR_ATTN_SLOPES-plan.AttnSlopes]
	_ = "="[C.MR_ATTN_CHUNK-plan.AttnChunk]
	_ = "="[C.MR_ACT_KIND-plan.ActKind]
	_ = "="[C.MR_EXPERTS_SCALE_INPUT-plan.ExpertsScaleInput]
	_ = "="[C.MR_ROUTE_TOP_K-plan.RouteTopK]
	_ = "="[C.MR_ROUTE_SCORE-plan.RouteScore]
	_ = "="[C.MR_ROUTE_GROUPS-plan.RouteGroups]
	_ = "="[C.MR_ROUTE_TOP_GROUPS-plan.RouteTopGroups]
	_ = "="[C.MR_ROUTE_NORMALIZE-plan.RouteNormalize]
	_ = "="[C.MR_ROUTE_GROUP_BEST-plan.RouteGroupBest]
	_ = "="[C.MR_CONV_CACHE-plan.ConvCache]
	_ = "="[C.MR_CONV_ACT-plan.ConvAct]
	_ = "="[C.MR_DELTA_CACHE-plan.DeltaCache]
	_ = "="[C.MR_DELTA_KEY_HEADS-plan.DeltaKeyHeads]
	_ = "="[C.MR_DELTA_CHANNELS-plan.DeltaChannels]
	_ = "="[C.MR_DELTA_NEGATIVE-plan.DeltaNegative]
	_ = "="[C.MR_SSM_CACHE-plan.SSMCache]
	_ = "="[C.MR_SSM_GROUPS-plan.SSMGroups]
	_ = "="[C.MR_SCALE_OFFSET-plan.ScaleOffset]
	_ = "="[C.MR_SCALE_LENGTH-plan.ScaleLength]
	_ = "="[C.MR_SCAN_CACHE-plan.ScanCache]

	_ = "="[C.MR_EMBED_SCALE-plan.EmbedScale]
	_ = "="[C.MR_NORM_EPS-plan.NormEps]
	_ = "="[C.MR_NORM_SHIFT-plan.NormShift]
	_ = "="[C.MR_ACT_LIMIT-plan.ActLimit]
	_ = "="[C.MR_ACT_ALPHA-plan.ActAlpha]
	_ = "="[C.MR_LINEAR_SCALE-plan.LinearScale]
	_ = "="[C.MR_ROPE_SCALE-plan.RopeScale]
	_ = "="[C.MR_ROPE_FACTOR-plan.RopeFactor]
	_ = "="[C.MR_ROPE_THETA-plan.RopeTheta]
	_ = "="[C.MR_ATTN_SCALE-plan.AttnScale]
	_ = "="[C.MR_ATTN_CAP-plan.AttnCap]
	_ = "="[C.MR_ADD_SCALE-plan.AddScale]
	_ = "="[C.MR_ROUTE_SCALE-plan.RouteScale]
	_ = "="[C.MR_ROUTE_EPS-plan.RouteEps]
	_ = "="[C.MR_ROUTE_JITTER-plan.RouteJitter]
	_ = "="[C.MR_DELTA_EPS-plan.DeltaEps]
	_ = "="[C.MR_DELTA_SCALE-plan.DeltaScale]
	_ = "="[C.MR_SSM_MIN-plan.SSMMin]
	_ = "="[C.MR_SSM_MAX-plan.SSMMax]
	_ = "="[C.MR_LOGITS_CAP-plan.LogitsCap]
	_ = "="[C.MR_LOGITS_SCALE-plan.LogitsScale]
	_ = "="[C.MR_SCALE_FACTOR-plan.ScaleFactor]
	_ = "="[C.MR_SCALE_LOG-plan.ScaleLog]
	_ = "="[C.MR_SPARSIFY_DEVIATIONS-plan.SparsifyDeviations]

	_ = "="[C.MR_ACT_NONE-plan.ActNone]
	_ = "="[C.MR_ACT_SILU-plan.ActSilu]
	_ = "="[C.MR_ACT_GELU-plan.ActGelu]
	_ = "="[C.MR_ACT_GELU_TANH-plan.ActGeluTanh]
	_ = "="[C.MR_ACT_RELU-plan.ActRelu]
	_ = "="[C.MR_ACT_RELU2-plan.ActRelu2]
	_ = "="[C.MR_ACT_SIGMOID-plan.ActSigmoid]
	_ = "="[C.MR_ACT_CLAMPED_SWIGLU-plan.ActClampedSwiGLU]
	_ = "="[C.MR_ACT_TANH-plan.ActTanh]
	_ = "="[C.MR_ACT_QUICK_GELU-plan.ActQuickGelu]
	_ = "="[C.MR_ACT_CLIP-plan.ActClip]
	_ = "="[C.MR_ACT_XIELU-plan.ActXIELU]
	_ = "="[C.MR_GATE_NONE-plan.GateNone]
	_ = "="[C.MR_GATE_AFTER-plan.GateAfter]
	_ = "="[C.MR_GATE_BEFORE-plan.GateBefore]
	_ = "="[C.MR_GATE_SIGMOID-plan.GateSigmoid]
	_ = "="[C.MR_GATE_MAGNITUDE-plan.GateMagnitude]
	_ = "="[C.MR_SCORE_SOFTMAX-plan.ScoreSoftmax]
	_ = "="[C.MR_SCORE_SOFTMAX_CHOSEN-plan.ScoreSoftmaxChosen]
	_ = "="[C.MR_SCORE_SIGMOID-plan.ScoreSigmoid]
	_ = "="[C.MR_SCORE_SPARSE_MIXER-plan.ScoreSparseMixer]
	_ = "="[C.MR_CACHE_KV-plan.CacheKV]
	_ = "="[C.MR_CACHE_LATENT-plan.CacheLatent]
	_ = "="[C.MR_CACHE_STATE-plan.CacheState]

	_ = "="[C.MR_ROW_SAMPLE-RowSample]
	_ = "="[C.MR_ROW_SCORE-RowScore]
	_ = "="[C.MR_ROW_VERIFY-RowVerify]
	_ = "="[C.MR_ROW_AGAIN-RowAgain]
	_ = "="[C.MR_ROW_OUTPUT-RowOutput]
	_ = "="[C.MR_FEATURE_ADAPTERS-FeatureAdapters]
	_ = "="[C.MR_FEATURE_EMBEDS-FeatureEmbeds]
	_ = "="[C.MR_FEATURE_AXES-FeatureAxes]
	_ = "="[C.MR_FEATURE_SPANS-FeatureSpans]
	_ = "="[C.MR_FEATURE_VERIFY-FeatureVerify]
	_ = "="[C.MR_FEATURE_CACHE8-FeatureCache8]
	_ = "="[C.MR_FEATURE_DRAFT-FeatureDraft]
)

// Native is a backend behind the C ABI of millrace.h.
type Native struct {
	table *C.mr_backend
	ctx   *C.mr_context // nil after Close
	open  sync.RWMutex  // held while Stats, which any goroutine may call, reads ctx
	caps  Caps
	ring  [RingDepth]nativeBatch
	lost  error // what the backend said when the device went

	adopted []func() // release memory of AdoptTensor
}

var _ Backend = (*Native)(nil)

// nativeBatch is a ring entry: Go's view of arrays in C memory.
type nativeBatch struct {
	c      *C.mr_batch
	view   Batch
	hidden int // floats of a row of Embeds
}

// ProbeNative asks the backend at table, a const mr_backend *, what this
// machine offers it. An empty Caps.Name means: nothing it could run on.
func ProbeNative(table unsafe.Pointer) (Caps, error) {
	t, err := nativeTable(table)
	if err != nil {
		return Caps{}, err
	}
	var caps C.mr_caps
	if status := C.mr_call_probe(t, &caps); status != C.MR_OK {
		return Caps{}, nativeError(t, nil, status)
	}
	return goCaps(&caps), nil
}

// NewNative opens the backend whose function table, a const mr_backend *,
// table points to. The table stays in use until Close.
func NewNative(table unsafe.Pointer, limits Limits) (*Native, error) {
	t, err := nativeTable(table)
	if err != nil {
		return nil, err
	}
	var l C.mr_limits
	for _, f := range []struct {
		name string
		to   *C.int32_t
		n    int
	}{
		{"MaxTokens", &l.max_tokens, limits.MaxTokens},
		{"MaxRows", &l.max_rows, limits.MaxRows},
		{"MaxSlots", &l.max_slots, limits.MaxSlots},
		{"MaxPagesPerSlot", &l.max_pages_per_slot, limits.MaxPagesPerSlot},
		{"Threads", &l.threads, limits.Threads},
		{"of count deltas", &l.max_count_deltas, limits.countDeltas()},
		{"of bias deltas", &l.max_bias_deltas, limits.biasDeltas()},
	} {
		if f.n < 0 || f.n > math.MaxInt32 {
			return nil, fmt.Errorf("limit %s is %d", f.name, f.n)
		}
		*f.to = C.int32_t(f.n)
	}
	n := &Native{table: t}
	if status := C.mr_call_open(t, &l, &n.ctx); status != C.MR_OK {
		return nil, nativeError(t, nil, status)
	}
	var caps C.mr_caps
	if err := n.check(C.mr_call_caps(t, n.ctx, &caps)); err != nil {
		n.Close()
		return nil, err
	}
	n.caps = goCaps(&caps)
	return n, nil
}

func nativeTable(table unsafe.Pointer) (*C.mr_backend, error) {
	t := (*C.mr_backend)(table)
	if t == nil {
		return nil, errors.New("no native backend")
	}
	if t.abi_version != C.MR_ABI_VERSION {
		return nil, fmt.Errorf("native backend has ABI version %d, expected %d", int(t.abi_version), C.MR_ABI_VERSION)
	}
	return t, nil
}

func goCaps(c *C.mr_caps) Caps {
	return Caps{
		Name:        C.GoString(&c.name[0]),
		Detail:      C.GoString(&c.detail[0]),
		Threads:     int(c.threads),
		Devices:     int(c.devices),
		Ops:         uint64(c.ops),
		Formats:     uint32(c.formats),
		Features:    Feature(c.features),
		Lowered:     c.lowered != 0,
		Memory:      int64(c.memory),
		LaunchDepth: int(c.launch_depth),
		StepTokens:  int(c.step_tokens),
		Layout:      C.GoString(&c.layout[0]),
		Adopted:     uint32(c.adopted),
	}
}

// nativeError turns a status into an error with the backend's sentence.
func nativeError(t *C.mr_backend, ctx *C.mr_context, status C.mr_status) error {
	sentence := C.GoString(C.mr_call_error(t, ctx))
	switch status {
	case C.MR_LOST:
		return fmt.Errorf("%w: %s", ErrLost, sentence)
	case C.MR_UNSUPPORTED:
		return fmt.Errorf("%w: %s", ErrUnsupported, sentence)
	}
	return errors.New(sentence)
}

var errClosed = errors.New("backend is closed")

func (n *Native) check(status C.mr_status) error {
	if status == C.MR_OK {
		return nil
	}
	err := nativeError(n.table, n.ctx, status)
	if status == C.MR_LOST {
		n.lost = err
	}
	return fmt.Errorf("%s: %w", n.name(), err)
}

func (n *Native) name() string {
	if n.caps.Name == "" {
		return "native"
	}
	return n.caps.Name
}

// usable says why no call can succeed any more.
func (n *Native) usable() error {
	if n.ctx == nil {
		return errClosed
	}
	return n.lost
}

// Caps implements Backend.
func (n *Native) Caps() Caps { return n.caps }

// CheckPlan implements Backend.
func (n *Native) CheckPlan(p *plan.Plan) error {
	if err := n.usable(); err != nil {
		return err
	}
	c := cPlanOf(p)
	return n.check(C.mr_call_plan_check(n.table, n.ctx, c.plan, c.values, c.tableLen, c.tables, c.caches, c.ops))
}

// NewTensor implements Backend.
func (n *Native) NewTensor(name string, format plan.Format, shape []int) (Handle, error) {
	if err := n.usable(); err != nil {
		return 0, err
	}
	if format < 0 { // no value of the C enumeration
		return 0, fmt.Errorf("%s: tensor %s has format %v", n.name(), name, format)
	}
	cName := C.CString(name)
	defer C.free(unsafe.Pointer(cName))
	dims := make([]C.int64_t, len(shape)+1) // one more: &dims[0] must exist
	for i, d := range shape {
		dims[i] = C.int64_t(d)
	}
	var h C.int32_t
	err := n.check(C.mr_call_tensor_new(n.table, n.ctx, cName, C.mr_format(format), C.int32_t(len(shape)), &dims[0], &h))
	return Handle(h), err
}

// WriteTensor implements Backend.
func (n *Native) WriteTensor(h Handle, first, rows int, src []byte) error {
	if err := n.usable(); err != nil {
		return err
	}
	return n.check(C.mr_call_tensor_write(n.table, n.ctx, C.int32_t(h), C.int64_t(first), C.int64_t(rows),
		unsafe.Pointer(unsafe.SliceData(src)), C.int64_t(len(src))))
}

// AdoptTensor implements Backend. packed is not Go's memory: C keeps the pointer.
func (n *Native) AdoptTensor(h Handle, packed []byte, release func()) error {
	if err := n.usable(); err != nil {
		return err
	}
	err := n.check(C.mr_call_tensor_adopt(n.table, n.ctx, C.int32_t(h), unsafe.Pointer(unsafe.SliceData(packed)), C.int64_t(len(packed))))
	if err == nil && release != nil {
		n.adopted = append(n.adopted, release)
	}
	return err
}

// cPlan is a plan for C: a struct without its pointers, and those.
type cPlan struct {
	plan     C.mr_plan
	values   *C.mr_value
	tableLen *C.int32_t
	tables   *C.float
	caches   *C.mr_cache
	ops      *C.mr_op
}

func cPlanOf(p *plan.Plan) cPlan {
	ops := p.AllOps()
	var (
		tableLen = make([]int32, 0, len(p.Tables))
		tables   []float32
	)
	for _, t := range p.Tables {
		tableLen = append(tableLen, int32(len(t)))
		tables = append(tables, t...)
	}
	return cPlan{
		plan: C.mr_plan{
			version:   plan.Version,
			vocab:     C.int32_t(p.Vocab),
			hidden:    C.int32_t(p.Hidden),
			n_values:  C.int32_t(len(p.Values)),
			n_tables:  C.int32_t(len(p.Tables)),
			n_tensors: C.int32_t(len(p.Tensors)),
			n_caches:  C.int32_t(len(p.Caches)),
			n_groups:  C.int32_t(len(p.Groups)),
			n_ops:     C.int32_t(len(p.Ops)),
			n_draft:   C.int32_t(len(p.Draft)),
		},
		values:   (*C.mr_value)(unsafe.Pointer(unsafe.SliceData(p.Values))),
		tableLen: (*C.int32_t)(unsafe.SliceData(tableLen)),
		tables:   (*C.float)(unsafe.SliceData(tables)),
		caches:   (*C.mr_cache)(unsafe.Pointer(unsafe.SliceData(p.Caches))),
		ops:      (*C.mr_op)(unsafe.Pointer(unsafe.SliceData(ops))),
	}
}

// SetModel implements Backend.
func (n *Native) SetModel(p *plan.Plan) (ModelInfo, error) {
	if err := n.usable(); err != nil {
		return ModelInfo{}, err
	}
	for i := range n.ring {
		n.ring[i].hidden = p.Hidden
	}
	var info C.mr_model_info
	c := cPlanOf(p)
	err := n.check(C.mr_call_model(n.table, n.ctx, c.plan, c.values, c.tableLen, c.tables, c.caches, c.ops, &info))
	return ModelInfo{
		PageBytes:      int64(info.page_bytes),
		StateBytes:     int64(info.state_bytes),
		WeightBytes:    int64(info.weight_bytes),
		WorkspaceBytes: int64(info.workspace_bytes),
	}, err
}

// InitCache implements Backend.
func (n *Native) InitCache(pages, states int) error {
	if err := n.usable(); err != nil {
		return err
	}
	if pages < 0 || pages > math.MaxInt32 || states < 0 || states > math.MaxInt32 {
		return fmt.Errorf("%s: %d pages and %d states", n.name(), pages, states)
	}
	if err := n.check(C.mr_call_cache_init(n.table, n.ctx, C.int32_t(pages), C.int32_t(states))); err != nil {
		return err
	}
	for i := range n.ring {
		c := C.mr_call_batch(n.table, n.ctx, C.int32_t(i))
		if c == nil {
			return fmt.Errorf("%s: no ring entry %d", n.name(), i)
		}
		n.ring[i].c = c
		n.ring[i].view = viewBatch(c, n.ring[i].hidden)
	}
	return nil
}

// WarmUp implements Backend.
func (n *Native) WarmUp() error {
	if err := n.usable(); err != nil {
		return err
	}
	return n.check(C.mr_call_warm_up(n.table, n.ctx))
}

// HostAlloc implements Backend.
func (n *Native) HostAlloc(bytes int) ([]byte, error) {
	if err := n.usable(); err != nil {
		return nil, err
	}
	var memory unsafe.Pointer
	if err := n.check(C.mr_call_host_alloc(n.table, n.ctx, C.int64_t(bytes), &memory)); err != nil {
		return nil, err
	}
	return unsafe.Slice((*byte)(memory), bytes), nil
}

// HostFree implements Backend. It panics for memory that HostAlloc did not
// return or that was given back before.
func (n *Native) HostFree(memory []byte) {
	if n.ctx == nil {
		return // Close gave it back
	}
	if err := n.check(C.mr_call_host_free(n.table, n.ctx, unsafe.Pointer(unsafe.SliceData(memory)))); err != nil {
		panic(err)
	}
}

// LoadAdapter implements Backend.
func (n *Native) LoadAdapter(id int32, a *Adapter) error {
	if err := n.usable(); err != nil {
		return err
	}
	var pins runtime.Pinner // C follows pointers to A and B
	defer pins.Unpin()
	targets := make([]C.mr_adapter_target, len(a.Targets))
	for i, t := range a.Targets {
		pins.Pin(unsafe.SliceData(t.A))
		pins.Pin(unsafe.SliceData(t.B))
		targets[i] = C.mr_adapter_target{
			tensor: C.int32_t(t.Tensor),
			first:  C.int32_t(t.First),
			rows:   C.int32_t(t.Rows),
			a:      (*C.float)(unsafe.SliceData(t.A)),
			b:      (*C.float)(unsafe.SliceData(t.B)),
		}
	}
	return n.check(C.mr_call_adapter_load(n.table, n.ctx, C.int32_t(id), C.int32_t(a.Rank), C.int32_t(len(targets)),
		unsafe.SliceData(targets)))
}

// DropAdapter implements Backend.
func (n *Native) DropAdapter(id int32) error {
	if err := n.usable(); err != nil {
		return err
	}
	return n.check(C.mr_call_adapter_drop(n.table, n.ctx, C.int32_t(id)))
}

// ReadPage implements Backend.
func (n *Native) ReadPage(page int, dst []byte) error {
	if err := n.usable(); err != nil {
		return err
	}
	return n.check(C.mr_call_page_read(n.table, n.ctx, C.int32_t(page), unsafe.Pointer(unsafe.SliceData(dst)), C.int64_t(len(dst))))
}

// WritePage implements Backend.
func (n *Native) WritePage(page int, src []byte) error {
	if err := n.usable(); err != nil {
		return err
	}
	return n.check(C.mr_call_page_write(n.table, n.ctx, C.int32_t(page), unsafe.Pointer(unsafe.SliceData(src)), C.int64_t(len(src))))
}

// ReadState implements Backend.
func (n *Native) ReadState(state int, dst []byte) error {
	if err := n.usable(); err != nil {
		return err
	}
	return n.check(C.mr_call_state_read(n.table, n.ctx, C.int32_t(state), unsafe.Pointer(unsafe.SliceData(dst)), C.int64_t(len(dst))))
}

// WriteState implements Backend.
func (n *Native) WriteState(state int, src []byte) error {
	if err := n.usable(); err != nil {
		return err
	}
	return n.check(C.mr_call_state_write(n.table, n.ctx, C.int32_t(state), unsafe.Pointer(unsafe.SliceData(src)), C.int64_t(len(src))))
}

// cSlice views n elements of C memory as an empty slice that can hold them.
func cSlice[T, E any](p *E, n int) []T { return unsafe.Slice((*T)(unsafe.Pointer(p)), n)[:0] }

func viewBatch(c *C.mr_batch, hidden int) Batch {
	return Batch{
		Tokens:    cSlice[int32](c.tokens, int(c.cap_tokens)),
		Pos:       cSlice[int32](c.pos, int(c.cap_tokens)),
		Axes:      cSlice[int32](c.axes, int(c.cap_axes)),
		Embeds:    cSlice[float32](c.embeds, int(c.cap_embeds)*hidden),
		Seqs:      cSlice[Seq](c.seqs, int(c.cap_seqs)),
		Rows:      cSlice[Row](c.rows, int(c.cap_rows)),
		Pages:     cSlice[PageDelta](c.pages, int(c.cap_pages)),
		States:    cSlice[StateDelta](c.states, int(c.cap_states)),
		Params:    cSlice[ParamDelta](c.params, int(c.cap_params)),
		Counts:    cSlice[CountDelta](c.counts, int(c.cap_counts)),
		Biases:    cSlice[BiasDelta](c.biases, int(c.cap_biases)),
		Spans:     cSlice[Span](c.spans, int(c.cap_spans)),
		Masks:     cSlice[uint32](c.masks, int(c.cap_masks)*int(c.mask_words)),
		MaskWords: int(c.mask_words),
		Results:   cSlice[RowResult](c.results, int(c.cap_rows)),
		Top:       cSlice[Alternative](c.top, int(c.cap_rows)*MaxTopN),
		Outputs:   cSlice[float32](c.outputs, int(c.cap_outputs)*int(c.output_width)),
	}
}

// Batch implements Backend. It panics for an entry that does not exist.
func (n *Native) Batch(i int) *Batch { return &n.ring[i].view }

// entry returns ring entry i, or why there is none.
func (n *Native) entry(call string, i int) (*nativeBatch, error) {
	if err := n.usable(); err != nil {
		return nil, err
	}
	if i < 0 || i >= RingDepth || n.ring[i].c == nil {
		return nil, fmt.Errorf("%s: %s of ring entry %d, which does not exist", n.name(), call, i)
	}
	return &n.ring[i], nil
}

// Forward implements Backend.
func (n *Native) Forward(i int) error {
	b, err := n.entry("Forward", i)
	if err != nil {
		return err
	}
	if !b.setLengths() {
		return fmt.Errorf("%s: a slice of the batch outgrew its capacity", n.name())
	}
	return n.check(C.mr_call_forward(n.table, n.ctx, C.int32_t(i)))
}

// setLengths tells C how much of each array the engine filled, and reports
// whether all slices are still in their arrays: the backend would not see one
// that an append moved.
func (b *nativeBatch) setLengths() bool {
	v, c := &b.view, b.c
	ok := setLength(v.Tokens, c.tokens, &c.n_tokens) &&
		setLength(v.Pos, c.pos, &c.n_tokens) &&
		setLength(v.Axes, c.axes, &c.n_axes) &&
		setLength(v.Embeds, c.embeds, &c.n_embeds) &&
		setLength(v.Seqs, c.seqs, &c.n_seqs) &&
		setLength(v.Rows, c.rows, &c.n_rows) &&
		setLength(v.Pages, c.pages, &c.n_pages) &&
		setLength(v.States, c.states, &c.n_states) &&
		setLength(v.Params, c.params, &c.n_params) &&
		setLength(v.Counts, c.counts, &c.n_counts) &&
		setLength(v.Biases, c.biases, &c.n_biases) &&
		setLength(v.Spans, c.spans, &c.n_spans)
	if !ok {
		return false
	}
	c.n_embeds /= int32C(max(1, b.hidden))
	v.Results = v.Results[:len(v.Rows)]
	v.Top = v.Top[:len(v.Rows)*MaxTopN]
	v.Outputs = v.Outputs[:len(v.Rows)*int(c.output_width)]
	return true
}

// setLength reports whether s lies in its array.
func setLength[T, E any](s []T, array *E, n *int32C) bool {
	*n = int32C(len(s))
	return unsafe.Pointer(unsafe.SliceData(s)) == unsafe.Pointer(array)
}

// int32C lets a generic function name the C type.
type int32C = C.int32_t

// Sample implements Backend.
func (n *Native) Sample(i int) error {
	b, err := n.entry("Sample", i)
	if err != nil {
		return err
	}
	words := int32C(0)
	if !setLength(b.view.Masks, b.c.masks, &words) {
		return fmt.Errorf("%s: the masks of the batch outgrew their capacity", n.name())
	}
	b.c.n_masks = words / max(1, b.c.mask_words) // none without a vocabulary
	b.c.draft = 0
	if b.view.Draft {
		b.c.draft = 1
	}
	return n.check(C.mr_call_sample(n.table, n.ctx, C.int32_t(i)))
}

// Wait implements Backend.
func (n *Native) Wait(i int) error {
	b, err := n.entry("Wait", i)
	if err != nil {
		return err
	}
	err = n.check(C.mr_call_wait(n.table, n.ctx, C.int32_t(i)))
	b.view.DraftTime = time.Duration(b.c.draft_ns)
	return err
}

// Stats implements Backend. It returns zeros after Close.
func (n *Native) Stats() Stats {
	n.open.RLock()
	defer n.open.RUnlock()
	var s C.mr_stats
	if n.ctx == nil || C.mr_call_stats(n.table, n.ctx, &s) != C.MR_OK {
		return Stats{}
	}
	return Stats{
		Steps:  int64(s.steps),
		Tokens: int64(s.tokens),
		Busy:   time.Duration(s.busy_ns),
		Bytes:  int64(s.bytes),
	}
}

// Close implements Backend. Batches and memory of HostAlloc must not be used
// afterwards.
func (n *Native) Close() error {
	n.open.Lock()
	defer n.open.Unlock()
	if n.ctx != nil {
		C.mr_call_close(n.table, n.ctx)
		n.ctx = nil
		n.ring = [RingDepth]nativeBatch{}
	}
	for _, release := range n.adopted {
		release()
	}
	n.adopted = nil
	return nil
}
