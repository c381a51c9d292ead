package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/page"
	"github.com/millrace-ai/millrace/engine/sample"
	"github.com/millrace-ai/millrace/engine/sim"
	"github.com/millrace-ai/millrace/engine/vision"
)

// seeing is a model with images.
var seeing = sim.Model{Seed: 1, Vocab: 500, First: 4, EOS: 2, Hidden: paintingWidth}

// newGalleryWorld makes a world whose model reads images.
func newGalleryWorld(t *testing.T, change func(c *Config, p *painter)) *world {
	t.Helper()
	p := &painter{}
	cfg := Config{Device: device.Limits{MaxTokens: 80, MaxRows: 80, MaxSlots: 4, MaxPagesPerSlot: 16}, Pages: 64, MaxBatchTokens: 16}
	cfg.Vision = p.vision(1<<20, vision.WithinImage)
	if change != nil {
		change(&cfg, p)
	}
	return newWorld(t, cfg, sim.Config{Model: seeing, Latency: func(n int) time.Duration { return time.Duration(n) * time.Millisecond }})
}

// look asks about paintings: each in its place, in a prompt of n tokens.
func look(n int, at map[int]*painting) *Request {
	r := &Request{Tokens: tokens(9, n), MaxNewTokens: 8, Params: sample.Greedy()}
	for i := range r.Tokens {
		r.Tokens[i] = max(r.Tokens[i], imageToken+1)
	}
	for place := range n {
		if p := at[place]; p != nil {
			hang(r, p, place)
		}
	}
	return r
}

// A second turn about an image runs no tower and computes what is new.
func TestSecondTurnAboutAnImage(t *testing.T) {
	w := newGalleryWorld(t, nil)
	p := paint(1, 40, true, false)
	first, err := w.submit(look(100, map[int]*painting{10: &p}))
	if err != nil {
		t.Fatal(err)
	}
	w.finish(t)
	again := *first.req
	for _, token := range first.got {
		again.Tokens = append(slices.Clone(again.Tokens), token.ID)
	}
	again.Tokens = append(again.Tokens, 50, 51, 52, 53)
	w.steps = nil
	second, err := w.submit(&again)
	if err != nil {
		t.Fatal(err)
	}
	w.finish(t)
	computed := 0
	for _, n := range w.steps {
		computed += n
	}
	if computed -= len(second.got) - 1; w.painter.runs != 1 || computed > 32 {
		t.Errorf("the encoder ran %d times, %d tokens of the second prompt were computed", w.painter.runs, computed)
	}
	if s := w.e.Stats(); s.ImagesEncoded != 1 || s.ImagesCached != 1 {
		t.Errorf("%d images encoded, %d cached", s.ImagesEncoded, s.ImagesCached)
	}
}

// Two images in one place share no page, and one image in two places shares its rows.
func TestImagesShareByContent(t *testing.T) {
	w := newGalleryWorld(t, nil)
	a, b := paint(1, 40, false, false), paint(2, 40, false, false)
	for _, tt := range []struct {
		p            *painting
		place        int
		cached, runs int
	}{
		{&a, 8, 0, 1},
		{&b, 8, 0, 2},
		{&a, 8, 96, 2},
		{&a, 9, 0, 2},
		{&b, 8, 96, 2},
	} {
		c, err := w.submit(look(100, map[int]*painting{tt.place: tt.p}))
		if err != nil {
			t.Fatal(err)
		}
		w.finish(t)
		if got := c.stream.times.CachedTokens; got != tt.cached || w.painter.runs != tt.runs {
			t.Errorf("%d tokens were cached, want %d; the encoder ran %d times, want %d", got, tt.cached, w.painter.runs, tt.runs)
		}
	}
}

