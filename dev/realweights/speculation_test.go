package realweights

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace-ai/millrace/engine"
	"github.com/millrace-ai/millrace/engine/grammar"
	"github.com/millrace-ai/millrace/engine/plan"
	"github.com/millrace-ai/millrace/engine/sample"
	"github.com/millrace-ai/millrace/engine/token"
)

// loads are what speculation is measured with.
var loads = []struct {
	name        string
	prompts     []string
	streams     int // of each prompt
	temperature float32
	schema      string
}{
	{name: "edit code", prompts: []string{
		"Rename the parameter `items` to `values` in this code and print all of it again, without a comment.\n\n```python\n" + statistics + "```",
		"Add a docstring to every function of this code and print all of it.\n\n```python\n" + statistics + "```",
	}, streams: 1},
	{name: "summarise", prompts: []string{
		"Summarise this text. Quote its most important sentences word by word.\n\n" + lighthouse,
		"List the facts of this text, each in a line of its own, in the text's words.\n\n" + lighthouse,
	}, streams: 1},
	{name: "extract", prompts: []string{
		"Copy these records as a JSON array of objects with the keys name, city, year and note.\n\n" + records,
	}, streams: 1, schema: `{"type":"array","minItems":6,"items":{"type":"object","required":["name","city","year","note"],"additionalProperties":false,
		"properties":{"name":{"type":"string"},"city":{"type":"string"},"year":{"type":"integer"},"note":{"type":"string"}}}}`},
	{name: "chat", prompts: []string{
		"What should I see in Rome in three days?",
		"Why is the sky blue? Explain it to a child.",
		"Write a short story about a dog that learns to swim.",
	}, streams: 1, temperature: 0.8},
	{name: "edit code, 16 streams", prompts: []string{
		"Add a docstring to every function of this code and print all of it.\n\n```python\n" + statistics + "```",
	}, streams: 16, temperature: 0.3},
	{name: "chat, 16 streams", prompts: []string{
		"Give me five ideas for a birthday present for my father.",
	}, streams: 16, temperature: 0.8},
}

const records = `name: Anna Holm, city: Bergen, year: 1874, note: first keeper of the lighthouse on the northern cape
name: Karl Berg, city: Bergen, year: 1899, note: keeper of the lighthouse during the great storm
name: Ida Lund, city: Tromso, year: 1922, note: engineer of the electric lamp and the diesel engine
name: Per Dahl, city: Tromso, year: 1971, note: last keeper of the lighthouse on the northern cape
name: Eva Moen, city: Oslo, year: 1986, note: director of the museum in the house beside the tower
name: Jon Vik, city: Oslo, year: 2015, note: collector of money for the repair of the tower
`

const statistics = `def mean(items):
    total = 0
    for value in items:
        total += value
    return total / len(items)


def variance(items):
    average = mean(items)
    total = 0
    for value in items:
        total += (value - average) ** 2
    return total / len(items)


def median(items):
    ordered = sorted(items)
    middle = len(ordered) // 2
    if len(ordered) % 2 == 1:
        return ordered[middle]
    return (ordered[middle - 1] + ordered[middle]) / 2


def mode(items):
    counts = {}
    for value in items:
        counts[value] = counts.get(value, 0) + 1
    return max(counts, key=counts.get)
`

const lighthouse = `The lighthouse on the northern cape was built in 1874 by masons from the mainland. It is 31 metres high and its light can be seen from 19 nautical miles. For 97 years keepers lived in the small house beside the tower. They wound the clockwork that turned the lens every four hours, day and night. The first keeper, Anna Holm, kept a diary from which most of what we know about those years comes. In the winter of 1899 a storm cut the cape off for 43 days, and the keepers lived on dried fish and rainwater. In 1922 the oil lamp was replaced by an electric one, which a diesel engine fed. The last keeper left in 1971, when the light became automatic. Since 1986 the house has been a museum that is open from May to September. Some 12,000 people visit it each year, most of them by boat. The tower itself is closed because the stairs are no longer safe. The village has collected money for its repair since 2015, and work is to begin next spring. When it is done, visitors will be able to climb to the gallery for the first time in thirty years.
`

