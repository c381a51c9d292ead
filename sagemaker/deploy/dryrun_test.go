package deploy

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the goldens in testdata")

// The goldens are the requests that would be sent.
func TestDryRun(t *testing.T) {
	model := t.TempDir()
	for name, text := range map[string]string{"config.json": "{}", "model.safetensors": "weights"} {
		if err := os.WriteFile(filepath.Join(model, name), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		name   string
		before *Spec // deployed before
		change func(*Spec)
	}{
		{name: "realtime", change: func(s *Spec) {
			s.Env = map[string]string{"MAX_TOTAL_TOKENS": "4096", "QUANTIZE": "int8"}
			s.Tags = map[string]string{"team": "search"}
			s.VolumeGB, s.KMSKey = 100, "alias/models"
		}},
		{name: "vpc", change: func(s *Spec) {
			s.Subnets, s.SecurityGroups, s.NetworkIsolation = []string{"subnet-1", "subnet-2"}, []string{"sg-1"}, true
			s.Model = "s3://models/llama/model.tar.gz"
		}},
		{name: "gpu-streamed", change: func(s *Spec) { s.InstanceType, s.StreamModel = "ml.g6.xlarge", true }},
		{name: "serverless", change: func(s *Spec) { s.InstanceType, s.Serverless = "", &Serverless{MemoryMB: 6144, MaxConcurrency: 5} }},
		{name: "async", change: func(s *Spec) { s.AsyncOutput, s.KMSKey = "s3://answers/chat/", "alias/answers" }},
		{name: "folder", change: func(s *Spec) { s.Model, s.Bucket = model, "models/teams" }},
		{name: "fallback", change: func(s *Spec) { s.FallbackTypes = []string{"ml.c6i.2xlarge", "ml.m7i.2xlarge"} }},
		{name: "shadow", change: func(s *Spec) { s.ShadowImage = s.Image + ".1" }},
		{name: "role", change: func(s *Spec) { s.Role, s.CreateRole = "", true }},
		{name: "update", before: testSpec(), change: func(s *Spec) { s.Instances, s.Rolling = 4, true }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, s := newFake(t), testSpec()
			if tt.before != nil {
				c, _ := f.dial(false)
				if err := c.Deploy(context.Background(), tt.before, true, nil); err != nil {
					t.Fatal(err)
				}
			}
			f.took()
			tt.change(s)
			if _, err := s.Check("eu-west-1"); err != nil {
				t.Fatal(err)
			}
			c, _ := f.dial(true)
			if err := c.Deploy(context.Background(), s, true, func(int64, int64) {}); err != nil {
				t.Fatal(err)
			}
			if calls := f.took(); len(calls) > 0 {
				t.Errorf("a dry run called %q", calls)
			}
			got, err := json.MarshalIndent(c.Requests(), "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, '\n')
			path := filepath.Join("testdata", tt.name+".json")
			if *update {
				if err := os.WriteFile(path, got, 0o666); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("requests\n%s\nwant those of %s\n%s", got, path, want)
			}
		})
	}
}

// Without credentials a dry run asks nobody, and takes nothing to be there.
func TestDryRunWithoutCredentials(t *testing.T) {
	f := newFake(t)
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "")
	f.faults["DescribeEndpoint"] = []string{"InternalFailure: was asked"}
	c, _ := f.dial(true)
	if err := c.Deploy(context.Background(), testSpec(), true, nil); err != nil {
		t.Fatal(err)
	}
	if got := len(c.Requests()); got != 3 || !c.Offline() {
		t.Errorf("%d requests, offline %v; want 3, true", got, c.Offline())
	}
	if len(f.faults["DescribeEndpoint"]) != 1 {
		t.Error("AWS was asked")
	}
}