// A span is computed in one step, however small the steps are, and a hit does not end
// within one.
func TestSpansAreNotCut(t *testing.T) {
	for _, bidirectional := range []vision.Bidirectional{vision.Causal, vision.WithinImage, vision.WholePrompt} {
		w := newGalleryWorld(t, func(c *Config, _ *painter) {
			c.Vision.Bidirectional, c.Device.MaxTokens, c.Device.MaxRows = bidirectional, 160, 160
		})
		p, q := paint(1, 40, false, false), paint(2, 33, false, false)
		longest := 0
		w.onStep = func(st *step) { longest = max(longest, len(st.batch.Tokens)) }
		reader := w.ask(t, tokens(1, 20), 60)
		for _, n := range []int{150, 50, 150} { // the second prompt ends with the image
			at := map[int]*painting{10: &p}
			if n == 150 {
				at[90] = &q
			}
			if _, err := w.submit(look(n, at)); err != nil {
				t.Fatal(err)
			}
		}
		w.finish(t)
		if len(reader.got) != 60 || (longest > w.e.budget) != (bidirectional != vision.Causal) {
			t.Errorf("bidirectional %d: steps of up to %d tokens, the budget is %d", bidirectional, longest, w.e.budget)
		}
	}
}

// What no step and no memory has room for is refused with the flag that helps.
func TestImagesRefused(t *testing.T) {
	p, large := paint(1, 40, false, false), paint(2, 78, false, false)
	for _, tt := range []struct {
		name   string
		config func(c *Config, p *painter)
		change func(r *Request)
		says   string
	}{
		{name: "a span longer than a step", change: func(r *Request) { r.Images = nil; hang(r, &large, 4) }, says: "78 tokens of the prompt attend both ways, so that one step must compute them, the limit is 77: --max-batch-prefill-tokens"},
		{name: "more memory than there is", config: func(c *Config, _ *painter) { c.Vision.Memory = 639 }, says: "the images take 640 bytes of memory, the limit is 639 (--image-memory)", change: func(*Request) {}},
		{name: "no vision", config: func(c *Config, _ *painter) { c.Vision = nil }, says: "the model reads no images", change: func(*Request) {}},
		{name: "scores", config: func(c *Config, _ *painter) { c.Vision.Bidirectional, c.Device.MaxTokens = vision.WholePrompt, 160 }, change: func(r *Request) { r.PromptLogprobs = true }, says: "cannot be scored"},
		{name: "beyond the prompt", change: func(r *Request) { r.Images[0].First = 70 }, says: "image 0 has 40 tokens from 70 on of 100"},
		{name: "overlapping", change: func(r *Request) { r.Images = append(r.Images, r.Images[0]) }, says: "image 1 has 40 tokens from 4 on of 100, expected to begin at 44"},
		{name: "text at its end", change: func(r *Request) { r.Images[0].Count++ }, says: "does not begin and end with an image token"},
		{name: "a wrong grid", change: func(r *Request) { r.Images[0].Grid = [3]int{1, 5, 7} }, says: "its grid is [1 5 7]"},
		{name: "a negative grid", change: func(r *Request) { r.Images[0].Grid = [3]int{-1, -5, 8} }, says: "its grid is [-1 -5 8]"},
	} {
		w := newGalleryWorld(t, tt.config)
		r := look(100, map[int]*painting{4: &p})
		tt.change(r)
		_, err := w.e.Submit(context.Background(), r)
		var e *Error
		if !errors.As(err, &e) || e.Kind != Invalid || !strings.Contains(e.Msg, tt.says) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.says)
		}
	}
}

// A prompt with images is scored but for its image tokens, for which no step needs a row:
// it has rows for eight tokens, and computes 40 at once.
func TestImageTokensAreNotScored(t *testing.T) {
	for _, bidirectional := range []vision.Bidirectional{vision.Causal, vision.WithinImage} {
		w := newGalleryWorld(t, func(c *Config, _ *painter) {
			c.Vision.Bidirectional, c.Device.MaxRows = bidirectional, 8
		})
		p, lines := paint(1, 40, false, false), paint(2, 21, false, true)
		for _, tt := range []struct {
			r       *Request
			without int // a score
		}{
			{look(100, map[int]*painting{1: &lines, 30: &p}), 17 + 40},
			{look(50, map[int]*painting{10: &p}), 40}, // it ends with the image
			{look(41, map[int]*painting{1: &p}), 40},
			{look(60, map[int]*painting{1: &p}), 40},
		} {
			for n := range 2 {
				r := *tt.r
				r.PromptLogprobs, r.MaxNewTokens, r.TopN = true, n, 2
				c, err := w.submit(&r)
				if err != nil {
					t.Fatal(err)
				}
				w.finish(t) // compares the scores
				without := 0
				for _, s := range c.stream.Prompt()[1:] {
					if math.IsNaN(float64(s.Logprob)) {
						without++
					}
				}
				if without != tt.without {
					t.Errorf("bidirectional %d: %d tokens of %d have no score, want %d", bidirectional, without, len(r.Tokens), tt.without)
				}
			}
		}
	}
}

