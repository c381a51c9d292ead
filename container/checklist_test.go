package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Every test that HOSTING.md names stands in the file that it names.
func TestHostingChecklist(t *testing.T) {
	list, err := os.ReadFile("HOSTING.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := 0
	for line := range strings.Lines(string(list)) {
		if !regexp.MustCompile(`^\| \d+ \|`).MatchString(line) {
			continue
		}
		rows++
		tests := regexp.MustCompile(`\[(\w+)\]\(([\w/.]+)\)`).FindAllStringSubmatch(line, -1)
		if len(tests) == 0 {
			t.Errorf("no test: %s", line)
		}
		for _, test := range tests {
			name, file := test[1], test[2]
			source, err := os.ReadFile(filepath.FromSlash(file))
			if err != nil {
				t.Error(err)
			} else if !strings.Contains(string(source), "func "+name+"(t ") && !strings.Contains(string(source), "def "+name+"(") {
				t.Errorf("%s has no test %s", file, name)
			}
		}
	}
	if rows != 19 {
		t.Errorf("%d rows, want 19", rows)
	}
}
