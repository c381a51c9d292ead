package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// metric returns a number of /metrics.
func (p *process) metric(name string) int {
	p.t.Helper()
	_, body := p.get("/metrics")
	found := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(name) + ` (\d+)$`).FindStringSubmatch(body)
	if found == nil {
		p.t.Fatalf("no %s in %s", name, body)
	}
	n, err := strconv.Atoi(found[1])
	if err != nil {
		p.t.Fatal(err)
	}
	return n
}

// Copies of the model on two GPUs answer as one does. When one is lost, the server ends.
func TestReplicas(t *testing.T) {
	shim := filepath.Join("..", "build", "cuda", "libmillrace_cuda_shim.so")
	if _, err := os.Stat(shim); err != nil {
		t.Skipf("`make cuda-shim` builds it: %v", err)
	}
	dir := tinyFolder(t)
	env := []string{"MODEL_ID=" + dir, "MILLRACE_DEVICE=cuda", "MILLRACE_CUDA_LIBRARY=" + shim, "MILLRACE_SHIM_DEVICES=2",
		"MILLRACE_CUDA_TILED=off"} // without the self-test, which takes longer than all else
	ask := func(p *process, i int) (status int, body string) {
		t.Helper()
		return p.post("/generate", fmt.Sprintf(`{"inputs":"the quick brown %d fox","parameters":{"max_new_tokens":8}}`, i))
	}
	one, two := start(t, []string{"MODEL_ID=" + dir, "MILLRACE_DEVICE=ref"}).ready(), start(t, env, "--replicas", "2").ready()
	tokens := 0
	for i := range 2 {
		_, want := ask(one, i)
		if status, got := ask(two, i); status != 200 || got != want {
			t.Errorf("request %d: %d %s, one replica %s", i, status, got, want)
		}
		n := two.metric(fmt.Sprintf(`millrace_replica_generated_tokens_total{replica="%d"}`, i))
		if n == 0 {
			t.Errorf("replica %d has generated nothing", i)
		}
		tokens += n
	}
	if n := two.metric("millrace_generated_tokens_total"); n != tokens {
		t.Errorf("%d tokens are generated, on the replicas %d", n, tokens)
	}
	if err := two.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if status := two.wait(); status != 0 {
		t.Errorf("exit status %d after SIGTERM, want 0", status)
	}
	if !strings.Contains(two.logged(), `"replicas":2`) || !strings.Contains(two.logged(), `"detail":"2 replicas on `) {
		t.Error("the log does not tell of two replicas")
	}

	faulty := start(t, append(env, "MILLRACE_SHIM_FAULT=update_kernel:6"), "--replicas", "2").ready()
	status, body := 200, ""
	for i := 0; i < 100 && status == 200; i++ {
		status, body = ask(faulty, i)
	}
	if ended := faulty.wait(); ended != 1 || status != 424 || !strings.Contains(faulty.logged(), "the engine has failed: replica ") {
		t.Errorf("a replica is lost: %d %s, exit status %d; want 424, 1, and the replica's number in the log", status, body, ended)
	}

	for want, args := range map[string][]string{
		"--device=cuda --replicas=3: not supported by this backend: 3 GPUs are asked for, there are 2":               {"--replicas", "3"},
		"--device=cuda --num-shard=2 --replicas=2: not supported by this backend: 4 GPUs are asked for, there are 2": {"--replicas", "2", "--num-shard", "2"},
		"--replicas=2: --device is cpu, whose cores would be divided among the copies":                               {"--replicas=2", "--device", "cpu"},
		"--replicas=2: --device is auto, whose cores would be divided among the copies":                              {"--replicas=2", "--device", "auto"},
	} {
		if status, stderr := ended(t, command(env, append([]string{"serve"}, args...)...)); status != 2 || !strings.Contains(stderr, want) {
			t.Errorf("%v: status %d, %q; want 2 and %q", args, status, stderr, want)
		}
	}
}

// All replicas read images, and start from prefix files.
func TestReplicasReadImages(t *testing.T) {
	dir := seeingFolder(t, "llava", `{"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 12}, "crop_size": {"height": 12, "width": 12}}`,
		`{"patch_size": 4, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1, "image_token": "<image>"}`)
	env := []string{"MODEL_ID=" + dir, "MILLRACE_DEVICE=ref"}
	file := writePrefix(t, env[1:], dir, strings.Repeat("w7 w8 ", 20))
	one, two := start(t, env).ready(), start(t, env, "--replicas", "2", "--prefix-cache-file", file).ready()
	for deadline := time.Now().Add(patience); two.metric("millrace_kv_pages_cached") != 4; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d pages are cached, want those of the prefix file twice, 4", two.metric("millrace_kv_pages_cached"))
		}
	}
	for i := range 2 {
		body := `{"temperature":0,"max_tokens":8,"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"` + picture(t, 1+i) + `"}}]}]}`
		want, _ := answered(t, one, body)
		if got, _ := answered(t, two, body); got != want {
			t.Errorf("picture %d: %q, one replica %q", i, got, want)
		}
		if two.metric(fmt.Sprintf(`millrace_replica_generated_tokens_total{replica="%d"}`, i)) == 0 {
			t.Errorf("replica %d has generated nothing", i)
		}
	}
}
