package grammar

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/millrace-ai/millrace/engine/native"
)

// ownCompiler is a compiler of bytes for a test that looks at its insides.
func ownCompiler(t testing.TB) *Compiler {
	t.Helper()
	c, err := NewCompiler(bytesVocabulary{}, bytesSize, []int32{bytesEOS, bytesEOT})
	if err != nil {
		t.Fatal(err)
	}
	patient(c)
	t.Cleanup(c.Close)
	return c
}

// patient gives a compiler the time that it may need on a busy machine.
func patient(c *Compiler) { c.limit, c.trials.wall = time.Minute, time.Minute }

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not after a minute: ", what)
		}
	}
}

// idle waits until no compilation holds anything: no place, no process, no grammar.
func idle(t testing.TB, c *Compiler, open int) {
	t.Helper()
	eventually(t, "all places are free", func() bool {
		c.trials.mu.Lock()
		users := c.trials.users
		c.trials.mu.Unlock()
		c.mu.Lock()
		flights := len(c.flights)
		c.mu.Unlock()
		return users+flights+len(c.slots)+len(c.heavy)+len(c.trials.quick)+len(c.trials.slow) == 0
	})
	c.cache.clear()
	eventually(t, fmt.Sprintf("%d grammars are open", open), func() bool { return c.Open() == open })
}

// rss is the resident memory of this process and its trial process, in bytes.
func rss(t testing.TB, c *Compiler) int {
	t.Helper()
	native.Trim()
	debug.FreeOSMemory()
	pids := []string{"self"}
	c.trials.mu.Lock()
	if c.trials.process != nil {
		pids = append(pids, strconv.Itoa(c.trials.process.Pid()))
	}
	c.trials.mu.Unlock()
	pages := 0
	for _, pid := range pids {
		b, err := os.ReadFile("/proc/" + pid + "/statm")
		var size, resident int
		if _, scan := fmt.Sscan(string(b), &size, &resident); err != nil || scan != nil {
			t.Skip("the system does not tell a process's memory")
		}
		pages += resident
	}
	return pages * os.Getpagesize()
}

func properties(n int, schema string, required bool) string {
	name := func(i int) string { return fmt.Sprintf(`"p%d"`, i) }
	s := `{"type":"object","additionalProperties":false,"properties":{` + joined(n, func(i int) string { return name(i) + ":" + schema }) + `}`
	if required {
		s += `,"required":[` + joined(n, name) + `]`
	}
	return s + `}`
}

func constant(n int, with string) string {
	return `{"const":"` + strings.Repeat(with, n/len(with)) + `"}`
}

// behind puts schemas where only a reference finds them.
func behind(schemas string) string {
	return `{"allOf":[{"$ref":"#/description/0"},{"$ref":"#/description/1"}],"description":[` + schemas + `]}`
}

var overrunning = map[string]Spec{
	"patterns behind references":  {Kind: JSONSchema, Text: behind(`{"allOf":[` + joined(60, func(i int) string { return fmt.Sprintf(`{"type":"string","pattern":"(a|b)*a(a|b){%d}"}`, i) }) + `]},true`)},
	"multiples behind references": {Kind: JSONSchema, Text: behind(`{"type":"integer","multipleOf":65537},{"multipleOf":65539}`)}, // not compiled at all
	"a constant of 240 kB":        {Kind: JSONSchema, Text: constant(240_000, "x")},
	"words of 240 kB":             {Kind: JSONSchema, Text: constant(240_000, "word ")},
	"8,000 properties":            {Kind: JSONSchema, Text: properties(8_000, `{"type":"string"}`, false)},
	"a{99999999}":                 {Kind: Regex, Text: `a{99999999}`},
	"a{1000000000}":               {Kind: Regex, Text: `a{1000000000}`},
	"((a{100}){100}){100}":        {Kind: Regex, Text: `((a{100}){100}){100}`},
}

