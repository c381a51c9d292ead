package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"

	"github.com/millrace-ai/millrace/engine/plan"
)

func TestGeneratedFilesAreCurrent(t *testing.T) {
	const root = "../.."
	files, err := generate(root)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range files {
		if got, err := os.ReadFile(filepath.Join(root, name)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not what `make models` writes (%v)", name, err)
		}
	}
}

// TestEveryFamilyIsTested: what is listed was compared with transformers, and
// people can tell which models it is about.
func TestEveryFamilyIsTested(t *testing.T) {
	for _, f := range plan.Families() {
		if len(f.Tested) == 0 {
			t.Errorf("%s: no checkpoint in engine/testdata", f.Type)
		}
		if f.Models == "" {
			t.Errorf("%s: no models are named", f.Type)
		}
	}
}

// TestREADMECountsFamilies: the number that the README gives is a round one, below
// the true one and near it.
func TestREADMECountsFamilies(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`more than (\d+) families`).FindSubmatch(text)
	if m == nil {
		t.Fatal("README.md does not say how many families there are")
	}
	if n, _ := strconv.Atoi(string(m[1])); len(plan.Families()) <= n || len(plan.Families()) > n+20 {
		t.Errorf("README.md says more than %d families, there are %d", n, len(plan.Families()))
	}
}
