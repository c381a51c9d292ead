// Package device is the seam between the engine and whatever computes: the
// Backend interface, the Batch that crosses it, and millrace.h, the same seam
// as a C ABI with its Go binding (Native).
//
// A backend is one in-order queue. Forward and Sample enqueue work on a Batch
// of the ring and return at once; Wait blocks until that Batch has its
// results. The engine fills Batch i+1 while Batch i runs, so a backend never
// keeps a reference into Go memory after a call returns: all arrays of a
// Batch live in memory the backend owns.
//
// What stays on the device between steps, per slot: a page table for each
// group of caches, which state is its own, the last sampled token, the hidden
// row that the last logit row was made of, the sampling parameters, the logit
// biases and the token counts that penalties need. A Batch carries only what
// changed.
//
// Cache memory is counted in pages of PageTokens tokens, each of which any
// group may use, and in states, each of which holds all recurrent layers of one
// sequence at one position. The backend knows nothing of sharing: the engine
// decides which page and which state belongs to which slot.
//
// Encoders, vision towers and embedding models, run on a backend of their own:
// a second one of the same kind, opened for the plan of the encoder, which ends in
// OpOutput (plan.Plan.Encodes). Nothing else is special. What it encodes is a
// sequence with a slot and pages for the steps that it takes, its patches are rows
// of Embeds at positions from 0 on, and as one Span they see each other
// whichever way; where the plan's attention says so (plan.Sight) they do without one, and
// Spans are windows. Each row it asks for is a RowOutput, whose answer is the hidden
// vector itself, in Outputs; there are not logits, and nothing is sampled. A row may be
// made of several tokens of the step, of which it names the last (plan.OpRows).
//
// Backends trust plans and batches. Checked wraps one so that both are
// checked first, once for all backends.
//
// Implementations: engine/cpu (C++, through Native), engine/ref (float32 Go,
// the oracle), engine/sim (virtual time and faults). All of them run the
// conformance suite in engine/device/backendtest.
package device

import (
	"errors"
	"time"

	"github.com/millrace-ai/millrace/engine/page"
	"github.com/millrace-ai/millrace/engine/plan"
	"github.com/millrace-ai/millrace/engine/sample"
)

// PageTokens is the number of tokens that share a page.
const PageTokens = page.Tokens

// PackedAlign divides the address of memory that a backend adopts.
const PackedAlign = 64

// RingDepth is the number of Batches a backend owns: one runs, one is being
// filled, one is being read.
const RingDepth = 3

// MaxTopN bounds the alternatives a row can return, ties included.
const MaxTopN = 32

// LastToken in Batch.Tokens means: the token most recently sampled for this
// sequence's slot, which the host may not have seen yet.
const LastToken int32 = -1 << 31

// MaxDrafts bounds the tokens that the plan's draft predicts after one that was chosen.
const MaxDrafts = 8

// EmbedRow returns what stands in Batch.Tokens for row i of Batch.Embeds.
func EmbedRow(i int) int32 { return int32(-1 - i) }

// NoState means no state in a StateDelta; ZeroState the one before the first token.
const (
	NoState   int32 = -1
	ZeroState int32 = -2
)

// ErrLost says that the device is gone: no later call can succeed and every
// open request must be failed. Backends wrap it with the reason.
var ErrLost = errors.New("device lost")

// ErrUnsupported says that a backend cannot do what Caps did not promise.
var ErrUnsupported = errors.New("not supported by this backend")

// Handle names a tensor inside a backend; plan.Op refers to tensors by their
// index in plan.Plan.Tensors, and the loader creates them in that order, so
// handle and index are equal.
type Handle int32

// Feature is something a backend may be able to do. The values are part of the
// C ABI.
type Feature uint32

// Features.
const (
	FeatureAdapters Feature = 1 << iota // LoadAdapter, Seq.Adapter
	FeatureEmbeds                       // Batch.Embeds
	FeatureAxes                         // Batch.Axes
	FeatureSpans                        // Batch.Spans
	FeatureVerify                       // RowVerify
	FeatureCache8                       // caches in format W8
	FeatureDraft                        // plan.Plan.Draft, Batch.Draft
	FeatureAbandon                      // Abandon
)