// A span that is scored waits for a step with a row for the token after it.
func TestScoredSpanNeedsARow(t *testing.T) {
	w := newGalleryWorld(t, nil)
	p := paint(1, 40, false, false)
	r := look(60, map[int]*painting{1: &p})
	r.PromptLogprobs = true
	if _, err := w.submit(r); err != nil {
		t.Fatal(err)
	}
	for len(w.e.active) == 0 {
		if _, err := w.turn(); err != nil {
			t.Fatal(err)
		}
	}
	s, st := w.e.active[0], &w.e.ring[w.e.launched%device.RingDepth]
	if s.computed != 1 {
		t.Fatalf("%d tokens are computed, and the span begins after the first", s.computed)
	}
	for left, want := range []int{0, 40} {
		st.reset(w.e.launched, w.e.budget, w.e.now())
		st.batch.Rows = st.batch.Rows[:cap(st.batch.Rows)-left]
		if n := w.e.chunk(st, s, false); n != want {
			t.Errorf("%d tokens for %d rows, want %d", n, left, want)
		}
	}
}

// A step of a lone sequence has the pages of a span in all groups, or it is refused.
func TestSpanNeedsPages(t *testing.T) {
	cfg := Config{Device: device.Limits{MaxTokens: 80, MaxRows: 80, MaxSlots: 2, MaxPagesPerSlot: 16}, Pages: 8}
	p := &painter{}
	cfg.Vision = p.vision(1<<20, vision.WithinImage)
	model := seeing
	model.Windows = []int{0, 5, 5}
	w := newWorld(t, cfg, sim.Config{Model: model})
	for n, says := range map[int]string{20: "", 40: "40 tokens of the prompt attend both ways, which takes 9 pages of the cache in one step, there are 8: --max-batch-total-tokens"} {
		art := paint(1, n, false, false)
		r := look(44, map[int]*painting{0: &art})
		r.MaxNewTokens = 1
		_, err := w.submit(r)
		if got := fmt.Sprint(err); (says == "") != (err == nil) || !strings.Contains(got, says) {
			t.Errorf("%d tokens: %v, want %q", n, err, says)
		}
	}
	w.finish(t)
}

// An image that cannot be encoded ends its own request alone, also when others wait for
// the encoder.
func TestBadImageEndsItsRequest(t *testing.T) {
	for fault, want := range map[paintingFault]string{paintingError: errPainting.Error(), paintingNaN: "NaN", paintingPanic: "no paint"} {
		w := newGalleryWorld(t, nil)
		w.painter.fault = func() paintingFault {
			if w.painter.runs == 1 {
				return fault
			}
			return noPaintingFault
		}
		bad, good := paint(1, 20, false, false), paint(2, 20, false, false)
		var clients []*client
		for _, p := range []*painting{&bad, &good, nil} {
			c, err := w.submit(look(60, map[int]*painting{3: p}))
			if err != nil {
				t.Fatal(err)
			}
			clients = append(clients, c)
		}
		w.finish(t)
		var e *Error
		if !errors.As(clients[0].err, &e) || e.Kind != Failed || !strings.Contains(e.Error(), want) || !strings.Contains(e.Error(), "image 1 of the request") {
			t.Errorf("got %v, want an error that names image 1 and %q", clients[0].err, want)
		}
		for _, c := range clients[1:] {
			if c.err != io.EOF {
				t.Errorf("a request beside the bad image ended with %v", c.err)
			}
		}
		again, err := w.submit(look(60, map[int]*painting{3: &bad}))
		if err != nil {
			t.Fatal(err)
		}
		if w.finish(t); again.err != io.EOF {
			t.Errorf("a failure was remembered: %v", again.err)
		}
	}
}

