package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/alecthomas/kong"

	"github.com/millrace-ai/millrace/container/config"
	"github.com/millrace-ai/millrace/container/source"
	"github.com/millrace-ai/millrace/engine/cpu"
	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/loader"
	"github.com/millrace-ai/millrace/engine/plan"
	"github.com/millrace-ai/millrace/engine/weights"
)

// inspectCommand is the command that describes a model without loading it.
type inspectCommand struct {
	Model string `arg:"" optional:"" help:"The model, as for serve; of one on the hub only the headers of the weights are read. Default: the built-in demo model."`
	JSON  bool   `name:"json" help:"Print JSON."`

	Quantize string `default:"none" placeholder:"int8|int4" help:"As of serve: what the model would take so."`
}

// Run prints the description.
func (c *inspectCommand) Run(interrupted context.Context, ctx *kong.Context) error {
	place, err := locateModel(c.Model)
	if err != nil {
		return usageError{err}
	}
	cfg, _, _, err := parseServe(nil, nil) // the flags' defaults
	if err != nil {
		return err
	}
	cfg.Quantize = c.Quantize
	d, err := describeModel(interrupted, place, cfg)
	if err != nil {
		return usageError{err}
	}
	if c.JSON {
		return printJSON(d)
	}
	return d.write(ctx.Stdout)
}

// description is what is known of a model before it is loaded.
type description struct {
	Name       string        `json:"name"`
	Source     string        `json:"source"`
	Family     string        `json:"family"`
	Models     string        `json:"family_models"`            // that people know of the family
	Remarks    string        `json:"family_remarks,omitempty"` // what is to know of it
	Tested     []string      `json:"family_tested"`            // checkpoints on which it is compared with transformers
	Parameters int64         `json:"parameters"`               // stored in the checkpoint
	Formats    []formatBytes `json:"formats"`
	Weights    int64         `json:"weight_bytes"` // once loaded
	Context    int           `json:"context_tokens"`
	PerToken   int64         `json:"kv_bytes_per_token"` // of a long sequence
	State      int64         `json:"state_bytes"`        // of recurrent layers, per sequence
	DraftHead  bool          `json:"draft_head"`         // it has a head of its own for --speculate
	Threads    int           `json:"threads"`

	Free    int64  `json:"free_bytes"`
	Bound   string `json:"bound_by"`
	Fits    bool   `json:"fits"`
	Problem string `json:"problem,omitempty"` // why it does not
	// With the memory that is free now:
	MaxTotalTokens int `json:"max_total_tokens,omitempty"`
	MaxInputTokens int `json:"max_input_tokens,omitempty"`
	CacheTokens    int `json:"kv_cache_tokens,omitempty"`

	sizing *sizing
}

// formatBytes is what the tensors of one format take in the checkpoint.
type formatBytes struct {
	Format string `json:"format"`
	Bytes  int64  `json:"bytes"`
}

// describeModel opens the model at a place and works out what serving it with
// cfg would take.
func describeModel(ctx context.Context, place string, cfg *config.Serve) (*description, error) {
	free, bound, err := deviceMemory(cfg, 0, device.ModelInfo{})
	if err != nil {
		return nil, err
	}
	m, err := openModel(ctx, source.OpenHeaders, place, cfg, free)
	if err != nil {
		return nil, err
	}
	defer m.checkpoint.Close()
	about := plan.About(m.plan.Family)
	d := &description{Name: modelName(place), Source: place, Family: about.Type, Models: about.Models, Remarks: about.Remarks, Tested: about.Tested, Context: m.plan.MaxPos, Free: free, Bound: bound, Threads: cfg.Threads}
	if place == "" {
		d.Source = "built in"
	}
	if d.Threads == 0 {
		caps, err := cpu.Probe()
		if err != nil {
			return nil, err
		}
		d.Threads = caps.Threads
	}
	d.countTensors(m.checkpoint, m.plan)
	if _, p, err := loader.Plan(m.checkpoint, true); err == nil {
		d.DraftHead = len(p.Draft) > 0 && loader.Check(p, m.checkpoint) == nil
	}
	m.plan.SetCacheFormat(cacheFormats[cfg.KVCacheDtype])
	info, err := estimate(m.plan, m.checkpoint)
	if err != nil {
		return nil, err
	}
	d.Weights, d.State = info.WeightBytes, info.StateBytes
	if d.sizing, err = newSizing(cfg, m.plan); err != nil {
		return nil, err
	}
	d.PerToken = info.PageBytes * int64(d.sizing.pages(m.plan.MaxPos)) / int64(max(1, m.plan.MaxPos))
	if d.Weights > free {
		err = fmt.Errorf("the weights take %s, the %s has %s left", size(d.Weights), bound, size(free))
	} else {
		var b budget
		if b, err = d.sizing.fit(info, free-d.Weights, bound); err == nil {
			d.MaxTotalTokens, d.MaxInputTokens, d.CacheTokens = b.maxTotal, b.maxInput, d.sizing.tokens(b.pages)
		}
	}
	d.Fits = err == nil
	if err != nil {
		d.Problem = err.Error()
	}
	return d, nil
}

