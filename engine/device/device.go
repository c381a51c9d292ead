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
// What stays on the device between steps, per slot: the page table, the last
// sampled token, the sampling parameters, the logit biases and the token counts
// that penalties need. A Batch carries only what changed.
//
// KV memory is counted in pages of PageTokens tokens. The backend knows
// nothing of sharing: the engine decides which page belongs to whom.
//
// Implementations: engine/cpu (C++, through Native), engine/ref (float32 Go,
// the oracle), engine/sim (virtual time and faults). All of them run the
// conformance suite in engine/device/backendtest.
package device

import (
	"errors"
	"fmt"

	"github.com/millrace-ai/millrace/engine/plan"
	"github.com/millrace-ai/millrace/engine/sample"
)

// PageTokens is the number of tokens whose keys and values share a KV page.
const PageTokens = 16

// RingDepth is the number of Batches a backend owns: one runs, one is being
// filled, one is being read.
const RingDepth = 3

// MaxTopN bounds the alternatives a row can return, ties included.
const MaxTopN = 32

// LastToken in Batch.Tokens means: the token most recently sampled for this
// sequence's slot, which the host may not have seen yet.
const LastToken int32 = -1 << 31

// ErrLost says that the device is gone: no later call can succeed and every
// open request must be failed. Backends wrap it with the reason.
var ErrLost = errors.New("device lost")

// DType is an element type as checkpoints name it.
type DType int32

// Element types. The values are part of the C ABI.
const (
	F32 DType = iota
	F16
	BF16
)

// Size returns the bytes of one element.
func (d DType) Size() int {
	if d == F32 {
		return 4
	}
	return 2
}

func (d DType) String() string {
	switch d {
	case F32:
		return "F32"
	case F16:
		return "F16"
	case BF16:
		return "BF16"
	}
	return fmt.Sprintf("DType(%d)", int32(d))
}

// Handle names a tensor inside a backend; plan.Op refers to tensors by their
// index in plan.Plan.Tensors, and the loader creates them in that order, so
// handle and index are equal.
type Handle int32

// Caps says what a backend is and can do.
type Caps struct {
	Name    string // "cpu", "ref", "sim", "cuda"
	Detail  string // for the log: instruction set, GPU name
	Threads int    // worker threads, 0 when that means nothing

	// LaunchDepth is how many steps the engine should launch ahead of the one
	// whose results it waits for: 0 where a step takes long beside what the host
	// does between two, 1 where the device would wait for the host.
	LaunchDepth int
	// StepTokens is how many tokens a step should have to keep the device busy.
	StepTokens int
}

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
	PageBytes      int64 // KV bytes of one page over all layers
	WeightBytes    int64 // resident weight bytes
	WorkspaceBytes int64 // activations and tables
}

// Backend computes. One goroutine at a time may call it (the loader, then the
// engine's loop); Stats alone may be called from any.
type Backend interface {
	Caps() Caps

	// NewTensor announces the next tensor of the plan, h = 0, 1, 2 …, a
	// row-major matrix [rows, cols] or a vector [n].
	NewTensor(name string, dtype DType, shape []int) (Handle, error)

	// WriteTensor gives n whole rows beginning at row first; a vector is one
	// row. src is only read during the call. Any order, each row once.
	WriteTensor(h Handle, first, n int, src []byte) error

	// SetModel takes the op plan once all tensors are written.
	SetModel(p *plan.Plan) (ModelInfo, error)

	// InitKV reserves pages KV pages, numbered 0 … pages-1, and the ring.
	InitKV(pages int) error

	// Batch returns ring entry i, 0 ≤ i < RingDepth. Valid after InitKV.
	Batch(i int) *Batch

	// Forward enqueues the forward pass of ring entry i: applies its deltas,
	// writes keys and values, keeps the hidden rows that Sample needs.
	Forward(i int) error

	// Sample enqueues logits and sampling for the rows of ring entry i; must
	// follow Forward(i), with no other Forward between them. An error ends the
	// Batch: there is nothing to wait for.
	Sample(i int) error

	// Wait blocks until Sample(i) is done and its results can be read; later
	// entries may be anywhere on their way. An error that wraps ErrLost is
	// final; any other failed this Batch alone.
	Wait(i int) error

	// Close frees everything. No call may be in flight.
	Close() error
}

// RowKind says what a logit row is for.
type RowKind int32

// Row kinds. The values are part of the C ABI.
const (
	RowSample RowKind = iota // choose a token with the slot's parameters
	RowScore                 // log-probability of Row.Target under the raw logits
)