// Caps says what a backend is and can do.
type Caps struct {
	Name    string // "cpu", "ref", "sim", "cuda"
	Detail  string // for the log: instruction set, GPU name
	Threads int    // worker threads, 0 when that means nothing
	Devices int    // that share the model's tensors

	Ops      uint64  // bit k: plan.Kind k
	Formats  uint32  // bit f: formats of kind f
	Features Feature //
	Lowered  bool    // SetModel wants the lowered plan
	Memory   int64   // bytes of the device; 0: the host's

	// LaunchDepth is how many steps the engine should launch ahead of the one
	// whose results it waits for: 0 where a step takes long beside what the host
	// does between two, 1 where the device would wait for the host.
	LaunchDepth int
	// StepTokens is how many tokens a step should have to keep the device busy.
	StepTokens int

	Layout  string // of what AdoptTensor takes, such as plan.Panels; "" if nothing
	Adopted uint32 // bit f: it takes matrices in formats of kind f
}

// Has reports whether the backend can do f.
func (c *Caps) Has(f Feature) bool { return c.Features&f == f }

// Limits are fixed at open: a backend reserves everything it will ever need.
type Limits struct {
	MaxTokens       int // tokens of all sequences in one Batch
	MaxRows         int // logit rows in one Batch; MaxTokens when prompt log-probabilities are wanted
	MaxSlots        int // sequences that can be resident at once
	MaxPagesPerSlot int // longest sequence, in pages
	Threads         int // CPU worker threads; 0 lets the backend choose
}

// ModelInfo is what a backend says after it has taken a plan.
type ModelInfo struct {
	PageBytes      int64 // of one page, whichever group uses it
	StateBytes     int64 // of one state of all recurrent layers, 0 if there are none
	WeightBytes    int64 // resident weight bytes
	MappedBytes    int64 // of these, the kernel's cache of files; the loader knows
	WorkspaceBytes int64 // activations and tables
}

// Stats is what a backend has done since it was opened.
type Stats struct {
	Steps  int64         // forward passes completed
	Tokens int64         // of these
	Busy   time.Duration // in forward passes and sampling
	Bytes  int64         // of memory held: weights, caches, workspace
}

