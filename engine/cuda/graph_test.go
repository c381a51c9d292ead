package cuda_test

import (
	"errors"
	"os"
	"os/exec"
	"reflect"
	"testing"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/plan"
)

const (
	graphsVariable = "MILLRACE_CUDA_GRAPHS"
	faultVariable  = "MILLRACE_SHIM_FAULT"
	longPrompt     = 250 // a little less than one split of attention
)

// outcome is what steps leave behind: the answers, and all pages.
type outcome struct {
	results []device.RowResult
	pages   [][]byte
}

// steps runs prompts, then steps of one, two and three of three sequences, so that a graph
// has rows that no sequence has, and attention, after long prompts, more than one split.
func steps(t *testing.T, gpus, prompt int) (o outcome, err error) {
	t.Helper()
	m := newModelOf(t, gpus, planOf(t, "tiny"), plan.BF16, 3, prompt+20, 3*prompt)
	defer m.b.Close()
	m.prompts(t, prompt, 3*prompt)
	lengths := []int{prompt, prompt, prompt}
	for _, seqs := range []int{3, 3, 1, 2, 1, 1, 1, 1, 1, 1} {
		i := m.fill(0, seqs, lengths, 1)
		if err := m.b.Forward(i); err != nil {
			return o, err
		}
		if err := m.b.Sample(i); err != nil {
			return o, err
		}
		if err := m.b.Wait(i); err != nil {
			return o, err
		}
		o.results = append(o.results, m.b.Batch(i).Results...)
		for s := range seqs {
			lengths[s]++
		}
	}
	for i := range m.seqs * m.pages {
		page := make([]byte, m.pageBytes)
		if err := m.b.ReadPage(i, page); err != nil {
			return o, err
		}
		o.pages = append(o.pages, page)
	}
	return o, nil
}

// TestGraphs compares steps that are graphs with the same without: answers, and all that
// is in pages, also in those that no sequence has.
func TestGraphs(t *testing.T) {
	got, err := steps(t, 1, longPrompt)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(graphsVariable, "off")
	want, err := steps(t, 1, longPrompt)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("steps as graphs answer %+v, without %+v; pages are the same: %t", got.results, want.results, reflect.DeepEqual(got.pages, want.pages))
	}
}

// TestGraphFaults runs in processes of their own, where a graph cannot be made or started.
func TestGraphFaults(t *testing.T) {
	shim(t)
	fault := os.Getenv(faultVariable)
	switch fault {
	case "":
		for _, fault := range []string{"cudaGraphInstantiate:2", "cudaGraphLaunch:2"} {
			cmd := exec.Command(os.Args[0], "-test.run", "^TestGraphFaults$")
			cmd.Env = append(os.Environ(), faultVariable+"="+fault)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%s: %v\n%s", fault, err, out)
			}
		}
	case "cudaGraphInstantiate:2": // too little memory: steps go on without
		TestGraphs(t)
	default:
		if _, err := steps(t, 1, longPrompt); !errors.Is(err, device.ErrLost) {
			t.Errorf("a step whose graph does not start: %v, expected that the device is lost", err)
		}
	}
}
