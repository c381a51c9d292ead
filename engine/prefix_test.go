package engine

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"hash/crc32"
	"slices"
	"strings"
	"testing"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/page"
	"github.com/millrace-ai/millrace/engine/sim"
)

// prefixModels keep positions, windows of them, states, or several of these.
var prefixModels = []struct {
	name    string
	windows []int
	state   bool
}{
	{"positions", nil, false},
	{"windows", []int{0, 40, 100}, false},
	{"states", []int{}, true},
	{"all", []int{0, 40}, true},
}

var prefixLimits = device.Limits{MaxTokens: 64, MaxRows: 64, MaxSlots: 4, MaxPagesPerSlot: 40}

func prefixModel(windows []int, state bool) (Config, sim.Config, PrefixOrigin) {
	model := testModel
	model.Windows, model.Recurrent = windows, state
	origin := PrefixOrigin{Build: "a build", Backend: "sim", Weights: "weights", Plan: "plan", PageBytes: 8 * page.Tokens}
	if state {
		origin.StateBytes = 8
	}
	return Config{Device: prefixLimits, Pages: 100, States: 9}, sim.Config{Model: model}, origin
}

// prefixFile is the file of the prefix of tokens.
func prefixFile(t testing.TB, windows []int, state bool, tokens []int32) []byte {
	t.Helper()
	cfg, bc, origin := prefixModel(windows, state)
	cfg.Backend, cfg.Plan, cfg.EOS = sim.New(cfg.Device, bc).Checked(), bc.Model.Plan(), []int32{bc.Model.EOS}
	cfg.Root = page.Root(page.Field{Tag: page.TagModel, Value: []byte("elsewhere")})
	r := start(t, cfg)
	prefix, err := r.e.ComputePrefix(t.Context(), tokens)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(tokens) / page.Tokens * page.Tokens; !slices.Equal(prefix, tokens[:n]) {
		t.Errorf("the prefix is %v, want the first %d of %v", prefix, n, tokens)
	}
	r.stop(t)
	var file bytes.Buffer
	if err := r.e.WritePrefix(&file, prefix, origin); err != nil {
		t.Fatal(err)
	}
	return file.Bytes()
}

// What begins with the prefix starts from it in another process and says what it
// would say without; world compares each answer with the model's.
func TestPrefixFile(t *testing.T) {
	for _, tt := range prefixModels {
		t.Run(tt.name, func(t *testing.T) {
			prefix := tokens(7, 200)
			file := prefixFile(t, tt.windows, tt.state, prefix)
			cfg, bc, origin := prefixModel(tt.windows, tt.state)
			w := newWorld(t, cfg, bc)
			const whole = 200 / page.Tokens * page.Tokens
			for range 2 { // again, which changes nothing
				if n, err := w.e.ReadPrefix(bytes.NewReader(file), origin); n != whole || err != nil {
					t.Fatalf("%d tokens, error %v, want %d", n, err, whole)
				}
				if err := w.checkEngine(); err != nil {
					t.Fatal(err)
				}
			}
			prompt := func(n int, seed uint64) []int32 { return append(slices.Clone(prefix[:n]), tokens(seed, 30)...) }
			hits := map[*client]int{
				w.ask(t, prompt(200, 1), 20):   whole,
				w.ask(t, prompt(whole, 2), 20): whole,
				w.ask(t, tokens(8, 230), 20):   0,
			}
			shorter := w.ask(t, prompt(100, 3), 20) // from states and windows nobody goes on before the end
			w.finish(t)
			if tt.windows == nil && !tt.state {
				hits[shorter] = 100 / page.Tokens * page.Tokens
			} else {
				hits[shorter] = 0
			}
			for c, want := range hits {
				if got := c.stream.Times().CachedTokens; got != want {
					t.Errorf("a prompt of %d tokens started from %d, want %d", len(c.req.Tokens), got, want)
				}
			}
		})
	}
}