// Backend computes. One goroutine at a time may call it (the loader, then the
// engine's loop).
type Backend interface {
	Caps() Caps

	// CheckPlan says, before any tensor is loaded, what of a valid plan this
	// backend cannot run.
	CheckPlan(p *plan.Plan) error

	// NewTensor announces the next tensor of the plan, h = 0, 1, 2 …, row-major:
	// [n], [rows, cols] or [matrices, rows, cols].
	NewTensor(name string, format plan.Format, shape []int) (Handle, error)

	// WriteTensor gives n whole rows beginning at row first, counted through all
	// matrices; a vector is one row. src is only read during the call. Any order,
	// each row once.
	WriteTensor(h Handle, first, n int, src []byte) error

	// AdoptTensor gives all of a tensor of matrices, instead of WriteTensor, in
	// memory that holds it as Caps.Layout says: of the host, outside of Go's heap,
	// aligned to PackedAlign bytes. It is only read, and must stay as it is until the
	// backend calls release, in Close; nil: it does anyway. After an error release is
	// not called.
	AdoptTensor(h Handle, packed []byte, release func()) error

	// SetModel takes the op plan once all tensors are written.
	SetModel(p *plan.Plan) (ModelInfo, error)

	// InitCache reserves pages, numbered 0 … pages-1, states likewise, and the
	// ring. states is 0 if the model has no recurrent layers.
	InitCache(pages, states int) error

	// WarmUp does what would make the first steps slower than later ones. It may
	// follow InitCache and leaves caches and slots as they were.
	WarmUp() error

	// HostAlloc returns memory of the host that the device reads fastest, for
	// tensors on their way in; HostFree gives it back. Close does so too.
	HostAlloc(bytes int) ([]byte, error)
	HostFree(memory []byte)

	// LoadAdapter makes an adapter available to sequences under id ≥ 1, which is
	// free. Nothing of a is kept. DropAdapter frees id, which no sequence uses.
	LoadAdapter(id int32, a *Adapter) error
	DropAdapter(id int32) error

	// ReadPage copies the content of a page, ModelInfo.PageBytes bytes, to dst, and
	// WritePage gives it back, to any page of any group of caches. What the bytes
	// mean is the backend's affair: they are good for a backend of the same build,
	// model and Caps.Detail. ReadState and WriteState do the same with states, of
	// StateBytes bytes. They follow InitCache, while no Batch is in flight.
	ReadPage(page int, dst []byte) error
	WritePage(page int, src []byte) error
	ReadState(state int, dst []byte) error
	WriteState(state int, src []byte) error

	// Batch returns ring entry i, 0 ≤ i < RingDepth. Valid after InitCache.
	Batch(i int) *Batch

	// Forward enqueues the forward pass of ring entry i: applies its deltas,
	// writes caches, keeps the hidden rows that Sample needs.
	Forward(i int) error

	// Sample enqueues logits and sampling for the rows of ring entry i; must
	// follow Forward(i), with no other Forward between them. An error ends the
	// Batch: there is nothing to wait for.
	Sample(i int) error

	// Wait blocks until Sample(i) is done and its results can be read; later
	// entries may be anywhere on their way. An error that wraps ErrLost is
	// final; any other failed this Batch alone. After a Forward(i) that no Sample
	// follows, it blocks until the Batch is no longer read, and ends it.
	Wait(i int) error

	// Stats may be called from any goroutine, at any time before Close.
	Stats() Stats

	// Abandon(true) ends the forward passes of an encoder within milliseconds, those in
	// flight and those that follow until Abandon(false), and fails their Batches: Wait
	// returns an error. Abandon(false) follows once they have been waited for. It may be
	// called from any goroutine at any time before Close, and does nothing without
	// FeatureAbandon.
	Abandon(yes bool)

	// Close frees everything. No call may be in flight.
	Close() error
}

// Adapter is a low-rank change (LoRA) of some matrices.
type Adapter struct {
	Rank    int
	Targets []AdapterTarget
}

// AdapterTarget adds B A x to rows of what OpLinear, OpLinearHeads or OpExperts makes
// of x with one tensor, before bias and activation. The scale is in B. Each matrix of a
// tensor, that of a head or of an expert, has an A and a B of its own; zeros leave it
// as it is.
type AdapterTarget struct {
	Tensor int       // of the plan, which SetModel has taken
	First  int       // row of each matrix
	Rows   int       //
	A      []float32 // [matrices, Rank, cols of the tensor]
	B      []float32 // [matrices, Rows, Rank]
}

// RowKind says what a logit row is for.
type RowKind int32

// Row kinds. The values are part of the C ABI.
const (
	RowSample RowKind = iota // choose a token with the slot's parameters
	RowScore                 // log-probability of Row.Target under the raw logits
	// RowVerify is RowSample after a token that was fed before it was known: the
	// rows of a slot follow each other in order of their tokens, and Target is the
	// token fed next, -1 in the last one. After the first row that chooses another
	// token than its Target, the slot's further rows are void: RowResult.Void.
	RowVerify
	// RowAgain is RowSample from the hidden row that the last row of this slot,
	// in an earlier Batch, was made of; no token was chosen from that one. The
	// sequence takes no other part in the Batch. Row.Token is -1.
	RowAgain
	// RowOutput asks for the hidden vector of the token: no token is chosen, there
	// are not logits. Its answer is in Batch.Outputs; its RowResult means nothing. All
	// rows of a plan that ends in OpOutput are RowOutput, and no others may be.
	RowOutput
)