// chatEnd is SmolLM2's <|im_end|>.
const chatEnd = 2

// BenchmarkSpeculation measures how much faster answers come with drafts than without,
// on real weights: two engines take turns at the same requests, and the median of the
// ratios counts. The answers must be the same.
func BenchmarkSpeculation(b *testing.B) {
	for _, format := range []plan.Quantize{plan.QuantizeNone, plan.QuantizeInt8} {
		b.Run([]string{"bf16", "int8"}[format], func(b *testing.B) { benchmarkSpeculation(b, format) })
	}
}

func benchmarkSpeculation(b *testing.B, format plan.Quantize) {
	dir := filepath.Join(prepare(b), "smollm2")
	tok, err := token.Load(dir)
	if err != nil {
		b.Fatal(err)
	}
	defer tok.Close()
	compiler, err := grammar.NewCompiler(tok, tok.VocabSize(), []int32{chatEnd})
	if err != nil {
		b.Fatal(err)
	}
	defer compiler.Close()
	plain, drafts := startEngine(b, dir, format, 0, compiler), startEngine(b, dir, format, 8, compiler)
	for _, load := range loads {
		b.Run(strings.ReplaceAll(load.name, " ", "_"), func(b *testing.B) {
			var requests []*engine.Request
			for _, prompt := range load.prompts {
				ids, err := tok.Encode("<|im_start|>user\n"+prompt+"<|im_end|>\n<|im_start|>assistant\n", false)
				if err != nil {
					b.Fatal(err)
				}
				for i := range load.streams {
					p := sample.Greedy()
					if load.temperature > 0 {
						p.Sample, p.Temperature, p.Seed = 1, load.temperature, uint64(i+1)
					}
					requests = append(requests, &engine.Request{Tokens: ids, MaxNewTokens: 256, Params: p, CacheSalt: fmt.Sprint(i)})
				}
			}
			before := drafts.Stats()
			var took [2]time.Duration // by engine
			var ratios []float64
			tokens := 0
			for round := range b.N {
				for part := range slices.Chunk(requests, load.streams) {
					var answers [2][][]int32
					var spans [2]time.Duration
					for turn := range 2 {
						i := (turn + round) % 2
						start := time.Now()
						answers[i] = answer(b, []*engine.Engine{plain, drafts}[i], part, compiler, load.schema)
						spans[i] = time.Since(start)
						took[i] += spans[i]
					}
					ratios = append(ratios, spans[0].Seconds()/spans[1].Seconds())
					for i, got := range answers[1] {
						if !slices.Equal(got, answers[0][i]) {
							b.Fatalf("%v with drafts, %v without", got, answers[0][i])
						}
						tokens += len(got)
					}
				}
			}
			st := drafts.Stats()
			slices.Sort(ratios)
			b.ReportMetric(ratios[len(ratios)/2], "×")
			b.ReportMetric(float64(tokens)/took[0].Seconds(), "tokens/s-without")
			b.ReportMetric(float64(tokens)/took[1].Seconds(), "tokens/s")
			b.ReportMetric(float64(st.AcceptedTokens-before.AcceptedTokens)/float64(st.GeneratedTokens-before.GeneratedTokens), "accepted/token")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// answer returns the answers to requests that are served together, under a schema unless
// that is empty.
func answer(b *testing.B, e *engine.Engine, requests []*engine.Request, c *grammar.Compiler, schema string) (all [][]int32) {
	b.Helper()
	var streams []*engine.Stream
	for _, r := range requests {
		asked := *r
		if schema != "" {
			m, err := c.Compile(b.Context(), grammar.Spec{Kind: grammar.JSONSchema, Text: schema})
			if err != nil {
				b.Fatal(err)
			}
			asked.Constraint = &engine.Constraint{Grammar: m}
		}
		s, err := e.Submit(b.Context(), &asked)
		if err != nil {
			b.Fatal(err)
		}
		streams = append(streams, s)
	}
	for _, s := range streams {
		var ids []int32
		for {
			tokens, err := s.Next(b.Context())
			for _, t := range tokens {
				ids = append(ids, t.ID)
			}
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				b.Fatal(err)
			}
		}
		s.Close()
		all = append(all, ids)
	}
	return all
}
