package device

/*
#include <stdlib.h>
#include "millrace.h"

// Go cannot call through C function pointers; these can.
static mr_status mr_call_probe(const mr_backend *b, mr_caps *caps) { return b->probe(caps); }
static mr_status mr_call_open(const mr_backend *b, const mr_limits *l, mr_context **ctx) { return b->open(l, ctx); }
static const char *mr_call_error(const mr_backend *b, mr_context *ctx) { return b->error(ctx); }
static mr_status mr_call_caps(const mr_backend *b, mr_context *ctx, mr_caps *caps) { return b->caps(ctx, caps); }
static mr_status mr_call_tensor_new(const mr_backend *b, mr_context *ctx, const char *name, mr_dtype dtype, int32_t rank, const int64_t *shape, int32_t *handle) {
	return b->tensor_new(ctx, name, dtype, rank, shape, handle);
}
static mr_status mr_call_tensor_write(const mr_backend *b, mr_context *ctx, int32_t handle, int64_t first, int64_t rows, const void *src, int64_t bytes) {
	return b->tensor_write(ctx, handle, first, rows, src, bytes);
}
// The arrays are arguments of their own: a Go struct that held pointers to
// them could not be passed.
static mr_status mr_call_model(const mr_backend *b, mr_context *ctx, mr_plan p, const int32_t *widths, const int32_t *table_len, const float *tables, const mr_op *ops, mr_model_info *info) {
	p.widths = widths;
	p.table_len = table_len;
	p.tables = tables;
	p.ops = ops;
	return b->model(ctx, &p, info);
}
static mr_status mr_call_kv_init(const mr_backend *b, mr_context *ctx, int32_t pages) { return b->kv_init(ctx, pages); }
static mr_batch *mr_call_batch(const mr_backend *b, mr_context *ctx, int32_t i) { return b->batch(ctx, i); }
static mr_status mr_call_forward(const mr_backend *b, mr_context *ctx, int32_t i) { return b->forward(ctx, i); }
static mr_status mr_call_sample(const mr_backend *b, mr_context *ctx, int32_t i) { return b->sample(ctx, i); }
static mr_status mr_call_wait(const mr_backend *b, mr_context *ctx, int32_t i) { return b->wait(ctx, i); }
static void mr_call_close(const mr_backend *b, mr_context *ctx) { b->close(ctx); }
*/
import "C"

import (
	_ "embed"
	"errors"
	"fmt"
	"math"
	"unsafe"

	"github.com/millrace-ai/millrace/engine/plan"
	"github.com/millrace-ai/millrace/engine/sample"
)

// header is in this package's archive so that whoever compiles C against
// millrace.h is built again when it changes: of another package's folder, go
// build watches the archive, not the headers.
//
//go:embed millrace.h
var header string

var _ = header

// The header's limits are this package's and package sample's.
var (
	_ [C.MR_PAGE_TOKENS]byte = [PageTokens]byte{}
	_ [C.MR_RING_DEPTH]byte  = [RingDepth]byte{}
	_ [C.MR_MAX_TOP_N]byte   = [MaxTopN]byte{}
	_ [C.MR_MAX_BIASES]byte  = [sample.MaxBiases]byte{}
	_ [C.MR_MAX_BIAS]byte    = [sample.MaxBias]byte{}
)

// The structs that cross the boundary unconverted have one size on both sides.
var (
	_ [C.sizeof_mr_seq]byte         = [unsafe.Sizeof(Seq{})]byte{}
	_ [C.sizeof_mr_row]byte         = [unsafe.Sizeof(Row{})]byte{}
	_ [C.sizeof_mr_page_delta]byte  = [unsafe.Sizeof(PageDelta{})]byte{}
	_ [C.sizeof_mr_param_delta]byte = [unsafe.Sizeof(ParamDelta{})]byte{}
	_ [C.sizeof_mr_count_delta]byte = [unsafe.Sizeof(CountDelta{})]byte{}
	_ [C.sizeof_mr_bias_delta]byte  = [unsafe.Sizeof(BiasDelta{})]byte{}
	_ [C.sizeof_mr_row_result]byte  = [unsafe.Sizeof(RowResult{})]byte{}
	_ [C.sizeof_mr_alternative]byte = [unsafe.Sizeof(Alternative{})]byte{}
	_ [C.sizeof_mr_params]byte      = [unsafe.Sizeof(sample.Params{})]byte{}
	_ [C.sizeof_mr_op]byte          = [unsafe.Sizeof(plan.Op{})]byte{}
)