// Row asks for the logits after one token of the Batch, or for what an encoder
// makes of it. Of a RowOutput, Token and Slot alone count, and the rest is 0. C
// layout.
type Row struct {
	Token  int32   // index into Batch.Tokens; RowAgain: -1
	Slot   int32   // whose parameters and counts apply
	Kind   RowKind //
	Target int32   // RowScore: the token to score; RowVerify: see there
	Index  int32   // all but RowScore: index of the token to come among the generated ones; keys the random draw
	TopN   int32   // alternatives wanted, 0 … MaxTopN
	Mask   int32   // all but RowScore: 1 + index of its mask in Batch.Masks, 0: none
}

// Seq is one sequence's share of a Batch: at least one token, going on where
// the last one of its slot ended or, with a StateDelta that has From, at an earlier
// place. C layout.
type Seq struct {
	Slot    int32
	Start   int32 // first token in Batch.Tokens; the tokens of a sequence are consecutive
	Count   int32 // number of tokens
	KVLen   int32 // tokens in the cache once this step is done: position of the last token + 1
	Adapter int32 // 0: none
	RopeLen int32 // the least length that rotations take the sequence for (plan.OpRope)
	Next    int32 // with Batch.Draft: the token after its last one, which counts unless a row chooses another; any if it is not known
	Drafts  int32 // with Batch.Draft: the most tokens to draft after the last one that a row chooses, 0 … MaxDrafts
}

// PageDelta sets entry Index of a slot's page table of a group: the page of
// tokens Index*PageTokens and on. C layout.
type PageDelta struct{ Slot, Group, Index, Page int32 }

// StateDelta says which states a slot's step uses: Live is its own from this
// step on, which starts as From and, after the step, is copied to Save. C layout.
type StateDelta struct {
	Slot int32
	Live int32
	From int32 // ZeroState, or NoState: as the slot's last step left Live
	Save int32 // or NoState
}

// ParamDelta gives a slot to a new sequence: parameters set, counts and biases
// cleared. C layout.
type ParamDelta struct {
	Slot   int32
	_      int32
	Params sample.Params
}

// CountDelta adds a token to a slot's counts, after the ParamDeltas. The
// engine sends the prompt, and after a preemption what was generated, for
// slots whose penalties need it; a sampled token counts itself. C layout.
type CountDelta struct {
	Slot      int32
	Token     int32
	Generated int32 // 1: a generated token, 0: a prompt token
}

// BiasDelta adds a logit bias to a slot, after the ParamDeltas. The engine
// sends all biases of a sequence, at most sample.MaxBiases, with its ParamDelta;
// those of one token add up. C layout.
type BiasDelta struct {
	Slot  int32
	Token int32
	Bias  float32 // magnitude at most sample.MaxBias
}

// Span is a run of tokens of one sequence, all in the Batch, that see each
// other whichever way: an image. C layout.
type Span struct{ Start, Count int32 }

// RowResult answers one Row. C layout.
type RowResult struct {
	Token    int32   // RowScore: Target; else the choice
	Logprob  float32 // natural log, of Token
	TopCount int32   // valid entries of the row's Top
	Invalid  int32   // 1: the logits held NaN or no finite value; Token is meaningless
	Void     int32   // 1: RowVerify after a token that was not chosen; all else is meaningless
	// Drafts are, with Batch.Draft and in the row of a slot that chose its last token, what
	// the plan's draft expects after it, one token after the other, Seq.Drafts of them; the
	// rest, and those of other rows, are NoDraft.
	Drafts [MaxDrafts]int32
}

// NoDraft in RowResult.Drafts means that there is none.
const NoDraft int32 = -1

// Alternative is one entry of a row's top list. C layout.
type Alternative struct {
	Token   int32
	Logprob float32
}

// Converter is what a Backend may be besides: one that takes rows of a tensor in another
// format than the tensor's, and converts them as package quant does, bit for bit but for NaN.
type Converter interface {
	// Converts reports whether ConvertTensor takes rows in format from for a tensor in
	// format to, another one.
	Converts(from, to plan.Format) bool
	// ConvertTensor is WriteTensor of rows in format from.
	ConvertTensor(h Handle, first, n int, src []byte, from plan.Format) error
}