// What comes after a wrong draft of a recurrent model is computed once more, also the token
// of an image at the end of a prompt, which still has its row.
func TestDraftAfterAnImage(t *testing.T) {
	for _, wrong := range []bool{false, true} {
		cfg := Config{Device: device.Limits{MaxTokens: 80, MaxRows: 80, MaxSlots: 4, MaxPagesPerSlot: 16}, Pages: 64, MaxBatchTokens: 16, States: 8, Speculate: 4}
		cfg.Vision = (&painter{}).vision(1<<20, vision.Causal)
		model := seeing
		model.Recurrent = true
		w := newWorld(t, cfg, sim.Config{Model: model})
		p := paint(1, 20, false, false)
		c, err := w.submit(look(33, map[int]*painting{13: &p})) // the last token alone, after a snapshot
		if err != nil {
			t.Fatal(err)
		}
		alone := 0
		w.e.speculation.choose = func(*step, int, int) {
			for _, s := range w.e.speculation.open {
				if s.computed < len(s.req.Tokens) {
					alone++
				}
				draft := c.want[s.generated:][:w.e.mostDrafts(s)]
				for _, next := range draft {
					token := next.Token
					if wrong {
						token = 4 + (token+1)%100
					}
					s.draft = append(s.draft, token)
				}
			}
		}
		if w.finish(t); alone == 0 || w.drafts.Recurrent == 0 {
			t.Errorf("%d drafts after the prompt's last token, %d tokens drafted", alone, w.drafts.Recurrent)
		}
	}
}

// Sequences that pass one that waits for the encoder find a place for their masks, also if
// others could have drafts with many.
func TestPassingTheEncoderBesideDrafts(t *testing.T) {
	w := newGalleryWorld(t, func(c *Config, p *painter) { c.Speculate, c.Vision.Bidirectional = 3, vision.Causal })
	busy := false
	w.painter.late = func() bool { return busy }
	ruled := func(seed uint64) *Request {
		r := look(3, nil)
		r.Tokens[0] = int32(50 + seed)
		r.MaxNewTokens, r.IgnoreEOS = 30, true
		for i := range int32(3) { // a mask of its own for each place of a draft
			r.BannedTokens = append(r.BannedTokens, []int32{40 + i, 10 + i})
		}
		return r
	}
	drafts := 0
	w.e.speculation.choose = func(*step, int, int) {
		for _, s := range w.e.speculation.open {
			s.draft = []int32{40, 41, 42}[:w.e.mostDrafts(s)]
			drafts += len(s.draft)
		}
	}
	turn := func() {
		if _, err := w.turn(); err != nil {
			t.Fatal(err)
		}
	}
	submit := func(r *Request) {
		if _, err := w.submit(r); err != nil {
			t.Fatal(err)
		}
	}
	submit(ruled(0))
	for range 3 {
		turn()
	}
	busy = true
	p := paint(1, 20, false, false)
	submit(look(60, map[int]*painting{3: &p}))
	turn()
	if w.e.waiting.length != 1 || drafts == 0 {
		t.Fatalf("%d sequences wait, %d tokens are drafted", w.e.waiting.length, drafts)
	}
	for seed := range uint64(3) {
		submit(ruled(1 + seed))
	}
	if turn(); len(w.e.active) != 4 {
		t.Errorf("%d sequences run", len(w.e.active))
	}
	busy = false
	w.finish(t)
}

// An engine that reads one image after the other, with no step between, is not silent.
func TestEncoderIsProgress(t *testing.T) {
	w := newGalleryWorld(t, func(c *Config, _ *painter) { c.Vision.Bidirectional = vision.Causal })
	now := time.Unix(1, 0)
	w.e.now = func() time.Time { return now }
	at := map[int]*painting{}
	for i := range 5 {
		p := paint(uint64(i), 9, false, false)
		at[10*i] = &p
	}
	c, err := w.submit(look(60, at))
	if err != nil {
		t.Fatal(err)
	}
	for len(c.got) == 0 {
		if _, err := w.turn(); err != nil {
			t.Fatal(err)
		}
		if silent := now.Sub(time.Unix(0, w.e.progress.Load())); silent > 2*time.Minute {
			t.Fatalf("silent for %v after %d images", silent, w.painter.runs)
		}
		now = now.Add(time.Minute)
	}
	w.finish(t)
}