// Native is a backend behind the C ABI of millrace.h.
type Native struct {
	table *C.mr_backend
	ctx   *C.mr_context // nil after Close
	caps  Caps
	ring  [RingDepth]nativeBatch
	lost  error // what the backend said when the device went
}

var _ Backend = (*Native)(nil)

// nativeBatch is a ring entry: Go's view of arrays in C memory.
type nativeBatch struct {
	c    *C.mr_batch
	view Batch
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
		{"of page deltas", &l.max_page_deltas, limits.pageDeltas()},
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
	return Caps{Name: C.GoString(&c.name[0]), Detail: C.GoString(&c.detail[0]), Threads: int(c.threads), StepTokens: 256}
}

// nativeError turns a status into an error with the backend's sentence.
func nativeError(t *C.mr_backend, ctx *C.mr_context, status C.mr_status) error {
	sentence := C.GoString(C.mr_call_error(t, ctx))
	if status == C.MR_LOST {
		return fmt.Errorf("%w: %s", ErrLost, sentence)
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

// NewTensor implements Backend.
func (n *Native) NewTensor(name string, dtype DType, shape []int) (Handle, error) {
	if err := n.usable(); err != nil {
		return 0, err
	}
	if dtype < F32 || dtype > BF16 { // no value of the C enumeration
		return 0, fmt.Errorf("%s: tensor %s has element type %v", n.name(), name, dtype)
	}
	cName := C.CString(name)
	defer C.free(unsafe.Pointer(cName))
	dims := make([]C.int64_t, len(shape)+1) // one more: &dims[0] must exist
	for i, d := range shape {
		dims[i] = C.int64_t(d)
	}
	var h C.int32_t
	err := n.check(C.mr_call_tensor_new(n.table, n.ctx, cName, C.mr_dtype(dtype), C.int32_t(len(shape)), &dims[0], &h))
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

// SetModel implements Backend.
func (n *Native) SetModel(p *plan.Plan) (ModelInfo, error) {
	if err := n.usable(); err != nil {
		return ModelInfo{}, err
	}
	var (
		tableLen = make([]int32, 0, len(p.Tables))
		tables   []float32
	)
	for _, t := range p.Tables {
		tableLen = append(tableLen, int32(len(t)))
		tables = append(tables, t...)
	}
	c := C.mr_plan{
		version:   plan.Version,
		vocab:     C.int32_t(p.Vocab),
		hidden:    C.int32_t(p.Hidden),
		layers:    C.int32_t(p.Layers),
		kv_width:  C.int32_t(p.KVWidth),
		n_values:  C.int32_t(len(p.Widths)),
		n_tables:  C.int32_t(len(p.Tables)),
		n_tensors: C.int32_t(len(p.Tensors)),
		n_ops:     C.int32_t(len(p.Ops)),
	}
	var info C.mr_model_info
	err := n.check(C.mr_call_model(n.table, n.ctx, c,
		(*C.int32_t)(unsafe.SliceData(p.Widths)),
		(*C.int32_t)(unsafe.SliceData(tableLen)),
		(*C.float)(unsafe.SliceData(tables)),
		(*C.mr_op)(unsafe.Pointer(unsafe.SliceData(p.Ops))),
		&info))
	return ModelInfo{
		PageBytes:      int64(info.page_bytes),
		WeightBytes:    int64(info.weight_bytes),
		WorkspaceBytes: int64(info.workspace_bytes),
	}, err
}

// InitKV implements Backend.
func (n *Native) InitKV(pages int) error {
	if err := n.usable(); err != nil {
		return err
	}
	if pages < 0 || pages > math.MaxInt32 {
		return fmt.Errorf("%s: %d KV pages", n.name(), pages)
	}
	if err := n.check(C.mr_call_kv_init(n.table, n.ctx, C.int32_t(pages))); err != nil {
		return err
	}
	for i := range n.ring {
		c := C.mr_call_batch(n.table, n.ctx, C.int32_t(i))
		if c == nil {
			return fmt.Errorf("%s: no ring entry %d", n.name(), i)
		}
		n.ring[i] = nativeBatch{c: c, view: viewBatch(c)}
	}
	return nil
}

// cSlice views n elements of C memory as an empty slice that can hold them.
func cSlice[T, E any](p *E, n int) []T { return unsafe.Slice((*T)(unsafe.Pointer(p)), n)[:0] }

func viewBatch(c *C.mr_batch) Batch {
	return Batch{
		Tokens:    cSlice[int32](c.tokens, int(c.cap_tokens)),
		Pos:       cSlice[int32](c.pos, int(c.cap_tokens)),
		Seqs:      cSlice[Seq](c.seqs, int(c.cap_seqs)),
		Rows:      cSlice[Row](c.rows, int(c.cap_rows)),
		Pages:     cSlice[PageDelta](c.pages, int(c.cap_pages)),
		Params:    cSlice[ParamDelta](c.params, int(c.cap_params)),
		Counts:    cSlice[CountDelta](c.counts, int(c.cap_counts)),
		Biases:    cSlice[BiasDelta](c.biases, int(c.cap_biases)),
		Masks:     cSlice[uint32](c.masks, int(c.cap_masks)*int(c.mask_words)),
		MaskWords: int(c.mask_words),
		Results:   cSlice[RowResult](c.results, int(c.cap_rows)),
		Top:       cSlice[Alternative](c.top, int(c.cap_rows)*MaxTopN),
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
	if err := b.setLengths(); err != nil {
		return fmt.Errorf("%s: %w", n.name(), err)
	}
	return n.check(C.mr_call_forward(n.table, n.ctx, C.int32_t(i)))
}

// setLengths tells C how much of each array the engine filled. A slice that
// left its array, by an append past its capacity, is an error: the backend
// would not see it.
func (b *nativeBatch) setLengths() error {
	v, c := &b.view, b.c
	if len(v.Pos) != len(v.Tokens) {
		return fmt.Errorf("%d positions for %d tokens", len(v.Pos), len(v.Tokens))
	}
	ok := setLength(v.Tokens, c.tokens, &c.n_tokens) &&
		setLength(v.Pos, c.pos, &c.n_tokens) &&
		setLength(v.Seqs, c.seqs, &c.n_seqs) &&
		setLength(v.Rows, c.rows, &c.n_rows) &&
		setLength(v.Pages, c.pages, &c.n_pages) &&
		setLength(v.Params, c.params, &c.n_params) &&
		setLength(v.Counts, c.counts, &c.n_counts) &&
		setLength(v.Biases, c.biases, &c.n_biases)
	if !ok {
		return errors.New("a slice of the batch outgrew its capacity")
	}
	v.Results = v.Results[:len(v.Rows)]
	v.Top = v.Top[:len(v.Rows)*MaxTopN]
	return nil
}

// setMasks tells C how many masks there are: -1, which the backend refuses, if
// they are not whole or left their array. Only it can end the batch.
func (b *nativeBatch) setMasks() {
	words := len(b.view.Masks)
	if !setLength(b.view.Masks, b.c.masks, &b.c.n_masks) || words%b.view.MaskWords != 0 {
		b.c.n_masks = -1
		return
	}
	b.c.n_masks = int32C(words / b.view.MaskWords)
}

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
	b.setMasks()
	return n.check(C.mr_call_sample(n.table, n.ctx, C.int32_t(i)))
}

// Wait implements Backend.
func (n *Native) Wait(i int) error {
	if _, err := n.entry("Wait", i); err != nil {
		return err
	}
	return n.check(C.mr_call_wait(n.table, n.ctx, C.int32_t(i)))
}

// Close implements Backend. Batches must not be used afterwards.
func (n *Native) Close() error {
	if n.ctx != nil {
		C.mr_call_close(n.table, n.ctx)
		n.ctx = nil
		n.ring = [RingDepth]nativeBatch{}
	}
	return nil
}
