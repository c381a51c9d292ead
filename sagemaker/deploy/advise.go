package deploy

import (
	"bytes"
	"cmp"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
)

// Demand is what instances are to be found for.
type Demand struct {
	Model   ModelSize
	Readers int     // requests at once
	Speed   float64 // tokens per second that nine of ten of them are to see

	Prices   map[string]float64       // of an hour, by instance type
	Measured map[string][]Measurement // by instance type
}

// ModelSize is the memory that a model takes.
type ModelSize struct {
	Weights    int64 `json:"weight_bytes"`
	PerRequest int64 `json:"bytes_per_request"` // cache and states of one request at its longest
}

// Measurement is what a server did for a number of clients.
type Measurement struct {
	Clients         int
	TokensPerSecond float64 // of all together
	ReaderSpeed     float64 // tokens per second that nine of ten requests had after their first
}

// Basis is where figures of an instance type come from.
type Basis string

// The kinds of figures, the better one later in the alphabet.
const (
	Measured  Basis = "measured"
	Estimated Basis = "estimated" // from another size of the family, by the cores
)

// Choice is one way to meet a demand.
type Choice struct {
	Instance  string  `json:"instance_type"`
	Cores     int     `json:"cores"`
	MemoryGiB int     `json:"memory_gib"`
	Basis     Basis   `json:"basis,omitempty"`
	Readers   int     `json:"readers"` // of one instance
	Instances int     `json:"instances,omitempty"`
	PerHour   float64 `json:"price_per_hour,omitempty"`           // of all instances
	PerMToken float64 `json:"price_per_million_tokens,omitempty"` // at full load
	Problem   string  `json:"problem,omitempty"`                  // why it is none
}

// What is left of an instance's memory to the model: the server takes at most 90 %
// of it, and about half a gigabyte for itself and for requests.
const (
	usableMemory = 0.9
	serverBytes  = 512 << 20
)

// machine is what the name of an instance type says about its size.
type machine struct {
	family    string // ml.c7i
	cores     int
	memoryGiB int
}

// machineOf reads the size in the name of a CPU instance type by AWS's rules for
// it: cores by the size, memory by the class. It reports false for others.
func machineOf(instance string) (machine, bool) {
	parts := instanceType.FindStringSubmatch(instance)
	if parts == nil {
		return machine{}, false
	}
	f, m := familyOf(instance), generation.FindStringSubmatch(parts[1])
	memory := map[string]int{"c": 2, "m": 4, "r": 8}
	if m == nil || !f.known || memory[m[1]] == 0 {
		return machine{}, false
	}
	cores := map[string]int{"large": 2, "xlarge": 4}[parts[2]]
	if n, ok := strings.CutSuffix(parts[2], "xlarge"); ok && n != "" {
		times, err := strconv.Atoi(n)
		if err != nil || times < 2 || times > 96 {
			return machine{}, false
		}
		cores = 4 * times
	}
	return machine{"ml." + parts[1], cores, cores * memory[m[1]]}, cores > 0
}

// ReadPrices reads a table of prices: a line for each instance type, its name, a
// comma and the price of an hour. Lines that begin with # are comments.
func ReadPrices(r io.Reader) (map[string]float64, error) {
	rows := csv.NewReader(r)
	rows.Comment, rows.FieldsPerRecord, rows.TrimLeadingSpace = '#', -1, true
	prices := map[string]float64{}
	for {
		row, err := rows.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		line, _ := rows.FieldPos(0)
		if len(row) != 2 {
			return nil, fmt.Errorf("line %d: expected ml.TYPE,PRICE", line)
		}
		name := strings.TrimSpace(row[0])
		price, err := strconv.ParseFloat(strings.TrimSpace(row[1]), 64)
		_, twice := prices[name]
		switch {
		case !instanceType.MatchString(name):
			return nil, fmt.Errorf("line %d: %q: expected an instance type, such as ml.c7i.2xlarge", line, name)
		case err != nil || !(price > 0) || math.IsInf(price, 0):
			return nil, fmt.Errorf("line %d: %s: expected the price of an hour, not %q", line, name, row[1])
		case twice:
			return nil, fmt.Errorf("line %d: %s is there twice", line, name)
		}
		prices[name] = price
	}
	if len(prices) == 0 {
		return nil, errors.New("it has no price")
	}
	return prices, nil
}

// ReadMeasurements reads what `millrace bench --json` has written, for one number
// of clients or several.
func ReadMeasurements(data []byte) ([]Measurement, error) {
	type report struct {
		Concurrency     int     `json:"concurrency"`
		TokensPerSecond float64 `json:"tokens_per_second"`
		PerToken        struct {
			P90 float64 `json:"p90_ms"`
		} `json:"time_per_output_token"`
	}
	var all []report
	if data = bytes.TrimSpace(data); len(data) > 0 && data[0] == '{' {
		data = slices.Concat([]byte("["), data, []byte("]"))
	}
	if err := json.Unmarshal(data, &all); err != nil {
		return nil, fmt.Errorf("not what millrace bench --json writes: %w", err)
	}
	var measured []Measurement
	for _, r := range all {
		if r.Concurrency < 1 || !(r.TokensPerSecond > 0) || !(r.PerToken.P90 > 0) {
			return nil, errors.New("expected results of millrace bench --concurrency, with streams, in which tokens came")
		}
		const milliseconds = 1000 // in a second
		measured = append(measured, Measurement{r.Concurrency, r.TokensPerSecond, milliseconds / r.PerToken.P90})
	}
	if len(measured) == 0 {
		return nil, errors.New("it has no result")
	}
	return measured, nil
}