// A drain waits for a request whose image is being read.
func TestDrainWaitsForTheEncoder(t *testing.T) {
	p := paint(1, 40, false, false)
	encoder := &lateEncoder{entered: make(chan struct{}), proceed: make(chan struct{})}
	cfg := simConfig(sim.Config{Model: seeing})
	cfg.Vision = (&encoder.painter).vision(1<<20, vision.Causal)
	cfg.Vision.Encoder = encoder
	e, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	var turns atomic.Int64
	e.now = func() time.Time { turns.Add(1); return time.Now() }
	ended := make(chan error, 1)
	go func() { ended <- e.Run(t.Context()) }()
	s := mustSubmit(t, e, look(60, map[int]*painting{10: &p}))
	<-encoder.entered
	drained := make(chan error, 1)
	go func() { drained <- e.Drain(context.Background()) }()
	for !e.draining.Load() {
		time.Sleep(100 * time.Microsecond)
	}
	for seen := turns.Load(); turns.Load() < seen+2 && encoder.left.Load() == nil; { // the loop has seen that it drains
		time.Sleep(100 * time.Microsecond)
	}
	close(encoder.proceed)
	if got, err := drainStream(t, s); err != nil || len(got) != 8 {
		t.Errorf("%d tokens, %v; want 8", len(got), err)
	}
	if err := errors.Join(<-drained, <-ended); err != nil {
		t.Error(err)
	}
}

// lateEncoder is an encoder that waits until it may proceed.
type lateEncoder struct {
	painter
	entered, proceed chan struct{}
	left             atomic.Pointer[error] // why it was abandoned
}

func (l *lateEncoder) Encode(ctx context.Context, m *Image, rows []float32) error {
	close(l.entered)
	select {
	case <-l.proceed:
		return l.painter.Encode(ctx, m, rows)
	case <-ctx.Done():
		err := ctx.Err()
		l.left.Store(&err)
		return err
	}
}

// Rows that are not in use give way to others, the oldest first.
func TestRowsAreEvicted(t *testing.T) {
	w := newGalleryWorld(t, func(c *Config, _ *painter) {
		c.Vision.Memory, c.NoPrefixCache = 4*paintingWidth*20*2, true
	})
	a, b, c := paint(1, 20, false, false), paint(2, 20, false, false), paint(3, 20, false, false)
	for i, tt := range []struct {
		p    *painting
		runs int
	}{{&a, 1}, {&b, 2}, {&a, 2}, {&c, 3}, {&a, 3}, {&b, 4}} {
		if _, err := w.submit(look(60, map[int]*painting{3: tt.p})); err != nil {
			t.Fatal(err)
		}
		if w.finish(t); w.painter.runs != tt.runs {
			t.Errorf("request %d: the encoder ran %d times, want %d", i, w.painter.runs, tt.runs)
		}
	}
}

// Sequences that generate go on while the encoder runs, and those without images pass
// those that wait for it.
func TestNobodyWaitsForTheEncoder(t *testing.T) {
	w := newGalleryWorld(t, nil)
	busy := true
	w.painter.late = func() bool { return busy }
	p := paint(1, 20, false, false)
	reader := w.ask(t, tokens(1, 10), 30)
	viewer, err := w.submit(look(60, map[int]*painting{3: &p}))
	if err != nil {
		t.Fatal(err)
	}
	text := w.ask(t, tokens(2, 10), 10)
	for range 40 {
		if _, err := w.turn(); err != nil {
			t.Fatal(err)
		}
		if reader.over && text.over {
			break
		}
		if len(viewer.got) > 0 {
			t.Fatal("an answer about an image that was not encoded")
		}
	}
	if !reader.over || !text.over {
		t.Fatalf("%d of 30 and %d of 10 tokens while the encoder ran", len(reader.got), len(text.got))
	}
	busy = false
	w.finish(t)
}