// Grammars that cost too much are refused, and while they are, others compile.
// Nothing of them is left then.
func TestOverrunningGrammarsAreStopped(t *testing.T) {
	c := ownCompiler(t)
	mustCompile(t, c, Spec{Kind: Regex, Text: "warm"}).Close()
	idle(t, c, 0)
	before := rss(t, c)

	ctx, stop := context.WithCancel(t.Context())
	var hostile sync.WaitGroup
	for name, spec := range overrunning {
		if testing.Short() && spec.Kind != Regex && len(spec.Text) > 100_000 {
			continue
		}
		hostile.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				spec := spec
				if spec.Kind == JSONSchema { // what was refused once is refused at once
					spec.Text = fmt.Sprintf(`{"title":"%d",%s`, n, spec.Text[1:])
				}
				m, err := c.Compile(ctx, spec)
				var fault *Error
				switch {
				case err == nil:
					m.Close()
					t.Errorf("%s compiles", name)
					return
				case errors.As(err, &fault):
					t.Log(name, ": ", fault)
					return
				case !errors.Is(err, ErrBusy) && ctx.Err() == nil:
					t.Errorf("%s: %v", name, err)
					return
				}
				time.Sleep(time.Second)
			}
		})
	}
	for i := range 50 {
		m, err := c.Compile(ctx, Spec{Kind: JSONSchema, Text: properties(5, fmt.Sprintf(`{"type":"string","maxLength":%d}`, i+1), true)})
		if err != nil {
			t.Fatalf("a good grammar beside the hostile ones: %v", err)
		}
		m.Close()
	}
	hostile.Wait()
	stop()
	idle(t, c, 0)
	if after := rss(t, c); after > before+before/10+16<<20 {
		t.Errorf("memory of %d MB before, %d MB after", before>>20, after>>20)
	}
}

func TestRefusalsAreRemembered(t *testing.T) {
	c := ownCompiler(t)
	first := refuses(t, c, overrunning["a{99999999}"])
	c.trials.close() // so that a trial would be seen
	if again := refuses(t, c, overrunning["a{99999999}"]); again != first {
		t.Errorf("refused with %q, then with %q", first, again)
	}
}

// What only a later mask would show is an error of the grammar, not of the generation.
func TestLaterMasksAreTried(t *testing.T) {
	c := ownCompiler(t)
	for _, spec := range []Spec{
		{Kind: Regex, Text: `a{99999999}`},
		{Kind: Regex, Text: `((a{100}){100}){100}`},
		{Kind: Regex, Text: `a{1000000000}`},
		{Kind: JSONSchema, Text: properties(1000, `{"type":"string"}`, false)},
	} {
		if got := refuses(t, c, spec); !strings.Contains(got, "too complex") {
			t.Errorf("%.40s is refused with %q", spec.Text, got)
		}
	}
	mustCompile(t, c, Spec{Kind: JSONSchema, Text: constant(100_000, "x")})

	// Behind a constant with more states than the lexer of another grammar may have.
	long := strings.Repeat("x", limits.LexerStates+1000)
	m := mustCompile(t, c, Spec{Kind: JSONSchema, Text: `{"type":"object","required":["a","b"],"additionalProperties":false,"properties":{"a":{"const":"` + long + `"},"b":{"type":"integer"}}}`})
	mask := make([]uint32, c.MaskWords())
	for i, text := range []string{`{"a":"` + long + `"`, `,"b":1`, `2}`} {
		if err := m.AcceptText([]byte(text)); err != nil {
			t.Fatal(err)
		}
		if err := m.Mask(mask); err != nil {
			t.Fatalf("the mask after part %d: %v", i, err)
		}
	}
}

// Requests for the same grammar share one compilation, and each may leave it.
func TestCompilationsAreShared(t *testing.T) {
	c := ownCompiler(t)
	spec := Spec{Kind: JSONSchema, Text: properties(400, `{"type":"string"}`, true)}
	given, giveUp := context.WithCancel(t.Context())
	var wait sync.WaitGroup
	for i := range 40 {
		wait.Go(func() {
			ctx := t.Context()
			if i%2 == 0 {
				ctx = given
			}
			m, err := c.Compile(ctx, spec)
			if i%2 == 0 {
				giveUp() // the first to have it
			}
			switch {
			case err == nil:
				m.Close()
			case i%2 != 0 || !errors.Is(err, context.Canceled):
				t.Errorf("request %d: %v", i, err)
			}
		})
	}
	wait.Wait()
	idle(t, c, 0)

	// All who wait for one that overruns give up: it ends.
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	for range 4 {
		wait.Go(func() {
			if m, err := c.Compile(ctx, overrunning["patterns behind references"]); err == nil {
				m.Close()
				t.Error("it compiles")
			}
		})
	}
	wait.Wait()
	idle(t, c, 0)
	giveUp()
}