// Converts reports whether b is a Converter of rows in format from for tensors in format to.
func Converts(b Backend, from, to plan.Format) bool {
	c, ok := b.(Converter)
	return ok && c.Converts(from, to)
}

// ConvertTensor is b's, which must be a Converter.
func ConvertTensor(b Backend, h Handle, first, n int, src []byte, from plan.Format) error {
	c, ok := b.(Converter)
	if !ok {
		return ErrUnsupported
	}
	return c.ConvertTensor(h, first, n, src, from)
}

// Batch is one step's work and its results: arrays of fixed capacity in the
// backend's memory and the count in use of each. The engine writes the inputs
// before Forward(i) and may not touch the Batch again until Wait(i) returned,
// with one exception: until Sample(i) it may set Kind, Target and Mask of the
// rows, and Masks, which Forward does not read. So it can wait for step i and
// work out what step i+1 may choose while the forward pass of i+1 runs. A row
// may not become or cease to be a RowAgain there.
//
// Seqs may be empty if all rows are RowAgain.
type Batch struct {
	// Inputs, least capacity in brackets. The engine sets the length and
	// stays within cap: what does not fit waits for the next step.
	Tokens []int32      // [MaxTokens] token ids, LastToken or EmbedRow
	Pos    []int32      // [MaxTokens] position of each token in its sequence
	Seqs   []Seq        // [MaxSlots]
	Rows   []Row        // [MaxRows] one RowSample or RowAgain, or RowVerify rows, per sequence
	Pages  []PageDelta  // [groups * (MaxSlots + 2*MaxPagesPerSlot + MaxTokens/PageTokens)]
	States []StateDelta // [MaxSlots]
	Params []ParamDelta // [MaxSlots]
	Counts []CountDelta // [MaxTokens + MaxPagesPerSlot*PageTokens]
	Biases []BiasDelta  // [MaxTokens + sample.MaxBiases]
	Spans  []Span       // [MaxTokens]

	// Axes are the three axes of each token's position, one after the other, for
	// rotations that tell axes apart: after an image none of them is the place in
	// the sequence, which Pos remains. Empty: all three are Pos.
	Axes []int32 // [3*MaxTokens] or none
	// Embeds are rows of plan.RowWidth floats that stand for tokens.
	Embeds []float32 // [MaxTokens*RowWidth] with FeatureEmbeds, else none

	// Draft asks for the plan's draft, which runs after sampling. It takes the token after
	// each one of the batch to be the one that a row chose there or, where none did, the
	// next of the batch or Seq.Next. Steps without it leave gaps in the draft's caches,
	// and so does a RowVerify that chose another token than was fed, until that token is
	// fed: what is read of them then is old. That makes a draft worse, and no text.
	//
	// All but the first of Seq.Drafts tokens are drafted from the draft's own rows
	// (plan.Plan.Draft), which it keeps in its caches at the positions after the token that
	// was chosen last. So a sequence has pages for Drafts-1 positions beyond KVLen, and
	// what is there means nothing to others.
	Draft bool

	// Masks say which tokens a row may choose: mask m is the MaskWords words
	// from m*MaskWords on, and token id is allowed if bit id%32 of its word
	// id/32 is set. Bits beyond the vocabulary mean nothing.
	Masks     []uint32 // [MaxSlots*MaskWords], a length of whole masks
	MaskWords int      // words of one mask; set by the backend

	// Results, valid after Wait.
	Results []RowResult   // [MaxRows], one per row
	Top     []Alternative // [MaxRows*MaxTopN], row r at r*MaxTopN, best first
	Outputs []float32     // [MaxRows*width], row r at r*width, of a plan that ends in OpOutput; else none

	DraftTime        time.Duration // of Draft, which is part of the step's
	FurtherDraftTime time.Duration // of all tokens but the first, which is part of that
}