// What nobody waits for any more is abandoned, whoever asks for it next gets it, and its
// memory is free again.
func TestImageIsAbandoned(t *testing.T) {
	w := newGalleryWorld(t, func(c *Config, _ *painter) { c.Vision.Memory = 4 * paintingWidth * 40 })
	busy := true
	w.painter.late = func() bool { return busy }
	p := paint(1, 20, false, false)
	gone, err := w.submit(look(60, map[int]*painting{3: &p}))
	if err != nil {
		t.Fatal(err)
	}
	reader := w.ask(t, tokens(1, 10), 60)
	turn := func() {
		t.Helper()
		if _, err := w.turn(); err != nil {
			t.Fatal(err)
		}
	}
	turn()
	gone.gone = true
	gone.cancel()
	turn()
	if w.e.images.running == nil || !w.e.images.running.gone {
		t.Fatal("what is encoded is not given up")
	}
	other, err := w.submit(look(60, map[int]*painting{5: &p}))
	if err != nil {
		t.Fatal(err)
	}
	turn()
	busy = false
	w.finish(t)
	if w.painter.abandoned != 1 || w.painter.runs != 2 || other.err != io.EOF || reader.err != io.EOF {
		t.Errorf("the encoder ran %d times and was stopped %d times; %v, %v", w.painter.runs, w.painter.abandoned, other.err, reader.err)
	}
	if s := w.e.Stats(); s.ImagesEncoded != 1 {
		t.Errorf("%d images were encoded", s.ImagesEncoded)
	}
}

// A request of many images does not hold up others, and others do not hold it up for ever.
func TestImagesByTurns(t *testing.T) {
	w := newGalleryWorld(t, nil)
	busy := true
	w.painter.late = func() bool { return busy }
	var art []painting
	for i := range uint64(8) {
		art = append(art, paint(i, 4, false, false))
	}
	show := func(list ...int) {
		t.Helper()
		at := map[int]*painting{}
		for i, n := range list {
			at[10*i] = &art[n]
		}
		if _, err := w.submit(look(60, at)); err != nil {
			t.Fatal(err)
		}
		if _, err := w.turn(); err != nil {
			t.Fatal(err)
		}
	}
	w.ask(t, tokens(1, 10), 100)
	show(0, 1, 2, 3)
	show(4, 5)
	show(6)
	busy = false
	if _, err := w.turn(); err != nil { // the first, and another one begins
		t.Fatal(err)
	}
	busy = true
	show(7)
	busy = false
	w.finish(t)
	var order []int
	for _, hash := range w.painter.read {
		order = append(order, slices.IndexFunc(art, func(p painting) bool { return p.hash == hash }))
	}
	if want := []int{0, 4, 6, 7, 1, 5, 2, 3}; !slices.Equal(order, want) {
		t.Errorf("images are encoded in the order %v, want %v", order, want)
	}
}

// The encoder runs on a goroutine of its own, which Run waits for.
func TestRunWaitsForTheEncoder(t *testing.T) {
	p := &painter{}
	begun, end := make(chan bool), make(chan bool)
	p.fault = func() paintingFault {
		close(begun)
		<-end
		return noPaintingFault
	}
	limits := device.Limits{MaxTokens: 80, MaxRows: 80, MaxSlots: 4, MaxPagesPerSlot: 16}
	e, err := New(Config{
		Backend: sim.New(limits, sim.Config{Model: seeing}).Checked(), Device: limits, Plan: seeing.Plan(), Pages: 64, EOS: []int32{2}, Root: page.Root(),
		Vision: p.vision(1<<20, vision.WithinImage),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	art := paint(1, 20, false, false)
	s, err := e.Submit(context.Background(), look(60, map[int]*painting{3: &art}))
	if err != nil {
		t.Fatal(err)
	}
	<-begun
	cancel()
	if _, err := s.Next(context.Background()); err == nil {
		t.Error("no error when the engine stopped")
	}
	select {
	case <-done:
		t.Error("Run returned while the encoder ran")
	default:
	}
	close(end)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// New refuses a Vision that the backend or the plan cannot serve.
func TestVisionConfig(t *testing.T) {
	for _, tt := range []struct {
		model  sim.Model
		change func(v *Vision)
		ok     bool
	}{
		{seeing, func(*Vision) {}, true},
		{testModel, func(*Vision) {}, false},
		{seeing, func(v *Vision) { v.Encoder = nil }, false},
		{seeing, func(v *Vision) { v.Memory = 0 }, false},
		{seeing, func(v *Vision) { v.Token = 500 }, false},
	} {
		v := new(painter).vision(1, vision.WithinImage)
		tt.change(v)
		_, err := New(Config{Backend: sim.New(small, sim.Config{Model: tt.model}).Checked(), Device: small, Plan: tt.model.Plan(), Pages: 8, Vision: v})
		if (err == nil) != tt.ok {
			t.Errorf("%+v: %v", v, err)
		}
	}
}