// The process may be killed at any time, and ends when it has been idle.
func TestTrialProcessComesBack(t *testing.T) {
	c := ownCompiler(t)
	for i, end := range []func(){
		func() {},
		func() { syscall.Kill(c.trials.process.Pid(), syscall.SIGKILL) },
		func() { c.trials.rest() },
	} {
		mustCompile(t, c, Spec{Kind: Regex, Text: fmt.Sprintf("a{%d}", i+1)}).Close()
		eventually(t, "the trial has ended", func() bool {
			c.trials.mu.Lock()
			defer c.trials.mu.Unlock()
			return c.trials.users == 0 && c.trials.process != nil
		})
		end()
	}
	if c.trials.process != nil {
		t.Error("the process is there when it is idle")
	}
	c.OnUntried(func(err error) { t.Errorf("not tried: %v", err) })
	mustCompile(t, c, Spec{Kind: Regex, Text: "b"}).Close()
}

// Where no process can be started, small grammars still compile, and it can be told.
func TestWithoutTrials(t *testing.T) {
	c := ownCompiler(t)
	c.trials.start = func() (*native.TrialProcess, error) { return nil, errors.New("not permitted") }
	var told []error
	c.OnUntried(func(err error) { told = append(told, err) })
	if m := mustCompile(t, c, Spec{Kind: JSONSchema, Text: walkSchemas[3]}); !admits(t, m, `{"v":true}`) {
		t.Error("the grammar does not admit what it should")
	}
	mustCompile(t, c, Spec{Kind: Regex, Text: `a{1,20}b`})
	if got := refuses(t, c, Spec{Kind: JSONSchema, Text: constant(20_000, "x")}); !strings.Contains(got, "the limit is 16384") {
		t.Errorf("refused with %q", got)
	}
	if len(told) != 1 || !strings.Contains(told[0].Error(), "not permitted") {
		t.Errorf("told %v", told)
	}
}

// The memory of all grammars together is bounded, and comes back.
func TestMemoryIsBounded(t *testing.T) {
	c := ownCompiler(t)
	c.SetMemory(48 << 20)
	if got := refuses(t, c, Spec{Kind: JSONSchema, Text: constant(30_000, "x")}); !strings.Contains(got, "MB") {
		t.Errorf("a large one is refused with %q", got)
	}
	spec := Spec{Kind: Regex, Text: `a{3000}`}
	var all []*Matcher
	for {
		m, err := c.Compile(t.Context(), spec)
		if errors.Is(err, ErrBusy) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, m)
		if len(all)*m.native.Bytes > 48<<20 {
			t.Fatalf("%d matchers of %d bytes", len(all), m.native.Bytes)
		}
	}
	if _, err := all[0].Clone(); !errors.Is(err, ErrBusy) {
		t.Errorf("a clone beyond the limit: %v", err)
	}
	for _, m := range all {
		m.Close()
	}
	mustCompile(t, c, spec).Close()
	idle(t, c, 0)
	if n := c.bytes.Load(); n != 0 {
		t.Errorf("%d bytes are counted where nothing is open", n)
	}
}

// What a trial measures is what the grammar takes here.
func TestSizesAreMeasured(t *testing.T) {
	const copies = 8
	for name, spec := range map[string]func(i int) Spec{
		"constants": func(i int) Spec { return Spec{Kind: JSONSchema, Text: constant(30_000+i, "x")} },
		"enums": func(i int) Spec {
			return Spec{Kind: JSONSchema, Text: `{"enum":[` + joined(8_000, func(j int) string { return fmt.Sprintf(`"%d %d"`, i, j) }) + `]}`}
		},
		"properties": func(i int) Spec {
			return Spec{Kind: JSONSchema, Text: properties(400, fmt.Sprintf(`{"type":"string","maxLength":%d}`, i+1), true)}
		},
		"regexes": func(i int) Spec { return Spec{Kind: Regex, Text: fmt.Sprintf(`a{%d}`, 10_000+i)} },
		"small": func(i int) Spec {
			return Spec{Kind: JSONSchema, Text: properties(6, fmt.Sprintf(`{"type":"string","maxLength":%d}`, i+1), true)}
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := ownCompiler(t)
			c.cache.maxBytes = 1 << 30
			n := copies
			if name == "small" {
				n = 100
			}
			mustCompile(t, c, spec(0)).Close()
			before, had := rss(t, c), c.cache.bytes
			for i := range n {
				mustCompile(t, c, spec(i+1)).Close()
			}
			idleTrials(t, c)
			took, measured := rss(t, c)-before, c.cache.bytes-had
			t.Logf("measured %d kB each, took %d kB", measured/n>>10, took/n>>10)
			const noise = 4 << 20
			// What was free before may be used again: then it seems to take less.
			if float64(took-noise) > 1.5*float64(measured) || float64(took+2*noise) < float64(measured)/3 {
				t.Errorf("%d grammars were measured at %d kB, and took %d kB", n, measured>>10, took>>10)
			}
		})
	}
}

