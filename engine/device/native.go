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
static void mr_call_abandon(const mr_backend *b, mr_context *ctx, int32_t yes) {
	if (b->abandon) b->abandon(ctx, yes);
}
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
)

// Native is a backend behind the C ABI of millrace.h.
type Native struct {
	table *C.mr_backend
	ctx   *C.mr_context // nil after Close
	open  sync.RWMutex  // held while Stats or Abandon, which any goroutine may call, reads ctx
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

// Call calls fn with n's mr_context, for what a library has beside its table of functions.
// fn returns an mr_status; what it is about then is the context's sentence, as for the table.
func (n *Native) Call(fn func(ctx unsafe.Pointer) int32) error {
	if err := n.usable(); err != nil {
		return err
	}
	return n.check(C.mr_status(fn(unsafe.Pointer(n.ctx))))
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
			version:      plan.Version,
			vocab:        C.int32_t(p.Vocab),
			embeds_width: C.int32_t(p.RowWidth()),
			n_values:     C.int32_t(len(p.Values)),
			n_tables:     C.int32_t(len(p.Tables)),
			n_tensors:    C.int32_t(len(p.Tensors)),
			n_caches:     C.int32_t(len(p.Caches)),
			n_groups:     C.int32_t(len(p.Groups)),
			n_ops:        C.int32_t(len(p.Ops)),
			n_draft:      C.int32_t(len(p.Draft)),
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
		n.ring[i].hidden = p.RowWidth()
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
	b.view.DraftTime, b.view.FurtherDraftTime = time.Duration(b.c.draft_ns), time.Duration(b.c.further_draft_ns)
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

// Abandon implements Backend. It does nothing after Close.
func (n *Native) Abandon(yes bool) {
	n.open.RLock()
	defer n.open.RUnlock()
	if n.ctx == nil {
		return
	}
	flag := int32C(0)
	if yes {
		flag = 1
	}
	C.mr_call_abandon(n.table, n.ctx, flag)
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