// Check checks the demand; the errors name flags.
func (d *Demand) Check() error {
	switch {
	case d.Readers < 1 || d.Readers > 1_000_000:
		return fmt.Errorf("--readers %d: expected 1 to 1000000", d.Readers)
	case !(d.Speed > 0) || d.Speed > 100_000:
		return fmt.Errorf("--reader-speed %v: expected tokens per second", d.Speed)
	case len(d.Measured) == 0:
		return errors.New("--measured is missing: run `millrace bench --concurrency 1,2,4,8,16,32 --json FILE` on an instance, and give --measured ml.TYPE=FILE")
	}
	for name := range d.Measured {
		if _, ok := machineOf(name); !ok {
			return fmt.Errorf("--measured %s: expected a CPU instance type of the families c, m or r, such as ml.c7i.2xlarge", name)
		}
	}
	return nil
}

// Advise lists what the price table has, the cheapest way to meet the demand
// first, of equal ones what was measured and takes the fewest instances, and last
// what cannot meet it. d has passed Check.
func (d *Demand) Advise() []Choice {
	var all []Choice
	for name, price := range d.Prices {
		all = append(all, d.choice(name, price))
	}
	slices.SortFunc(all, func(a, b Choice) int {
		return cmp.Or(cmp.Compare(min(1, len(a.Problem)), min(1, len(b.Problem))),
			cmp.Compare(a.PerHour, b.PerHour), -cmp.Compare(a.Basis, b.Basis), cmp.Compare(a.Instances, b.Instances), cmp.Compare(a.Instance, b.Instance))
	})
	return all
}

func (d *Demand) choice(name string, price float64) Choice {
	m, ok := machineOf(name)
	c := Choice{Instance: name, Cores: m.cores, MemoryGiB: m.memoryGiB}
	if !ok {
		c.Problem = "not a CPU instance type whose size is known"
		return c
	}
	left := int64(float64(m.memoryGiB)*usableMemory*(1<<30)) - serverBytes - d.Model.Weights
	if left < d.Model.PerRequest || left <= 0 {
		c.Problem = "its memory is too small for the model"
		return c
	}
	tokens := 0.0
	if c.Readers, tokens, c.Basis = d.capacity(name, m); c.Basis == "" {
		c.Problem = "nothing was measured on " + m.family
		return c
	}
	if c.Readers == 0 {
		c.Problem = fmt.Sprintf("too slow for one reader at %g tokens/s", d.Speed)
		return c
	}
	if d.Model.PerRequest > 0 {
		if holds := int(min(left/d.Model.PerRequest, math.MaxInt32)); holds < c.Readers {
			tokens *= float64(holds) / float64(c.Readers)
			c.Readers = holds
		}
	}
	const thousandsOfHours = 0.0036 // million tokens of an hour at one a second
	c.Instances = (d.Readers + c.Readers - 1) / c.Readers
	c.PerHour = float64(c.Instances) * price
	c.PerMToken = price / (tokens * thousandsOfHours)
	return c
}

// capacity is how many readers an instance serves at the speed that they are to
// have, and how many tokens per second it then makes: as measured, or else by
// what was measured on the size of the family that is the nearest.
func (d *Demand) capacity(name string, m machine) (readers int, tokens float64, basis Basis) {
	best, ratio := "", math.Inf(1)
	for _, other := range slices.Sorted(maps.Keys(d.Measured)) {
		o, _ := machineOf(other)
		if o.family != m.family {
			continue
		}
		if r := math.Abs(math.Log(float64(m.cores) / float64(o.cores))); other == name || r < ratio {
			best, ratio = other, r
		}
		if other == name {
			break
		}
	}
	if best == "" {
		return 0, 0, ""
	}
	for _, run := range d.Measured[best] {
		if run.ReaderSpeed >= d.Speed && run.Clients > readers {
			readers, tokens = run.Clients, run.TokensPerSecond
		}
	}
	if best == name {
		return readers, tokens, Measured
	}
	o, _ := machineOf(best)
	scale := float64(m.cores) / float64(o.cores)
	scaled := int(float64(readers) * scale)
	if readers > 0 {
		tokens *= float64(scaled) / float64(readers)
	}
	return scaled, tokens, Estimated
}

// WriteAdvice writes the choices as a table, and what follows from it.
func (d *Demand) WriteAdvice(out io.Writer, all []Choice) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "instance\tcores\tmemory\treaders\tinstances\tprice/h\tprice/M tokens\t")
	for i := range all {
		c := &all[i]
		if c.Problem != "" {
			fmt.Fprintf(w, "%s\t%d\t%d GiB\t\t\t\t\t%s\n", c.Instance, c.Cores, c.MemoryGiB, c.Problem)
			continue
		}
		fmt.Fprintf(w, "%s\t%d\t%d GiB\t%d\t%d\t%.2f\t%.2f\t%s\n", c.Instance, c.Cores, c.MemoryGiB, c.Readers, c.Instances, c.PerHour, c.PerMToken, c.Basis)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if len(all) == 0 || all[0].Problem != "" {
		_, err := fmt.Fprintf(out, "\nNothing in the price table serves a reader at %g tokens/s: measure larger types, or quantise the model.\n", d.Speed)
		return err
	}
	best := &all[0]
	_, err := fmt.Fprintf(out, "\nFor %d readers at %g tokens/s: --instance-type %s --instances %d --env MAX_BATCH_SIZE=%d, %.2f an hour.\n",
		d.Readers, d.Speed, best.Instance, best.Instances, best.Readers, best.PerHour)
	if err == nil && best.Basis == Estimated {
		_, err = fmt.Fprintf(out, "That is estimated by its cores from another size of the family: measure %s before you rely on it.\n", best.Instance)
	}
	return err
}