func idleTrials(t *testing.T, c *Compiler) {
	t.Helper()
	eventually(t, "no trial runs", func() bool {
		c.trials.mu.Lock()
		defer c.trials.mu.Unlock()
		return c.trials.users == 0
	})
}

// What is compiled without a trial must be cheap: here are many such grammars,
// as large as they may be, in trials.
func TestCheapGrammarsAreCheap(t *testing.T) {
	n := 400
	if testing.Short() {
		n = 60
	}
	c := ownCompiler(t)
	compilable, most, worst := 0, time.Duration(0), 0.0
	for i := range n {
		r := rand.New(rand.NewPCG(uint64(i), 1))
		kind, source := JSONSchema, cheapSchemaOf(r, cheapBytes-200)
		if i%4 == 0 {
			kind, source = Lark, `start: "{\"name\": \"" named "}" (/\n|; ?/ named)*`+"\nnamed: "+`"f\", \"arguments\": " arguments`+"\narguments: %json "+cheapSchemaOf(r, cheapBytes-400)
		}
		if !cheap(kind, source) {
			t.Fatalf("not cheap: %s", source)
		}
		tried, err := c.trials.run(t.Context(), kind, source, limitsOf(source))
		if err != nil {
			t.Fatal(err)
		}
		switch tried.Status {
		case native.TrialNoMask, native.TrialNoWalk: // with references to itself there may be no text
			if isDeadEnd(tried.Message) {
				tried.Status = native.TrialOK
			}
		case native.TrialRefused:
			continue
		}
		compilable++
		most = max(most, tried.CPU)
		// Where most of a grammar is not reached yet, it seems to take less.
		short := float64(tried.Bytes) / float64(compiledBytes(len(source)))
		worst = max(worst, short)
		const generous = 500 * time.Millisecond // of processor time
		if tried.Status != native.TrialOK || tried.CPU > generous || short > 1.5 {
			t.Errorf("%+v for %s of %d bytes: %.400s", tried, kind, len(source), source)
		}
	}
	t.Logf("%d of %d can be compiled, in at most %v; the estimate of their memory is short by %.2f at most", compilable, n, most, worst)
	if compilable < n/2 {
		t.Errorf("only %d of %d can be compiled", compilable, n)
	}
	for _, tt := range []struct {
		kind   Kind
		source string
	}{
		{Regex, `a`},
		{JSONSchema, `{"type":"string","pattern":"a"}`},
		{JSONSchema, `{"type":"string","maxLength":1001}`},
		{JSONSchema, `{"type":"integer","multipleOf":2}`},
		{JSONSchema, `{"anyOf":[true],"type":"object"}`},
		{JSONSchema, `{"$defs":{"a":{"allOf":[true]}},"$ref":"#/$defs/a"}`},
		{JSONSchema, `{"$ref":"#/$defs/a","type":"object"}`},
		{JSONSchema, `{"properties":{"a":{"if":true}}}`},
		{JSONSchema, constant(300, "x")},
		{JSONSchema, properties(1000, `true`, false)},
		{Lark, `start: /[a-z]{3}/`},
		{Lark, `start: /abcdefghijklmnopq/`},
		{Lark, "start: A\nA: /a/ & /b/"},
		{Lark, `start: "a"{1000}`},
		{Lark, `start: %json {"type":"string","pattern":"a"}`},
	} {
		if cheap(tt.kind, tt.source) {
			t.Errorf("%s %.60s passes for cheap", tt.kind, tt.source)
		}
	}
}

