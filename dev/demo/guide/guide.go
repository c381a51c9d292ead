// Package guide reads the text that the demo model learns from, a guide to
// Millrace in questions and answers, and writes it down for people to read.
package guide

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// Chapter is one file of the guide.
type Chapter struct {
	File   string
	Title  string
	Topics []Topic
}

// Topic is an answer and the ways to ask for it.
type Topic struct {
	Name     string
	Answer   string
	Wordings []string // patterns, where [a|b] stands for either
}

// Read returns the chapters in a folder. Files without topics are left out.
func Read(folder string) ([]Chapter, error) {
	paths, err := filepath.Glob(filepath.Join(folder, "*.md"))
	if err != nil {
		return nil, err
	}
	var chapters []Chapter
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		c := parse(string(text))
		c.File = filepath.Base(path)
		if len(c.Topics) > 0 {
			chapters = append(chapters, c)
		}
	}
	if len(chapters) == 0 {
		return nil, fmt.Errorf("%s holds no topics", folder)
	}
	return chapters, nil
}

func parse(text string) Chapter {
	var c Chapter
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		mark, rest, _ := strings.Cut(line, " ")
		switch {
		case mark == "##":
			c.Topics = append(c.Topics, Topic{Name: rest})
		case mark == "#":
			if c.Title == "" {
				c.Title = rest
			}
		case line == "" || len(c.Topics) == 0 || mark == "?" || mark == "=":
		case mark == "-":
			t := &c.Topics[len(c.Topics)-1]
			t.Wordings = append(t.Wordings, rest)
		default:
			t := &c.Topics[len(c.Topics)-1]
			t.Answer = strings.TrimSpace(t.Answer + " " + line)
		}
	}
	return c
}

var (
	choice = regexp.MustCompile(`\[([^\[\]|]*)\|[^\[\]]*\]`)
	spaces = regexp.MustCompile(` +([?.!,]|$)`)
)

// Question returns the first wording that is a question, with the first of its
// choices, or else the topic's name.
func (t Topic) Question() string {
	for _, w := range t.Wordings {
		if strings.HasSuffix(w, "?") {
			plain := choice.ReplaceAllString(w, "$1")
			return spaces.ReplaceAllString(strings.Join(strings.Fields(plain), " "), "$1")
		}
	}
	return t.Name
}