// A file that is not for this engine, or not whole, changes nothing.
func TestPrefixFileRefused(t *testing.T) {
	for _, tt := range prefixModels {
		t.Run(tt.name, func(t *testing.T) {
			file := prefixFile(t, tt.windows, tt.state, tokens(7, 200))
			length := len(prefixMagic) + 4 + int(binary.LittleEndian.Uint32(file[len(prefixMagic):]))
			flipped := func(i int) []byte {
				changed := slices.Clone(file)
				changed[i] ^= 1
				return changed
			}
			for _, refused := range []struct {
				name string
				file []byte
				here func(o *PrefixOrigin)
				cfg  func(c *Config)
				want string
			}{
				{name: "empty", file: []byte{}, want: "it is damaged: it ends early"},
				{name: "another file", file: bytes.Repeat([]byte("x"), 100), want: "it is not a prefix file"},
				{name: "cut in the header", file: file[:30], want: "it is damaged: it ends early"},
				{name: "cut", file: file[:len(file)-1], want: "it is damaged: it ends early"},
				{name: "a page changed", file: flipped(length + 5), want: "it is damaged: its checksum does not match"},
				{name: "the checksum changed", file: flipped(len(file) - 1), want: "it is damaged: its checksum does not match"},
				{name: "no JSON", file: flipped(len(prefixMagic) + 4), want: "it is damaged: its header"},
				{name: "a long header", file: flipped(len(prefixMagic) + 3), want: "it is damaged"},
				{name: "weights", here: func(o *PrefixOrigin) { o.Weights = "" }, want: "it belongs to another model, or to other weights of it"},
				{name: "plan", here: func(o *PrefixOrigin) { o.Plan = "" }, want: "it belongs to another model, or to other weights of it"},
				{name: "build", here: func(o *PrefixOrigin) { o.Build = "B" }, want: "it was written by another build: a build, this is B"},
				{name: "backend", here: func(o *PrefixOrigin) { o.Backend = "B" }, want: "it was computed by another backend: sim, this is B"},
				{name: "page bytes", here: func(o *PrefixOrigin) { o.PageBytes /= 2 }, want: "its keys and values are in another format"},
				{name: "KV format", here: func(o *PrefixOrigin) { o.Cache = "int8" }, want: "its keys and values are in another format"},
				{name: "no cache", cfg: func(c *Config) { c.NoPrefixCache = true }, want: "the prefix cache is switched off"},
				{name: "a longer prefix than sequences may be", cfg: func(c *Config) { c.MaxTotal = 192 }, want: "its 192 tokens are too many for the cache"},
			} {
				cfg, bc, origin := prefixModel(tt.windows, tt.state)
				if refused.here != nil {
					refused.here(&origin)
				}
				if refused.cfg != nil {
					refused.cfg(&cfg)
				}
				if refused.file == nil {
					refused.file = file
				}
				w := newWorld(t, cfg, bc)
				n, err := w.e.ReadPrefix(bytes.NewReader(refused.file), origin)
				if n != 0 || err == nil || !strings.Contains(err.Error(), refused.want) {
					t.Errorf("%s: %d tokens, error %v, want %q", refused.name, n, err, refused.want)
				}
				if pages, states := w.e.cache.Pages, w.e.cache.States; pages.Cached() != 0 || pages.Free() != pages.Total() || states.Cached() != 0 || states.Free() != states.Total() {
					t.Errorf("%s: the cache has kept something", refused.name)
				}
				if err := w.checkEngine(); err != nil {
					t.Errorf("%s: %v", refused.name, err)
				}
			}
		})
	}
}

// Files together fill the cache, and no more.
func TestPrefixFilesFillTheCache(t *testing.T) {
	cfg, bc, origin := prefixModel(nil, false)
	cfg.Pages = 20
	w := newWorld(t, cfg, bc)
	for i, want := range []string{"", "its 192 tokens are too many for the cache", ""} {
		file := prefixFile(t, nil, false, tokens(uint64(i), []int{200, 200, 128}[i]))
		_, err := w.e.ReadPrefix(bytes.NewReader(file), origin)
		if want == "" && err != nil || want != "" && (err == nil || err.Error() != want) {
			t.Errorf("file %d: %v, want %q", i, err, want)
		}
	}
	if n := w.e.cache.Pages.Cached(); n != cfg.Pages {
		t.Errorf("%d pages are cached, want %d", n, cfg.Pages)
	}
}

func TestComputePrefixRefuses(t *testing.T) {
	cfg, bc, _ := prefixModel(nil, false)
	bc.Model.RopeOriginal, bc.Model.RopeDynamic = 50, true
	cfg.Backend, cfg.Plan, cfg.EOS = sim.New(cfg.Device, bc).Checked(), bc.Model.Plan(), []int32{bc.Model.EOS}
	r := start(t, cfg)
	for n, want := range map[int]string{
		15:   "15 tokens, expected at least a page of 16",
		70:   "beyond 50 the model's rotations depend on the length",
		9999: "beyond 50 the model's rotations depend on the length",
	} {
		if _, err := r.e.ComputePrefix(t.Context(), tokens(1, n)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%d tokens: %v, want %q", n, err, want)
		}
	}
	r.stop(t)
}

// FuzzReadPrefix: whatever the header says, the cache stays in order.
func FuzzReadPrefix(f *testing.F) {
	for _, tt := range prefixModels {
		file := prefixFile(f, tt.windows, tt.state, tokens(7, 50))
		f.Add(file[len(prefixMagic)+4:], tt.state)
	}
	f.Add([]byte(`{"Origin":null,"Tokens":[-1]}`), false)
	f.Fuzz(func(t *testing.T, rest []byte, state bool) {
		cfg, bc, origin := prefixModel(nil, state)
		var header json.RawMessage
		d := json.NewDecoder(bytes.NewReader(rest))
		if d.Decode(&header) != nil {
			return
		}
		file := append([]byte(prefixMagic), binary.LittleEndian.AppendUint32(nil, uint32(len(header)))...)
		file = append(append(file, header...), rest[d.InputOffset():]...)
		file = append(file, crc32.New(castagnoli).Sum(nil)...)
		binary.BigEndian.PutUint32(file[len(file)-4:], crc32.Checksum(file[:len(file)-4], castagnoli))
		w := newWorld(t, cfg, bc)
		n, err := w.e.ReadPrefix(bytes.NewReader(file), origin)
		if cached := w.e.cache.Pages.Cached(); err != nil && cached != 0 || cached*page.Tokens > n {
			t.Errorf("%d pages are cached of %d tokens, error %v", cached, n, err)
		}
		if err := w.checkEngine(); err != nil {
			t.Error(err)
		}
	})
}