// cheapSchemaOf draws a cheap schema of nearly so many bytes.
func cheapSchemaOf(r *rand.Rand, bytes int) string {
	definitions := 1 + r.IntN(8)
	favourite := r.IntN(12) // what there is the most of
	left := bytes
	var schema func(depth int) string
	schema = func(depth int) (s string) {
		defer func() { left -= 10 }()
		leaf := depth <= 0 || left < 0
		kind := r.IntN(12)
		if r.IntN(2) == 0 {
			kind = favourite
		}
		if leaf {
			kind %= 8
		}
		several := func(f func(i int) string) string {
			var parts []string
			for i := range 1 + r.IntN(40) {
				parts = append(parts, f(i))
				left -= len(parts[i])
				if left < 0 {
					break
				}
			}
			return strings.Join(parts, ",")
		}
		switch kind {
		case 0:
			return fmt.Sprintf(`{"type":"string","minLength":%d,"maxLength":%d}`, r.IntN(500), 500+r.IntN(500))
		case 1:
			return fmt.Sprintf(`{"type":"number","minimum":-%d.%d,"maximum":%d}`, r.IntN(100), r.IntN(100), r.IntN(1e6))
		case 2:
			return `{"type":"string","format":"date-time"}`
		case 3:
			return `{"enum":[` + several(func(int) string { return fmt.Sprintf(`"%x"`, r.Uint64()) }) + `]}`
		case 4:
			return constant(1+r.IntN(cheapText), "x")
		case 5, 6:
			return fmt.Sprintf(`{"$ref":"#/$defs/%d"}`, r.IntN(definitions))
		case 7:
			return `true`
		case 8:
			return fmt.Sprintf(`{"type":"array","items":%s,"minItems":%d,"maxItems":%d}`, schema(depth-1), r.IntN(100), 100+r.IntN(900))
		case 9:
			return `{"anyOf":[` + several(func(int) string { return schema(depth - 1) }) + `]}`
		}
		s = `{"type":"object","properties":{` + several(func(i int) string { return fmt.Sprintf(`"p%d":%s`, i, schema(depth-1)) }) + `}`
		if r.IntN(3) == 0 {
			return s + `,"additionalProperties":` + schema(depth-1) + `}`
		}
		return s + `,"additionalProperties":false}`
	}
	for {
		left = bytes
		root := `{"type":"object","required":["p0","p1"],"properties":{` + joined(3, func(i int) string { return fmt.Sprintf(`"p%d":%s`, i, schema(6)) }) + `},"$defs":{` +
			joined(definitions, func(i int) string { return fmt.Sprintf(`"%d":%s`, i, schema(4)) }) + `}}`
		if len(root) <= bytes {
			return root
		}
		bytes -= 50
		if bytes < 500 {
			bytes = cheapBytes - 500
		}
	}
}

// Schemas drawn at random, deep, wide, recursive, with references anywhere: each
// ends, and nothing of them is left.
func TestGeneratedGrammars(t *testing.T) {
	n := 300
	if testing.Short() {
		n = 100
	}
	if s := os.Getenv("MILLRACE_GRAMMARS"); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	c := ownCompiler(t)
	mustCompile(t, c, Spec{Kind: Regex, Text: "warm"}).Close()
	idle(t, c, 0)
	before := rss(t, c)
	var wait sync.WaitGroup
	var mu sync.Mutex
	ends, longest := map[string]int{}, time.Duration(0)
	for worker := range 4 {
		wait.Go(func() {
			for i := worker; i < n; i += 4 {
				text := generated(uint64(i))
				start := time.Now()
				m, err := c.Compile(t.Context(), Spec{Kind: JSONSchema, Text: text})
				took := time.Since(start)
				end := "compiled"
				var fault *Error
				switch {
				case err == nil:
					m.Close()
				case errors.As(err, &fault):
					end = fmt.Sprintf("%.24s", fault.Error())
				case errors.Is(err, ErrBusy):
					end = "busy"
				default:
					t.Errorf("schema %d: %v", i, err)
				}
				mu.Lock()
				ends[end]++
				longest = max(longest, took)
				mu.Unlock()
			}
		})
	}
	wait.Wait()
	idle(t, c, 0)
	t.Logf("%d schemas, the longest took %v: %v", n, longest, ends)
	if ends["compiled"] < n/10 {
		t.Errorf("only %d of %d compile", ends["compiled"], n)
	}
	after := rss(t, c)
	t.Logf("memory of %d MB before, %d MB after", before>>20, after>>20)
	const fragments = 2 << 10 // that the allocator may be left with, for each
	if after > before+before/10+16<<20+n*fragments {
		t.Error("memory is not given back")
	}
}

