package deploy

import (
	"bytes"
	"math"
	"strings"
	"testing"
)

// The sizes of instance types follow from their names.
func TestMachineOf(t *testing.T) {
	for name, want := range map[string]machine{
		"ml.c7i.large":     {"ml.c7i", 2, 4},
		"ml.c7i.xlarge":    {"ml.c7i", 4, 8},
		"ml.m7i.4xlarge":   {"ml.m7i", 16, 64},
		"ml.r6gd.12xlarge": {"ml.r6gd", 48, 384},
		"ml.c7i.48xlarge":  {"ml.c7i", 192, 384},
	} {
		if got, ok := machineOf(name); !ok || got != want {
			t.Errorf("%s: %+v, %v; want %+v", name, got, ok, want)
		}
	}
	for _, name := range []string{"ml.g6.xlarge", "ml.inf2.xlarge", "ml.t2.medium", "ml.c7i.metal", "ml.c7i.1xlarge", "ml.c7i.999xlarge", "ml.c7i.xxlarge", "c7i.large", ""} {
		if got, ok := machineOf(name); ok {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

const prices = `# of the tests
ml.c7i.xlarge, 0.20
ml.c7i.2xlarge, 0.40
ml.c7i.4xlarge, 0.80
ml.m7i.2xlarge, 0.50
ml.g6.xlarge, 1.00
`

func TestReadPrices(t *testing.T) {
	got, err := ReadPrices(strings.NewReader(prices))
	if err != nil || len(got) != 5 || got["ml.c7i.2xlarge"] != 0.40 {
		t.Errorf("%v, %v", got, err)
	}
	for text, want := range map[string]string{
		"":                                  "it has no price",
		"ml.c7i.large":                      "line 1: expected ml.TYPE,PRICE",
		"ml.c7i.large,1\nc7i.large,1":       `line 2: "c7i.large": expected an instance type`,
		"ml.c7i.large,free":                 `line 1: ml.c7i.large: expected the price of an hour, not "free"`,
		"ml.c7i.large,0":                    "expected the price of an hour",
		"ml.c7i.large,-1":                   "expected the price of an hour",
		"ml.c7i.large,NaN":                  "expected the price of an hour",
		"ml.c7i.large,Inf":                  "expected the price of an hour",
		"ml.c7i.large,1\nml.c7i.large,2":    "line 2: ml.c7i.large is there twice",
		"ml.c7i.large,\"1":                  `extraneous or missing " in quoted-field`,
		"ml.c7i.large,1,of the last summer": "line 1: expected ml.TYPE,PRICE",
	} {
		if _, err := ReadPrices(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func FuzzReadPrices(f *testing.F) {
	f.Add(prices)
	f.Fuzz(func(t *testing.T, text string) {
		got, err := ReadPrices(strings.NewReader(text))
		for name, price := range got {
			if err != nil || !(price > 0) || math.IsInf(price, 0) || !instanceType.MatchString(name) {
				t.Errorf("%s: %v, %v", name, price, err)
			}
		}
	})
}

const sweep = `[
  {"concurrency": 1, "tokens_per_second": 30, "time_per_output_token": {"p90_ms": 33}},
  {"concurrency": 4, "tokens_per_second": 90, "time_per_output_token": {"p90_ms": 44}},
  {"concurrency": 8, "tokens_per_second": 150, "time_per_output_token": {"p90_ms": 100}},
  {"concurrency": 16, "tokens_per_second": 160, "time_per_output_token": {"p90_ms": 200}}
]`

func TestReadMeasurements(t *testing.T) {
	got, err := ReadMeasurements([]byte(sweep))
	if err != nil || len(got) != 4 || got[2] != (Measurement{8, 150, 10}) {
		t.Errorf("%v, %v", got, err)
	}
	got, err = ReadMeasurements([]byte(` {"concurrency": 2, "tokens_per_second": 5, "time_per_output_token": {"p90_ms": 500}} `))
	if err != nil || len(got) != 1 || got[0] != (Measurement{2, 5, 2}) {
		t.Errorf("%v, %v", got, err)
	}
	for text, want := range map[string]string{
		"":   "not what millrace bench --json writes",
		"[]": "it has no result",
		"{}": "expected results of millrace bench --concurrency",
		`{"rate": 5, "tokens_per_second": 5, "time_per_output_token": {"p90_ms": 500}}`: "expected results of millrace bench --concurrency",
		`{"concurrency": 5, "tokens_per_second": 5}`:                                    "with streams",
	} {
		if _, err := ReadMeasurements([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

// demand is for ten readers of a model of 1 GB, measured on one type.
func demand(t *testing.T) *Demand {
	t.Helper()
	table, err := ReadPrices(strings.NewReader(prices))
	if err != nil {
		t.Fatal(err)
	}
	measured, err := ReadMeasurements([]byte(sweep))
	if err != nil {
		t.Fatal(err)
	}
	return &Demand{
		Model: ModelSize{Weights: 1e9, PerRequest: 100e6}, Readers: 10, Speed: 10,
		Prices: table, Measured: map[string][]Measurement{"ml.c7i.2xlarge": measured},
	}
}

func TestAdvise(t *testing.T) {
	d := demand(t)
	if err := d.Check(); err != nil {
		t.Fatal(err)
	}
	find := func(all []Choice, name string) Choice {
		for _, c := range all {
			if c.Instance == name {
				return c
			}
		}
		t.Fatalf("no %s in %v", name, all)
		return Choice{}
	}
	all := d.Advise()
	// Eight readers at 10 tokens/s were measured, not sixteen; the sizes beside have
	// half and twice as many.
	for name, want := range map[string]Choice{
		"ml.c7i.xlarge":  {Readers: 4, Instances: 3, PerHour: 0.60, Basis: Estimated},
		"ml.c7i.2xlarge": {Readers: 8, Instances: 2, PerHour: 0.80, Basis: Measured},
		"ml.c7i.4xlarge": {Readers: 16, Instances: 1, PerHour: 0.80, Basis: Estimated},
	} {
		c := find(all, name)
		if c.Readers != want.Readers || c.Instances != want.Instances || math.Abs(c.PerHour-want.PerHour) > 1e-9 || c.Basis != want.Basis || c.Problem != "" {
			t.Errorf("%s: %+v, want %+v", name, c, want)
		}
		// An hour at 150 tokens/s for 0.40.
		if want := 0.40 / (150 * 0.0036); math.Abs(c.PerMToken-want) > 1e-9 {
			t.Errorf("%s: %v per million tokens, want %v", name, c.PerMToken, want)
		}
	}
	if all[0].Instance != "ml.c7i.xlarge" {
		t.Errorf("the cheapest is %+v", all[0])
	}
	for name, want := range map[string]string{"ml.m7i.2xlarge": "nothing was measured on ml.m7i", "ml.g6.xlarge": "not a CPU instance type"} {
		if c := find(all, name); !strings.HasPrefix(c.Problem, want) {
			t.Errorf("%s: %+v, want %q", name, c, want)
		}
	}

	d.Prices["ml.c7i.xlarge"] = 0.40 / 1.5
	if best := d.Advise()[0]; best.Instance != "ml.c7i.2xlarge" {
		t.Errorf("of equal prices %+v is first, want what was measured", best)
	}
	d.Prices["ml.c7i.xlarge"] = 0.20

	var out bytes.Buffer
	if err := d.WriteAdvice(&out, all); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"For 10 readers at 10 tokens/s: --instance-type ml.c7i.xlarge --instances 3 --env MAX_BATCH_SIZE=4, 0.60 an hour.",
		"measure ml.c7i.xlarge before you rely on it", "nothing was measured on ml.m7i",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%s\nlacks %q", &out, want)
		}
	}

	// Requests that take half of the memory each.
	d.Model.PerRequest = 3 << 30
	if c := find(d.Advise(), "ml.c7i.xlarge"); c.Readers != 1 || c.Instances != 10 {
		t.Errorf("large requests: %+v", c)
	}
	d.Model.PerRequest, d.Model.Weights = 0, 7<<30
	if c := find(d.Advise(), "ml.c7i.xlarge"); c.Problem != "its memory is too small for the model" {
		t.Errorf("large weights: %+v", c)
	}
	d.Model.Weights, d.Speed = 0, 31
	out.Reset()
	if err := d.WriteAdvice(&out, d.Advise()); err != nil || !strings.Contains(out.String(), "too slow for one reader at 31 tokens/s") || !strings.Contains(out.String(), "Nothing in the price table") {
		t.Errorf("%s, %v", &out, err)
	}
}

func TestCheckDemand(t *testing.T) {
	for want, change := range map[string]func(*Demand){
		"--readers 0":               func(d *Demand) { d.Readers = 0 },
		"--reader-speed 0":          func(d *Demand) { d.Speed = 0 },
		"--reader-speed NaN":        func(d *Demand) { d.Speed = math.NaN() },
		"--measured is missing":     func(d *Demand) { d.Measured = nil },
		"--measured ml.g6.xlarge: ": func(d *Demand) { d.Measured = map[string][]Measurement{"ml.g6.xlarge": nil} },
	} {
		d := demand(t)
		change(d)
		if err := d.Check(); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