// Row asks for the logits behind one token of the Batch. C layout.
type Row struct {
	Token  int32   // index into Batch.Tokens
	Slot   int32   // whose parameters and counts apply
	Kind   RowKind //
	Target int32   // RowScore: the token to score
	Index  int32   // RowSample: index of the token to come among the generated ones; keys the random draw
	TopN   int32   // alternatives wanted, 0 … MaxTopN
	Mask   int32   // RowSample: 1 + index of its mask in Batch.Masks, 0: none
}

// Seq is one sequence's share of a Batch. It goes on where the last one of its
// slot ended or, if nothing was sampled there, computes the last token again.
// C layout.
type Seq struct {
	Slot  int32
	Start int32 // first token in Batch.Tokens; the tokens of a sequence are consecutive
	Count int32 // number of tokens
	KVLen int32 // tokens in the cache once this step is done: position of the last token + 1
}

// PageDelta sets entry Index of a slot's page table. C layout.
type PageDelta struct{ Slot, Index, Page int32 }

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

// RowResult answers one Row. C layout.
type RowResult struct {
	Token    int32   // RowSample: the choice; RowScore: Target
	Logprob  float32 // natural log, of Token
	TopCount int32   // valid entries of the row's Top
	Invalid  int32   // 1: the logits held NaN or no finite value; Token is meaningless
}

// Alternative is one entry of a row's top list. C layout.
type Alternative struct {
	Token   int32
	Logprob float32
}

// Batch is one step's work and its results: arrays of fixed capacity in the
// backend's memory and the count in use of each. The engine writes the inputs
// before Forward(i) and may not touch the Batch again until Wait(i) returned,
// with one exception: until Sample(i) it may set Kind, Target and Mask of the
// rows, and Masks, which Forward does not read. So it can wait for step i and
// work out what step i+1 may choose while the forward pass of i+1 runs.
type Batch struct {
	// Inputs, least capacity in brackets. The engine sets the length and
	// stays within cap: what does not fit waits for the next step.
	Tokens []int32      // [MaxTokens] token ids or LastToken
	Pos    []int32      // [MaxTokens] position of each token in its sequence
	Seqs   []Seq        // [MaxSlots]
	Rows   []Row        // [MaxRows] RowSample at most once per sequence
	Pages  []PageDelta  // [MaxSlots + 2*MaxPagesPerSlot + MaxTokens/PageTokens]
	Params []ParamDelta // [MaxSlots]
	Counts []CountDelta // [MaxTokens + MaxPagesPerSlot*PageTokens]
	Biases []BiasDelta  // [MaxTokens + sample.MaxBiases]

	// Masks say which tokens a row may choose: mask m is the MaskWords words
	// from m*MaskWords on, and token id is allowed if bit id%32 of its word
	// id/32 is set. Bits beyond the vocabulary mean nothing.
	Masks     []uint32 // [MaxSlots*MaskWords], a length of whole masks
	MaskWords int      // words of one mask; set by the backend

	// Results, valid after Wait.
	Results []RowResult   // [MaxRows], one per row
	Top     []Alternative // [MaxRows*MaxTopN], row r at r*MaxTopN, best first
}

// Mask returns the mask that Row.Mask = m names, nil for 0.
func (b *Batch) Mask(m int32) []uint32 {
	if m == 0 {
		return nil
	}
	return b.Masks[int(m-1)*b.MaskWords:][:b.MaskWords]
}

// MaskWords returns the length of a mask over vocab tokens.
func MaskWords(vocab int) int { return (vocab + 31) / 32 }

// The least capacities of a Batch's arrays that follow from several limits.
func (l Limits) pageDeltas() int  { return l.MaxSlots + 2*l.MaxPagesPerSlot + l.MaxTokens/PageTokens }
func (l Limits) countDeltas() int { return l.MaxTokens + l.MaxPagesPerSlot*PageTokens }
func (l Limits) biasDeltas() int  { return l.MaxTokens + sample.MaxBiases }

// NewBatch returns an empty Batch in Go memory with the capacities that l and
// the size of the vocabulary ask for, for backends that are written in Go.
func NewBatch(l Limits, vocab int) Batch {
	return Batch{
		Tokens:    make([]int32, 0, l.MaxTokens),
		Pos:       make([]int32, 0, l.MaxTokens),
		Seqs:      make([]Seq, 0, l.MaxSlots),
		Rows:      make([]Row, 0, l.MaxRows),
		Pages:     make([]PageDelta, 0, l.pageDeltas()),
		Params:    make([]ParamDelta, 0, l.MaxSlots),
		Counts:    make([]CountDelta, 0, l.countDeltas()),
		Biases:    make([]BiasDelta, 0, l.biasDeltas()),
		Masks:     make([]uint32, 0, l.MaxSlots*MaskWords(vocab)),
		MaskWords: MaskWords(vocab),
		Results:   make([]RowResult, l.MaxRows),
		Top:       make([]Alternative, l.MaxRows*MaxTopN),
	}
}