// countTensors counts parameters and bytes, the commonest format first.
func (d *description) countTensors(c *weights.Checkpoint, p *plan.Plan) {
	bytes := map[string]int64{}
	for _, name := range c.Names() {
		t, ok := c.Tensor(name)
		if !ok {
			continue
		}
		n := int64(1)
		for _, dim := range t.Shape {
			n *= int64(dim)
		}
		d.Parameters += n
		bytes[strings.ToLower(t.DType)] += t.Size
	}
	if p.Stored.Method != "" { // tensors hold codes, and what belongs to them
		d.Parameters = parameters(p)
	}
	for format, n := range bytes {
		d.Formats = append(d.Formats, formatBytes{format, n})
	}
	slices.SortFunc(d.Formats, func(a, b formatBytes) int {
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(a.Format, b.Format))
	})
}

// parameters counts those that a plan takes from a checkpoint.
func parameters(p *plan.Plan) (total int64) {
	seen := map[string]bool{}
	for _, t := range p.Tensors {
		for _, part := range t.Parts {
			if name := fmt.Sprint(part.Name, part.Quarter); !seen[name] {
				seen[name] = true
				n := int64(1)
				for _, dim := range part.Shape {
					n *= int64(dim)
				}
				total += n
			}
		}
	}
	return total
}

// Caches whose format is the backend's to choose are float32 if the weights are, or if a
// token takes no more than this.
const exactCacheBytes = 8 << 10

// estimate is what the CPU backend says of a model once it is loaded, or a little
// less: the backend rounds rows up to whole panels.
func estimate(p *plan.Plan, c *weights.Checkpoint) (info device.ModelInfo, err error) {
	if info.WeightBytes, err = loader.WeightBytes(p, c); err != nil {
		return info, err
	}
	half := slices.ContainsFunc(c.Names(), func(name string) bool {
		t, _ := c.Tensor(name)
		return t.DType != "F32"
	})
	token := int64(0) // elements of a token
	for i := range p.Caches {
		cache := &p.Caches[i]
		if cache.Kind == plan.CacheState {
			info.StateBytes += 4 * int64(cache.Elements())
			continue
		}
		token += int64(cache.Elements())
	}
	format := p.CacheFormat()
	if format == plan.F32 && half && 4*token > exactCacheBytes {
		format = plan.F16
	}
	groups := make([]int64, len(p.Groups)) // bytes of a token
	for i := range p.Caches {
		if cache := &p.Caches[i]; cache.Kind != plan.CacheState {
			groups[cache.Group] += int64(cache.Bytes(format))
		}
	}
	for _, bytes := range groups {
		info.PageBytes = max(info.PageBytes, bytes*device.PageTokens)
	}
	return info, nil
}

// write prints the description as a table.
func (d *description) write(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) {
		fmt.Fprintf(w, "%s\t%s\n", name, fmt.Sprintf(format, args...))
	}
	row("model", "%s", d.Name)
	row("source", "%s", config.HideSecrets(d.Source))
	row("family", "%s: %s", d.Family, d.Models)
	if d.Remarks != "" {
		row("", "%s", d.Remarks)
	}
	row("tested", "compared with transformers on %s", strings.Join(d.Tested, ", "))
	row("parameters", "%s", count(d.Parameters))
	var formats []string
	for _, f := range d.Formats {
		formats = append(formats, fmt.Sprintf("%s %s", size(f.Bytes), f.Format))
	}
	row("checkpoint", "%s", strings.Join(formats, ", "))
	row("weights", "%s in memory", size(d.Weights))
	row("context", "%d tokens", d.Context)
	if d.PerToken > 0 {
		row("key-value cache", "%s per token, %s for a full context", size(d.PerToken), size(d.PerToken*int64(d.Context)))
	}
	if d.State > 0 {
		row("state", "%s per request", size(d.State))
	}
	if d.DraftHead {
		row("drafts", "a head for --speculate (MTP), loaded with it alone")
	}
	row("memory", "%s free, bounded by the %s", size(d.Free), d.Bound)
	if !d.Fits {
		row("fits", "no: %s", d.Problem)
		return w.Flush()
	}
	row("fits", "yes: requests of up to %d tokens, a cache of %d", d.MaxTotalTokens, d.CacheTokens)
	if d.MaxTotalTokens < d.Context {
		row("", "(the context is cut to what the memory allows)")
	}
	return w.Flush()
}

// count writes a number of parameters as model names do.
func count(n int64) string {
	switch {
	case n >= 1e9:
		return fmt.Sprintf("%.2fB", float64(n)/1e9)
	case n >= 1e6:
		return fmt.Sprintf("%.1fM", float64(n)/1e6)
	}
	return fmt.Sprintf("%.1fK", float64(n)/1e3)
}
