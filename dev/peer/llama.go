package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
)

// batched is a line of llama-batched-bench.
type batched struct {
	Prompt  int     `json:"pp"`
	New     int     `json:"tg"`
	Streams int     `json:"pl"`
	Prefill float64 `json:"speed_pp"`
	Decode  float64 `json:"speed_tg"`
}

// batchedBench runs llama-batched-bench on a file.
func (m *model) batchedBench(path string, prompt, tokens int, streams []int) (list []batched, err error) {
	numbers := make([]string, len(streams))
	for i, n := range streams {
		numbers[i] = strconv.Itoa(n)
	}
	context := (prompt + tokens) * slices.Max(streams)
	out, err := exec.Command(m.llama("llama-batched-bench"), "-m", path, "-t", strconv.Itoa(m.settings.threads),
		"-c", strconv.Itoa(context+256), "-npp", strconv.Itoa(prompt), "-ntg", strconv.Itoa(tokens), "-npl", strings.Join(numbers, ","),
		"--output-format", "jsonl").Output()
	if err != nil {
		return nil, fmt.Errorf("llama-batched-bench: %w", err)
	}
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		var b batched
		if text := bytes.TrimSpace(lines.Bytes()); len(text) > 0 && text[0] == '{' {
			if err := json.Unmarshal(text, &b); err != nil {
				return nil, fmt.Errorf("llama-batched-bench: %w", err)
			}
			list = append(list, b)
		}
	}
	if len(list) != len(streams) {
		return nil, fmt.Errorf("llama-batched-bench printed %d of %d lines: %s", len(list), len(streams), out)
	}
	return list, nil
}

// measureLlama runs the same loads as measureOurs.
func (m *model) measureLlama(r *result, format string, main bool, round int) error {
	path := m.gguf(format)
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	r.add(measurement{Shape: m.name, Test: testWeights, Streams: 1, Engine: llama, Format: format, Unit: megabytes, Value: float64(info.Size()) / 1e6})
	add := func(test string, streams int, value float64) {
		r.add(measurement{Shape: m.name, Test: test, Streams: streams, Engine: llama, Format: format, Unit: tokensPerSecond, Value: value})
	}
	if m.settings.wants(partPrefill) {
		list, err := m.batchedBench(path, m.prompt(), 1, []int{1})
		if err != nil {
			return err
		}
		r.add(prefill(measurement{Shape: m.name, Engine: llama, Format: format}, m.prompt(), list[0].Prefill))
	}
	if m.settings.wants(partDecode) && len(m.streams()) > 0 {
		list, err := m.batchedBench(path, shortPrompt, newTokens, m.streams())
		if err != nil {
			return err
		}
		for _, b := range list {
			add(testDecode, b.Streams, b.Decode)
		}
	}
	if main && m.first && m.settings.wants(partBusy) {
		stop, err := busy()
		if err != nil {
			return err
		}
		list, err := m.batchedBench(path, shortPrompt, newTokens, []int{busyStreams})
		stop()
		if err != nil {
			return err
		}
		add(testBusy, busyStreams, list[0].Decode)
	}
	if main && m.first && round == 0 && m.settings.wants(partLong) {
		list, err := m.batchedBench(path, longPrompt, longTokens, []int{1})
		if err != nil {
			return err
		}
		r.add(prefill(measurement{Shape: m.name, Engine: llama, Format: format}, longPrompt, list[0].Prefill))
		add(testDecodeLong, 1, list[0].Decode)
	}
	return nil
}
