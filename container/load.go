package main

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/millrace-ai/millrace/engine"
	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/grammar"
	"github.com/millrace-ai/millrace/engine/loader"
	"github.com/millrace-ai/millrace/engine/page"
	"github.com/millrace-ai/millrace/engine/token"
	"github.com/millrace-ai/millrace/handler"
	"github.com/millrace-ai/millrace/handler/chat"
)

// loadedModel is everything that is there to serve a model.
type loadedModel struct {
	engine    *engine.Replicas
	replicas  []replica // that engine is made of
	sees      bool      // it reads images
	tokenizer *token.Tokenizer
	template  *chat.Template
	compiler  lazyCompiler
	sampling  handler.SamplingDefaults

	name     string // as answers call it
	place    string // where it is from, "" for the one built in
	caps     device.Caps
	info     device.ModelInfo
	weights  uint64 // tells the weights from others; 0: nobody asked
	budget   budget
	request  int64 // bytes that requests may hold in the API
	images   int64 // bytes that rows of images may take
	adapters int64 // bytes that LoRA adapters may take
	grammars int   // bytes that their grammars may take
	tokens   int   // that the cache holds
	slots    int
	family   string
	seconds  float64 // to load
}

// load makes the model ready. The caller runs the engine and closes the
// backend.
func (s *server) load(ctx context.Context) (*loadedModel, error) {
	start := time.Now()
	if s.model == nil { // it comes through this process's memory
		defer eagerGC()()
		if err := s.openModel(ctx); err != nil {
			return nil, err
		}
	}
	// The tokenizer needs one core for a while, the weights disk or network.
	type result struct {
		tokenizer *token.Tokenizer
		template  *chat.Template
		err       error
	}
	text := make(chan result, 1)
	go func() {
		var r result
		if r.tokenizer, r.err = s.model.loadTokenizer(); r.err == nil {
			r.template, r.err = s.model.loadTemplate()
		}
		if r.err == nil {
			r.template.SetSpecial(specialTokens(r.tokenizer))
		}
		if r.err == nil && s.cfg.EscapeSpecialTokens {
			r.err = r.template.Escape(r.tokenizer.Special())
		}
		s.phases.mark("tokenizer")
		text <- r
	}()

	if err := s.checkMemory(); err != nil {
		return nil, err
	}
	prefixes := s.openPrefixes(ctx)
	l := &loadedModel{name: s.name(), place: s.place, slots: s.cfg.Replicas * s.sizing.device.MaxSlots, family: s.model.plan.Family}
	if err := s.openReplicas(l); err != nil {
		return nil, err
	}
	s.sizing.images = l.sees
	var into weighed
	backend := l.models()
	if into.Backend = backend; s.weigh || s.cfg.PrefixCacheFile != "" {
		backend = &into
	}
	err := s.loadWeights(l, backend, func(done, total int64) {
		s.api.SetPending(fmt.Sprintf("loading weights, %d %% done", 100*done/max(1, total)))
	})
	l.weights = into.sum
	s.phases.mark("weights")
	if err == nil && s.model.checkpoint.Streamed() { // what the plan was made without
		s.model.config, err = loader.Config(s.model.checkpoint)
	}
	if err == nil {
		err = s.loadSampling(l)
	}
	if err == nil { // else the tokenizer may be minutes away, at an archive's end
		r := <-text
		l.tokenizer, l.template, err = r.tokenizer, r.template, r.err
	}
	if err == nil {
		err = s.finishVision(l)
	}
	if err == nil {
		l.compiler.make = func() (*grammar.Compiler, error) {
			c, err := grammar.NewCompiler(l.tokenizer, s.model.plan.Vocab, s.model.config.EOS)
			if err == nil {
				c.SetMemory(l.grammars)
				c.OnUntried(s.warnUntried)
			}
			return c, err
		}
		err = s.newEngine(l)
	}
	if err != nil {
		l.close()
		return nil, err
	}
	s.restorePrefixes(l, prefixes())
	l.seconds = time.Since(start).Seconds()
	return l, s.model.checkpoint.Close()
}

// close closes the backends. The engines must have returned from Run.
func (l *loadedModel) close() {
	for _, r := range l.replicas {
		r.backend.Close()
		if r.tower != nil {
			r.tower.Close()
		}
	}
}

// loadSampling reads what the model's makers recommend. What is wrong about it
// does not keep it from serving the model.
func (s *server) loadSampling(l *loadedModel) error {
	if s.cfg.GenerationConfig != "auto" {
		return nil
	}
	generation, err := s.model.checkpoint.Generation()
	if err != nil {
		return err
	}
	if l.sampling, err = handler.ParseSamplingDefaults(generation); err != nil {
		s.log.Warn(err.Error())
	}
	return nil
}

// checkMemory refuses weights that do not fit into memory, before they are
// loaded: the kernel would end the process without a word.
func (s *server) checkMemory() error {
	need, err := loader.WeightBytes(s.model.plan, s.model.checkpoint)
	if err != nil {
		return err
	}
	if see := s.model.seeing; see != nil {
		tower, err := loader.WeightBytes(see.tower.Plan, s.model.checkpoint)
		if err != nil {
			return err
		}
		need += tower
	}
	free, bound, err := deviceMemory(s.cfg, s.memory, device.ModelInfo{})
	if err != nil {
		return err
	}
	if need > free {
		return fmt.Errorf("not enough memory for the weights of %s: they take %s, the %s has %s left", s.name(), size(need), bound, size(free))
	}
	return nil
}

