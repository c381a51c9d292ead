package device

// #include "abi/millrace.h"
import "C"

import (
	"unsafe"

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
	_ = "="[C.MR_MAX_DRAFTS-MaxDrafts]
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
	_ = "="[C.MR_OP_EMBEDDING_BAG-plan.OpEmbeddingBag]
	_ = "="[C.MR_OP_ALL_REDUCE-plan.OpAllReduce]

	_ = "="[C.MR_EMBED_OFFSET-plan.EmbedOffset]
	_ = "="[C.MR_EMBED_BESIDE-plan.EmbedBeside]
	_ = "="[C.MR_EMBED_FIRST-plan.EmbedFirst]
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
	_ = "="[C.MR_ATTN_SIGHT-plan.AttnSight]
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
	_ = "="[C.MR_ROWS_COUNT-plan.RowsCount]
	_ = "="[C.MR_ROWS_MEAN-plan.RowsMean]
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
	_ = "="[C.MR_SIGHT_BACK-plan.SightBack]
	_ = "="[C.MR_SIGHT_SPAN-plan.SightSpan]
	_ = "="[C.MR_SIGHT_ALL-plan.SightAll]
	_ = "="[C.MR_SIGHT_CAUSAL-plan.SightCausal]
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
	_ = "="[C.MR_FEATURE_ABANDON-FeatureAbandon]
)
