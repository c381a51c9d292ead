package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"

	"github.com/millrace-ai/millrace/dev/inprocess"
	"github.com/millrace-ai/millrace/engine"
	"github.com/millrace-ai/millrace/engine/sample"
	"github.com/millrace-ai/millrace/engine/token"
)

// question is one of choices.jsonl: of its answers one is right.
type question struct {
	Prompt  string   `json:"prompt"`
	Answers []string `json:"answers"`
	Right   int      `json:"right"`
}

// encoder returns the tokens of a text, without those that begin and end texts.
type encoder func(text string) ([]int32, error)

// choiceSlots is how many answers are scored at once.
const choiceSlots = 16

func readQuestions(path string) (questions []question, err error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	for d := json.NewDecoder(bytes.NewReader(data)); ; {
		var q question
		if err := d.Decode(&q); err == io.EOF {
			return questions, nil
		} else if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		questions = append(questions, q)
	}
}

// choose returns which answer the model chooses for each question: the one with the
// greatest probability after the prompt, its logarithm divided by the answer's bytes,
// as lm-evaluation-harness's acc_norm has it. begin starts each text.
func choose(e *inprocess.Engine, encode encoder, questions []question, begin []int32) ([]int, error) {
	chosen, errs := make([]int, len(questions)), make([]error, len(questions))
	var wait sync.WaitGroup
	free := make(chan struct{}, choiceSlots)
	for i, q := range questions {
		free <- struct{}{}
		wait.Go(func() {
			defer func() { <-free }()
			best := math.Inf(-1)
			for k, answer := range q.Answers {
				p, err := logprob(e, encode, begin, q.Prompt, " "+answer)
				if err != nil {
					errs[i] = fmt.Errorf("question %d: %w", i, err)
					return
				}
				if p /= float64(len(answer) + 1); p > best {
					best, chosen[i] = p, k
				}
			}
		})
	}
	wait.Wait()
	return chosen, errors.Join(errs...)
}

// logprob returns the logarithm of the probability of answer after prompt.
func logprob(e *inprocess.Engine, encode encoder, begin []int32, prompt, answer string) (sum float64, err error) {
	before, err := encode(prompt)
	if err != nil {
		return 0, err
	}
	ids, err := encode(prompt + answer)
	if err != nil {
		return 0, err
	}
	same := 0
	for same < min(len(before), len(ids)-1) && before[same] == ids[same] {
		same++
	}
	ctx := context.Background()
	s, err := e.Submit(ctx, &engine.Request{Tokens: slices.Concat(begin, ids), PromptLogprobs: true, Params: sample.Greedy()})
	if err != nil {
		return 0, err
	}
	defer s.Close()
	if _, err := s.Next(ctx); err != io.EOF {
		return 0, fmt.Errorf("scoring ended with %w", err)
	}
	for _, t := range s.Prompt()[len(begin)+same:] {
		sum += float64(t.Logprob)
	}
	return sum, nil
}

// choiceRow says what a format chooses of the answers.
type choiceRow struct {
	Format string `json:"format"`
	Right  int    `json:"right"`
	// Lost and Won are the questions that bf16 answers right and this format wrong,
	// and the other way round.
	Lost int `json:"lost"`
	Won  int `json:"won"`
	// Chosen is a digit for each question, the number of the answer.
	Chosen string `json:"chosen,omitempty"`
}

// choices adds what a format chooses.
func (m *measurer) choices(e *inprocess.Engine, format string) error {
	all, err := readQuestions(filepath.Join(m.settings.dir, "choices.jsonl"))
	if err != nil {
		return err
	}
	questions := some(all, m.questions)
	t, err := token.Load(filepath.Join(m.dir, "hf"))
	if err != nil {
		return err
	}
	defer t.Close()
	r := choiceRow{Format: format}
	encode := func(text string) ([]int32, error) { return t.Encode(text, false) }
	answers, err := choose(e, encode, questions, m.begin)
	if err != nil {
		return err
	}
	for _, a := range answers {
		r.Chosen += strconv.Itoa(a)
	}
	m.table.putChoices(r, questions)
	return m.table.write(m.kept())
}

// some returns n of the questions, or all if they are fewer, from all parts of the list.
func some(all []question, n int) []question {
	if n >= len(all) {
		return all
	}
	var list []question
	for i := range n {
		list = append(list, all[i*len(all)/n])
	}
	return list
}

// putChoices compares a format's answers with those of bf16, which is the first, and adds
// them or replaces what the format answered before. bf16, or another number of questions,
// replaces all.
func (t *table) putChoices(r choiceRow, questions []question) {
	if r.Format == chosen[0] || t.Questions != len(questions) {
		t.Choices = nil
	}
	t.Choices = slices.DeleteFunc(t.Choices, func(old choiceRow) bool { return old.Format == r.Format })
	base := r.Chosen
	if len(t.Choices) > 0 {
		base = t.Choices[0].Chosen
	}
	for i, q := range questions {
		is, was := r.Chosen[i] == '0'+byte(q.Right), base[i] == '0'+byte(q.Right)
		switch {
		case is && !was:
			r.Won++
		case was && !is:
			r.Lost++
		}
		if is {
			r.Right++
		}
	}
	t.Questions, t.Choices = len(questions), append(t.Choices, r)
}

// lost returns the share of the questions that a format answers wrong beyond bf16,
// and noise what of it these questions cannot tell from nothing: two standard
// deviations, if each answer that changed was as likely to become right as wrong
// (McNemar's test).
func (t *table) lost(r choiceRow) (lost, noise float64) {
	n := float64(t.Questions)
	return float64(r.Lost-r.Won) / n, 2 * math.Sqrt(float64(r.Lost+r.Won)) / n
}
