package engine

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/grammar/grammartest"
	"github.com/millrace-ai/millrace/engine/sample"
	"github.com/millrace-ai/millrace/engine/sim"
)

var update = flag.Bool("update", false, "write the transcripts of testdata/scenarios as they are")

// TestScenarios plays the files of testdata/scenarios, each named after what
// would go wrong, and compares what the scheduler does with their transcripts.
// Everything that world checks is checked besides, each token for one.
//
// A file is a series of commands, with what they print after a line of four
// dashes and before an empty one. The idea is that of etcd's raft (testdata) and
// its format that of cockroachdb/datadriven.
//
//	engine pages= slots= batch= perslot= windows= states= grid= adapters= rope= dynamic
//	       eos= grammars sync cost= each= waiting= memory= speculate=
//	        what is served: windows=0,40 are two groups, states= makes it recurrent, grammars
//	        gives it the vocabulary of grammars; a step takes cost, and each for a token
//	ask NAME prompt= new= seed= n= salt= adapter= sample= penalty= score grammar= deadline= only=
//	        requests with so many prompt tokens, of the same ones for the same seed; only=7,8
//	        are the tokens that may come
//	extend NAME of= prompt= new=
//	        one whose prompt is that of another, its answer and so many more
//	turn N  runs the loop N times, 1 by default
//	finish  runs it until nothing is left, and says what came of those not told before
//	leave NAME, close NAME
//	        cancels a context, closes a Stream
//	during COMMAND
//	        is done while the next step is in flight
//	fault step|launch|invalid
//	        of the step launched next
//	short   makes the engine expect answers of one token
//	late N  makes the next N masks late
//	stats   pages in use and cached, and what else was counted
//
// A step that only goes on as the one before is counted. A step is printed as its number, the time when it was planned and its
// sequences: a[16:20] are positions 16 to 19, a[20] is one, and * says that a
// token is sampled after it; a[again]* is sampled with nothing computed. ? stands for a
// row that verifies: a[20:23]??? is token 20 with a draft of two.
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/scenarios/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			s := &scenario{t: t}
			got := s.play(string(text))
			switch {
			case bytes.Equal(text, []byte(got)):
			case *update:
				if err := os.WriteFile(file, []byte(got), 0o666); err != nil {
					t.Fatal(err)
				}
			default:
				t.Errorf("%s has another transcript; -update writes it:\n%s", file, got)
			}
			if s.w.e.inFlight == nil && len(s.w.e.active) == 0 {
				if err := s.w.checkDone(); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// scenario is a file being played.
type scenario struct {
	t      *testing.T
	w      *world
	names  map[*client]string
	told   map[*client]bool
	fault  sim.Fault
	late   int
	during string
	out    strings.Builder // of a command
	alike  string          // what the last step printed was like, if it only decodes
	more   int             // steps like it since
}

// play runs the commands of a file and returns it with what they printed.
func (s *scenario) play(text string) string {
	var file strings.Builder
	lines := strings.Split(text, "\n")
	for i := 0; i < len(lines); i++ {
		line := lines[i]
		if line == "" && i == len(lines)-1 {
			break
		}
		file.WriteString(line + "\n")
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		s.out.Reset()
		s.command(line)
		if s.flush(); s.out.Len() > 0 {
			file.WriteString("----\n" + s.out.String() + "\n")
		}
		if i+1 < len(lines) && lines[i+1] == "----" { // what it printed last time
			for i++; i < len(lines) && lines[i] != ""; i++ {
			}
		}
	}
	return file.String()
}

// printf prints for the command being done.
func (s *scenario) printf(format string, args ...any) {
	s.flush()
	fmt.Fprintf(&s.out, format, args...)
}

// flush says how many steps were like the one before.
func (s *scenario) flush() {
	if s.more > 0 {
		fmt.Fprintf(&s.out, "  and %d more of that kind\n", s.more)
	}
	s.alike, s.more = "", 0
}

// arguments of a command, by name; a name alone is there and empty.
type arguments map[string]string

func (a arguments) number(name string, unset int) int {
	if n, err := strconv.Atoi(a[name]); err == nil {
		return n
	}
	return unset
}

func (a arguments) duration(name string) time.Duration {
	d, _ := time.ParseDuration(a[name])
	return d
}

func (s *scenario) command(line string) {
	words := strings.Fields(line)
	args := arguments{}
	name := ""
	for i, word := range words[1:] {
		key, value, _ := strings.Cut(word, "=")
		args[key] = value
		if i == 0 {
			name = word
		}
	}
	switch words[0] {
	case "engine":
		s.open(args)
	case "ask":
		s.ask(name, tokens(uint64(args.number("seed", len(s.w.clients)+1)), args.number("prompt", 1)), args)
	case "extend":
		c := s.find(args["of"])
		prompt := append([]int32(nil), c.req.Tokens...)
		for _, tok := range c.got {
			prompt = append(prompt, tok.ID)
		}
		s.ask(name, append(prompt, tokens(99, args.number("prompt", 1))...), args)
	case "turn":
		n, _ := strconv.Atoi(name)
		for range max(1, n) {
			s.turn()
		}
	case "finish":
		for n := 0; s.turn(); n++ {
			if n > 100_000 {
				s.t.Fatal("still at work after 100,000 turns")
			}
		}
	case "leave", "close":
		s.find(name).leave(words[0] == "close")
	case "during":
		s.during = strings.TrimPrefix(line, "during ")
	case "fault":
		s.fault = map[string]sim.Fault{"step": sim.FailStep, "launch": sim.FailLaunch, "invalid": sim.Invalid}[name]
	case "short":
		s.w.e.expectShort()
	case "late":
		s.late, _ = strconv.Atoi(name)
	case "stats":
		st, e := s.w.e.Stats(), s.w.e
		memory := "no memory"
		if e.account.used.Load() > 0 {
			memory = "memory"
		}
		s.printf("%d of %d pages in use, %d cached; %d waiting, %d running; %d preemptions, %d late masks; %s of requests held\n",
			st.PagesUsed, st.PagesTotal, st.PagesCached, st.Waiting+st.Preempted, st.Running, st.Preemptions, st.LateMasks, memory)
	default:
		s.t.Fatalf("unknown command %q", line)
	}
}

func (s *scenario) open(args arguments) {
	model := testModel
	if text, ok := args["windows"]; ok {
		model.Windows = []int{}
		for _, w := range strings.FieldsFunc(text, func(r rune) bool { return r == ',' }) {
			n, _ := strconv.Atoi(w)
			model.Windows = append(model.Windows, n)
		}
	}
	if _, ok := args["grammars"]; ok {
		model = grammarModel
	}
	if text, ok := args["eos"]; ok {
		model.EOSRate, _ = strconv.ParseFloat(text, 64)
	}
	model.Recurrent = args.number("states", 0) > 0
	model.RopeOriginal = args.number("rope", 0)
	_, model.RopeDynamic = args["dynamic"]
	_, synchronous := args["sync"]
	cost, each := args.duration("cost"), args.duration("each")
	batch := args.number("batch", 64)
	limits := device.Limits{MaxTokens: batch, MaxRows: batch, MaxSlots: args.number("slots", 4), MaxPagesPerSlot: args.number("perslot", 8)}
	s.w = newWorld(s.t, Config{
		Device: limits, Pages: args.number("pages", 16), States: args.number("states", 0), Adapters: args.number("adapters", 0),
		MaxWaiting: args.number("waiting", 1000), Memory: int64(args.number("memory", 0)), Speculate: args.number("speculate", 0),
	}, sim.Config{
		Model:       model,
		Synchronous: synchronous,
		Latency:     func(tokens int) time.Duration { return cost + time.Duration(tokens)*each },
		Fault: func(int) sim.Fault {
			f := s.fault
			s.fault = sim.NoFault
			return f
		},
	})
	s.w.e.grid = args.number("grid", snapshotGrid)
	s.names, s.told = map[*client]string{}, map[*client]bool{}
	s.w.onStep = s.step
	s.w.e.cfg.Compiler = lateIf(func() bool { s.late--; return s.late >= 0 })
	s.w.onWait = func() {
		if line := s.during; line != "" {
			s.during = ""
			s.printf("  during it: %s\n", line)
			s.command(line)
		}
	}
}

func (s *scenario) ask(name string, prompt []int32, args arguments) {
	p := sample.Greedy()
	if seed := args.number("sample", 0); seed > 0 {
		p.Sample, p.Seed = 1, uint64(seed)
	}
	if penalty, err := strconv.ParseFloat(args["penalty"], 32); err == nil {
		p.RepetitionPenalty = float32(penalty)
	}
	_, score := args["score"]
	r := &Request{
		Tokens: prompt, MaxNewTokens: args.number("new", 1), Params: p, PromptLogprobs: score,
		CacheSalt: args["salt"], Adapter: int32(args.number("adapter", 0)),
	}
	for _, text := range strings.FieldsFunc(args["only"], func(r rune) bool { return r == ',' }) {
		n, _ := strconv.Atoi(text)
		r.AllowedTokens = append(r.AllowedTokens, int32(n))
	}
	if d := args.duration("deadline"); d > 0 {
		r.Deadline = s.w.e.now().Add(d)
	}
	var spec *constraintSpec
	if text, ok := args["grammar"]; ok {
		spec = &constraintSpec{grammar: &testGrammar{kind: "regex", text: text}}
	}
	for i := range r.Tokens {
		if int(r.Tokens[i]) >= s.w.model.Vocab {
			r.Tokens[i] = grammartest.EOS + 1 + r.Tokens[i]%8
		}
	}
	seeds := make([]uint64, args.number("n", 1))
	for i := range seeds {
		seeds[i] = p.Seed + uint64(i)
	}
	cs, err := s.w.submitN(s.t, r, spec, seeds)
	if err != nil {
		s.printf("%s is refused: %v\n", name, kind(err))
	}
	for i, c := range cs {
		s.names[c] = name
		if len(cs) > 1 {
			s.names[c] = fmt.Sprintf("%s%d", name, i+1)
		}
	}
}

func (s *scenario) find(name string) *client {
	for c, n := range s.names {
		if n == name {
			return c
		}
	}
	s.t.Fatalf("there is no %q", name)
	return nil
}

// step prints a step that was planned.
func (s *scenario) step(st *step) {
	name := func(q *sequence) string {
		for c, n := range s.names {
			if c.stream == q.stream {
				return n
			}
		}
		return "?"
	}
	var line, alike strings.Builder
	decodes := true
	for i, q := range st.seqs {
		b := st.batch.Seqs[i]
		at := strconv.Itoa(int(b.KVLen - 1))
		if b.Count > 1 {
			at, decodes = fmt.Sprintf("%d:%d", b.KVLen-b.Count, b.KVLen), false
		}
		fmt.Fprintf(&line, " %s[%s]", name(q), at)
		alike.WriteString(" " + name(q))
		for _, r := range st.batch.Rows {
			if r.Slot == b.Slot && r.Kind == device.RowSample {
				line.WriteString("*")
			}
			if r.Slot == b.Slot && r.Kind == device.RowVerify {
				line.WriteString("?")
			}
		}
	}
	for i, r := range st.batch.Rows {
		if r.Kind == device.RowAgain && st.rows[i] != nil {
			fmt.Fprintf(&line, " %s[again]*", name(st.rows[i]))
			decodes = false
		}
	}
	if decodes && s.alike == alike.String() {
		s.more++
		return
	}
	s.printf("step %d at %v:%s\n", st.number, s.w.b.Now(), line.String())
	if decodes {
		s.alike = alike.String()
	}
}

// turn runs the loop once and prints which sequences have lost their pages or ended.
func (s *scenario) turn() bool {
	preempted := map[*sequence]bool{}
	for q := s.w.e.waiting.head; q != nil; q = q.next {
		preempted[q] = q.admitted
	}
	worked, err := s.w.turn()
	if err != nil {
		s.t.Fatal(err)
	}
	for q := s.w.e.waiting.head; q != nil; q = q.next {
		if q.admitted && !preempted[q] {
			for c, n := range s.names {
				if c.stream == q.stream {
					s.printf("  %s has lost its pages after %d tokens\n", n, q.generated)
				}
			}
		}
	}
	for _, c := range s.w.clients {
		if !c.over || s.told[c] {
			continue
		}
		s.told[c] = true
		how := map[FinishReason]string{FinishLength: "length", FinishEOS: "end token", FinishDeadline: "deadline"}[c.stream.Finish()]
		if c.err != io.EOF {
			var e *Error
			errors.As(c.err, &e)
			how = e.Kind.String()
		}
		s.printf("  %s ends: %d tokens, %s", s.names[c], len(c.got), how)
		if times := c.stream.Times(); times.CachedTokens > 0 {
			s.printf(", %d from the cache", times.CachedTokens)
		}
		s.out.WriteString("\n")
	}
	return worked
}