// newEngine reserves the caches and makes the engines.
func (s *server) newEngine(l *loadedModel) (err error) {
	free, _, err := availableMemory(os.DirFS("/"), s.memory, l.info.MappedBytes)
	if err != nil {
		return err
	}
	room, bound, err := deviceMemory(s.cfg, s.memory, l.info)
	if err != nil {
		return err
	}
	if l.budget, err = s.sizing.fit(l.info, room, bound); err != nil {
		return err
	}
	if s.cfg.MaxTotalTokens == 0 && l.budget.maxTotal < s.sizing.total {
		s.log.Warn("the context is cut to what the memory allows: free some, or give the cache more with --max-batch-total-tokens",
			"max_total_tokens", l.budget.maxTotal, "model_tokens", s.sizing.total,
			"full_cache", size(int64(s.sizing.pages(s.sizing.total))*l.info.PageBytes), "free", size(room))
	}
	l.tokens = len(l.replicas) * s.sizing.tokens(l.budget.pages)
	l.request = s.sizing.requestMemory(free)
	l.adapters = s.sizing.adapterMemory(room)
	l.images = s.sizing.imageMemory(free)
	l.grammars = int(s.sizing.grammarMemory(free))
	limitHeap(l.request, l.images)
	var engines []*engine.Engine
	for i := range l.replicas {
		e, err := s.newReplicaEngine(l, &l.replicas[i])
		if err != nil {
			return err
		}
		engines = append(engines, e)
	}
	l.engine = engine.NewReplicas(engines)
	return nil
}

// newReplicaEngine reserves a replica's caches and makes its engine.
func (s *server) newReplicaEngine(l *loadedModel, r *replica) (*engine.Engine, error) {
	images := l.images / int64(len(l.replicas))
	var err error
	r.engine, err = engine.New(engine.Config{
		Backend:        r.backend,
		Device:         s.sizing.device,
		Plan:           s.model.plan,
		Pages:          l.budget.pages,
		States:         l.budget.states,
		Memory:         engineBytes + images, // for what is to be encoded
		Vision:         r.engineVision(s.model.seeing, images),
		EOS:            s.model.config.EOS,
		Root:           page.Root(page.Field{Tag: page.TagModel, Value: []byte(s.model.checkpoint.Source())}, page.Field{Tag: page.TagKVType, Value: []byte(s.model.plan.CacheFormat().String())}),
		MaxInput:       l.budget.maxInput,
		MaxTotal:       l.budget.maxTotal,
		MaxWaiting:     s.cfg.MaxConcurrentRequests,
		MaxBatchTokens: s.cfg.MaxBatchPrefillTokens,
		Speculate:      s.cfg.Speculate,
		NoPrefixCache:  !s.cfg.PrefixCaching,
		Observer:       s.api.Metrics(),
		Compiler:       func() (engine.Compiler, error) { return l.compiler.get() },
	})
	return r.engine, err
}

// eagerGC has Go collect garbage eagerly, until restore is called, unless GOGC is
// lower or off: what gathers while a model arrives is beside all of its weights,
// just when a function or container takes most memory.
func eagerGC() (restore func()) {
	const percent = 25
	before := debug.SetGCPercent(percent)
	if before < percent {
		debug.SetGCPercent(before)
	}
	return func() { debug.SetGCPercent(before) }
}

// limitHeap has Go collect garbage more eagerly when its heap has taken all that
// is kept for requests, unless GOMEMLIMIT says something else. Weights and caches
// are not on that heap, nor is the half of the requests' memory that tokenizing
// takes.
func limitHeap(requests, images int64) {
	if debug.SetMemoryLimit(-1) != math.MaxInt64 {
		return
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	debug.SetMemoryLimit(int64(m.Sys-m.HeapReleased) + engineBytes + 2*images + otherBytes + requests/2)
}

// describe returns what the log says about a loaded model. The target is for
// automatic scaling by concurrent requests: with three tenths of the slots free
// a burst is computed at once, and there is time to start another instance.
func (l *loadedModel) describe() []any {
	limits := l.engine.Limits()
	thousandths := func(v float64) float64 { return math.Round(v*1000) / 1000 }
	fields := []any{
		"model", l.name, "source", cmp.Or(l.place, "built in"),
		"family", l.family, "weights", size(l.info.WeightBytes), "bytes", l.info.WeightBytes,
		"seconds", thousandths(l.seconds), "gb_per_second", thousandths(float64(l.info.WeightBytes) / 1e9 / max(l.seconds, 1e-9)),
		"device", l.caps.Name, "detail", l.hardware(), "threads", l.caps.Threads,
		"kv_tokens", l.tokens, "kv_cache", size(int64(len(l.replicas)) * (int64(l.budget.pages)*l.info.PageBytes + int64(l.budget.states)*l.info.StateBytes)),
		"request_memory", size(l.request), "slots", l.slots, "max_total_tokens", limits.MaxTotal, "max_input_tokens", limits.MaxInput,
	}
	if n := len(l.replicas); n > 1 {
		fields = append(fields, "replicas", n)
	}
	if l.images > 0 {
		fields = append(fields, "image_memory", size(l.images))
	}
	if os.Getenv(runtimeAPI) == "" { // Lambda scales by itself
		fields = append(fields, "autoscaling_target", max(1, l.slots*7/10))
	}
	return fields
}

// specialTokens returns the ids of special tokens by their spelling.
func specialTokens(t *token.Tokenizer) map[string]int32 {
	ids := map[string]int32{}
	for _, spelling := range t.Special() {
		if id, ok := t.ID(spelling); ok {
			ids[spelling] = id
		}
	}
	return ids
}