// Mask returns the mask that Row.Mask = m names, nil for 0.
func (b *Batch) Mask(m int32) []uint32 {
	if m == 0 {
		return nil
	}
	return b.Masks[int(m-1)*b.MaskWords:][:b.MaskWords]
}

// Clear empties all inputs.
func (b *Batch) Clear() {
	b.Tokens, b.Pos, b.Axes, b.Embeds = b.Tokens[:0], b.Pos[:0], b.Axes[:0], b.Embeds[:0]
	b.Seqs, b.Rows, b.Spans = b.Seqs[:0], b.Rows[:0], b.Spans[:0]
	b.Pages, b.States = b.Pages[:0], b.States[:0]
	b.Params, b.Counts, b.Biases, b.Masks = b.Params[:0], b.Counts[:0], b.Biases[:0], b.Masks[:0]
	b.Draft, b.DraftTime, b.FurtherDraftTime = false, 0, 0
}

// CopyInputs copies to b what Forward reads of from, a batch of the same capacities. Masks,
// which only Sample reads, stay as they are.
func (b *Batch) CopyInputs(from *Batch) {
	b.Tokens, b.Pos = append(b.Tokens[:0], from.Tokens...), append(b.Pos[:0], from.Pos...)
	b.Axes, b.Embeds = append(b.Axes[:0], from.Axes...), append(b.Embeds[:0], from.Embeds...)
	b.Seqs, b.Rows, b.Spans = append(b.Seqs[:0], from.Seqs...), append(b.Rows[:0], from.Rows...), append(b.Spans[:0], from.Spans...)
	b.Pages, b.States = append(b.Pages[:0], from.Pages...), append(b.States[:0], from.States...)
	b.Params, b.Counts, b.Biases = append(b.Params[:0], from.Params...), append(b.Counts[:0], from.Counts...), append(b.Biases[:0], from.Biases...)
}

// MaskWords returns the length of a mask over vocab tokens.
func MaskWords(vocab int) int { return (vocab + 31) / 32 }

// The least capacities of a Batch's arrays that follow from several limits.
func (l Limits) pageDeltas(groups int) int {
	return max(1, groups) * (l.MaxSlots + 2*l.MaxPagesPerSlot + l.MaxTokens/PageTokens)
}
func (l Limits) countDeltas() int { return l.MaxTokens + l.MaxPagesPerSlot*PageTokens }
func (l Limits) biasDeltas() int  { return l.MaxTokens + sample.MaxBiases }

// NewBatch returns an empty Batch in Go memory with the capacities that l and
// the plan's vocabulary, groups and hidden width ask for, for backends that are
// written in Go. hidden is 0 without FeatureEmbeds, and output, the width of a row
// of Outputs, for plans that end in OpLogits.
func NewBatch(l Limits, vocab, groups, hidden, output int) Batch {
	return Batch{
		Tokens:    make([]int32, 0, l.MaxTokens),
		Pos:       make([]int32, 0, l.MaxTokens),
		Axes:      make([]int32, 0, 3*l.MaxTokens),
		Embeds:    make([]float32, 0, l.MaxTokens*hidden),
		Seqs:      make([]Seq, 0, l.MaxSlots),
		Rows:      make([]Row, 0, l.MaxRows),
		Pages:     make([]PageDelta, 0, l.pageDeltas(groups)),
		States:    make([]StateDelta, 0, l.MaxSlots),
		Params:    make([]ParamDelta, 0, l.MaxSlots),
		Counts:    make([]CountDelta, 0, l.countDeltas()),
		Biases:    make([]BiasDelta, 0, l.biasDeltas()),
		Spans:     make([]Span, 0, l.MaxTokens),
		Masks:     make([]uint32, 0, l.MaxSlots*MaskWords(vocab)),
		MaskWords: MaskWords(vocab),
		Results:   make([]RowResult, l.MaxRows),
		Top:       make([]Alternative, l.MaxRows*MaxTopN),
		Outputs:   make([]float32, l.MaxRows*output),
	}
}