// generated draws a schema.
func generated(seed uint64) string {
	r := rand.New(rand.NewPCG(seed, 0))
	definitions := 1 + r.IntN(12)
	depth := 2 + r.IntN(6)
	width := 2 + r.IntN(5)
	if r.IntN(10) == 0 {
		depth, width = 2, 200
	}
	left := 50 << r.IntN(7) // of subschemas
	patterns := make([]string, 1+r.IntN(6))
	for i := range patterns {
		patterns[i] = generatedPattern(r)
	}
	pattern := func() string { return patterns[r.IntN(len(patterns))] }
	ref := func() string {
		place := []string{"$defs", "x-other", "description"}[r.IntN(3)]
		return fmt.Sprintf(`{"$ref":"#/%s/d%d"}`, place, r.IntN(definitions))
	}
	var schema func(depth int) string
	schema = func(depth int) string {
		list := func() string {
			return joined(1+r.IntN(min(width, max(left, 1))), func(int) string { return schema(depth - 1) })
		}
		kinds := 16
		if left--; depth <= 0 || left < 0 {
			kinds = 9
		}
		switch r.IntN(kinds) {
		case 0:
			return `{"type":"string"}`
		case 1:
			return fmt.Sprintf(`{"type":"integer","minimum":%d,"multipleOf":%d}`, r.IntN(1000)-500, []int{1, 2, 5, 60, 100, 97}[r.IntN(6)])
		case 2:
			return fmt.Sprintf(`{"type":"string","minLength":%d,"maxLength":%d}`, r.IntN(50), 50+r.IntN(5000))
		case 3:
			return fmt.Sprintf(`{"type":"string","pattern":"%s"}`, pattern())
		case 4:
			return `{"enum":[` + joined(1+r.IntN(1<<r.IntN(8)), func(i int) string { return fmt.Sprintf(`"%x %d"`, r.Uint64(), i) }) + `]}`
		case 5:
			return constant(1+r.IntN(1<<r.IntN(12)), "x")
		case 6:
			return fmt.Sprintf(`{"type":"string","format":"%s"}`, []string{"date", "uuid", "email", "uri", "ipv6", "date-time"}[r.IntN(6)])
		case 7, 8:
			return ref()
		case 9, 10:
			s := `{"type":"object","properties":{` + joined(1+r.IntN(min(width, max(left, 1))), func(i int) string { return fmt.Sprintf(`"p%d":%s`, i, schema(depth-1)) }) + `}`
			if r.IntN(2) == 0 {
				s += `,"required":["p0"]`
			}
			if r.IntN(2) == 0 {
				s += `,"additionalProperties":` + schema(depth-1)
			}
			return s + `}`
		case 11:
			return fmt.Sprintf(`{"type":"array","items":%s,"minItems":%d,"maxItems":%d}`, schema(depth-1), r.IntN(20), 20+r.IntN(2000))
		case 12:
			return `{"anyOf":[` + list() + `]}`
		case 13:
			return `{"allOf":[` + list() + `]}`
		case 14:
			return `{"oneOf":[` + list() + `],"type":["object","string","integer"]}`
		}
		return `{"type":"object","patternProperties":{"` + pattern() + `":` + schema(depth-1) + `}}`
	}
	places := []string{}
	for _, place := range []string{"$defs", "x-other", "description"} {
		places = append(places, fmt.Sprintf(`"%s":{%s}`, place, joined(definitions, func(i int) string { return fmt.Sprintf(`"d%d":%s`, i, schema(depth)) })))
	}
	return `{"type":"object","properties":{` + joined(6, func(i int) string { return fmt.Sprintf(`"p%d":%s`, i, schema(depth)) }) + `},` + strings.Join(places, ",") + `}`
}

func generatedPattern(r *rand.Rand) string {
	parts := []string{"a", "b", ".", "[a-z]", "(a|b)*", "(ab|ba)+", "x?", "[^c]{2,9}", "(a|b)*a", fmt.Sprintf("(a|b){%d}", r.IntN(200)), `\\w+`, `\\d{3}`}
	var b strings.Builder
	for range 1 + r.IntN(8) {
		b.WriteString(parts[r.IntN(len(parts))])
	}
	return b.String()
}
