package deploy

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestCheck(t *testing.T) {
	empty, full := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "model.gguf"), nil, 0o666); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name    string
		change  func(*Spec)
		wantErr string // "": none
		note    string
	}{
		{name: "as it is", change: func(*Spec) {}},
		{name: "name too long", change: func(s *Spec) { s.Name = strings.Repeat("a", 64) }, wantErr: "at most 63 letters"},
		{name: "name with an underscore", change: func(s *Spec) { s.Name = "my_chat" }, wantErr: `name "my_chat"`},
		{name: "name ends in a hyphen", change: func(s *Spec) { s.Name = "chat-" }, wantErr: `name "chat-"`},
		{name: "public image", change: func(s *Spec) { s.Image = "public.ecr.aws/x/millrace:1" }},
		{name: "fallback types", change: func(s *Spec) { s.FallbackTypes = []string{"ml.c6i.2xlarge", "ml.m7i.2xlarge"} }},
		{name: "five fallback types", change: func(s *Spec) {
			s.FallbackTypes = []string{"ml.c5.large", "ml.c5.xlarge", "ml.m5.large", "ml.m5.xlarge", "ml.r5.large"}
		}, wantErr: "--fallback-type: 5, SageMaker takes 4 besides"},
		{name: "fallback type of another form", change: func(s *Spec) { s.FallbackTypes = []string{"c7i.large"} }, wantErr: "--fallback-type c7i.large: expected ml.FAMILY.SIZE"},
		{name: "fallback to Inferentia", change: func(s *Spec) { s.FallbackTypes = []string{"ml.inf2.xlarge"} }, wantErr: "not on Inferentia"},
		{name: "the same fallback", change: func(s *Spec) { s.FallbackTypes = []string{"ml.c7i.2xlarge"} }, wantErr: "--fallback-type ml.c7i.2xlarge: is there twice"},
		{name: "fallback to Graviton", change: func(s *Spec) { s.FallbackTypes = []string{"ml.c7g.2xlarge"} }, wantErr: "has another processor than ml.c7i.2xlarge"},
		{name: "fallback to a GPU", change: func(s *Spec) { s.FallbackTypes = []string{"ml.g6.xlarge"} }, wantErr: "only one of it and ml.c7i.2xlarge has a GPU"},
		{name: "fallback to a local disk", change: func(s *Spec) { s.FallbackTypes, s.VolumeGB = []string{"ml.c5d.2xlarge"}, 100 }, wantErr: "only one of it and ml.c7i.2xlarge has a local disk"},
		{name: "serverless with a fallback", change: func(s *Spec) {
			s.InstanceType, s.Serverless, s.FallbackTypes = "", &Serverless{MemoryMB: 4096, MaxConcurrency: 1}, []string{"ml.c5.large"}
		}, wantErr: "--fallback-type: not for a serverless endpoint"},
		{name: "shadow", change: func(s *Spec) { s.ShadowImage = s.Image + ".1" }},
		{name: "shadow of another registry", change: func(s *Spec) { s.ShadowImage = "ghcr.io/x/millrace" }, wantErr: "--shadow-image ghcr.io/x/millrace: expected an image in ECR"},
		{name: "shadow of an asynchronous endpoint", change: func(s *Spec) { s.ShadowImage, s.AsyncOutput = s.Image, "s3://a-bucket/b" }, wantErr: "--shadow-image: not with --async"},
		{name: "shadow and rolling", change: func(s *Spec) { s.ShadowImage, s.Rolling, s.Instances = s.Image, true, 2 }, wantErr: "--shadow-image: not with --update-strategy rolling"},
		{name: "shadow and fallback", change: func(s *Spec) { s.ShadowImage, s.FallbackTypes = s.Image, []string{"ml.c6i.2xlarge"} }, wantErr: "--shadow-image: not with --fallback-type"},
		{name: "no image", change: func(s *Spec) { s.Image = "" }, wantErr: "--image is missing"},
		{name: "image of another registry", change: func(s *Spec) { s.Image = "ghcr.io/x/millrace" }, wantErr: "expected an image in ECR"},
		{name: "image of another region", change: func(s *Spec) { s.Image = strings.Replace(s.Image, "eu-west-1", "us-east-1", 1) }, wantErr: "is in region us-east-1, the endpoint in eu-west-1"},
		{name: "no machine", change: func(s *Spec) { s.InstanceType = "" }, wantErr: "--instance-type is missing"},
		{name: "an EC2 type", change: func(s *Spec) { s.InstanceType = "c7i.2xlarge" }, wantErr: "expected ml.FAMILY.SIZE"},
		{name: "Inferentia", change: func(s *Spec) { s.InstanceType = "ml.inf2.xlarge" }, wantErr: "not on Inferentia"},
		{name: "GPU", change: func(s *Spec) { s.InstanceType = "ml.g5.xlarge" }, note: "the CPU image leaves it idle"},
		{name: "Graviton", change: func(s *Spec) { s.InstanceType = "ml.c8g.4xlarge" }, note: "linux/arm64"},
		{name: "unknown family", change: func(s *Spec) { s.InstanceType = "ml.z9.large" }, note: "does not know"},
		{name: "key for a disk in the machine", change: func(s *Spec) { s.InstanceType, s.KMSKey = "ml.m6gd.large", "k" }, wantErr: "--kms-key"},
		{name: "key for answers", change: func(s *Spec) { s.InstanceType, s.KMSKey, s.AsyncOutput = "ml.c5d.large", "k", "s3://out/a" }},
		{name: "size of a disk in the machine", change: func(s *Spec) { s.InstanceType, s.VolumeGB = "ml.g5.xlarge", 100 }, wantErr: "--volume-size"},
		{name: "large disk", change: func(s *Spec) { s.VolumeGB = 513 }, wantErr: "expected 1 to 512 GB"},
		{name: "no instance", change: func(s *Spec) { s.Instances = 0 }, wantErr: "--instances 0"},
		{name: "rolling over one", change: func(s *Spec) { s.Rolling = true }, wantErr: "--instances 2 or more"},
		{name: "timeout", change: func(s *Spec) { s.StartupTimeout = 2 * time.Hour }, wantErr: "expected 1m0s to 1h0m0s"},
		{name: "serverless", change: func(s *Spec) { s.InstanceType, s.Serverless = "", &Serverless{4096, 5} }},
		{name: "serverless on instances", change: func(s *Spec) { s.Serverless = &Serverless{4096, 5} }, wantErr: "--instance-type"},
		{name: "serverless memory", change: func(s *Spec) { s.InstanceType, s.Serverless = "", &Serverless{1500, 5} }, wantErr: "memory 1500 MB"},
		{name: "serverless concurrency", change: func(s *Spec) { s.InstanceType, s.Serverless = "", &Serverless{1024, 201} }, wantErr: "concurrency 201"},
		{name: "serverless isolated", change: func(s *Spec) { s.InstanceType, s.Serverless, s.NetworkIsolation = "", &Serverless{1024, 1}, true }, wantErr: "--network-isolation"},
		{name: "async output", change: func(s *Spec) { s.AsyncOutput = "out" }, wantErr: "--async out"},
		{name: "prefix without a slash", change: func(s *Spec) { s.Model = "s3://models/llama" }, wantErr: "did you mean s3://models/llama/"},
		{name: "archive", change: func(s *Spec) { s.Model = "s3://models/llama/model.tar.gz" }},
		{name: "no bucket's name", change: func(s *Spec) { s.Model = "s3://M_/x/" }, wantErr: "expected s3://BUCKET"},
		{name: "folder without bucket", change: func(s *Spec) { s.Model = full }, wantErr: "--bucket"},
		{name: "neither folder nor bucket", change: func(s *Spec) { s.Model = "models/llama" }, wantErr: "no such folder (a model in S3 is s3://…)"},
		{name: "folder that is none", change: func(s *Spec) { s.Model, s.Bucket = filepath.Join(empty, "x"), "models" }, wantErr: "no such folder"},
		{name: "folder without a model", change: func(s *Spec) { s.Model, s.Bucket = empty, "models" }, wantErr: "holds no model"},
		{name: "stream without network", change: func(s *Spec) { s.StreamModel, s.NetworkIsolation = true, true }, wantErr: "--stream-model"},
		{name: "model twice", change: func(s *Spec) { s.StreamModel, s.Env = true, map[string]string{"MODEL_ID": "x"} }, wantErr: "--env MODEL_ID"},
		{name: "role by name", change: func(s *Spec) { s.Role = "sagemaker" }, wantErr: "expected arn:aws:iam::ACCOUNT:role/NAME"},
		{name: "a role and one that is made", change: func(s *Spec) { s.CreateRole = true }, wantErr: "--create-role makes a role"},
		{name: "role of a service path in China", change: func(s *Spec) { s.Role = "arn:aws-cn:iam::123456789012:role/service-role/x" }},
		{name: "variable's name", change: func(s *Spec) { s.Env = map[string]string{"A-B": "1"} }, wantErr: `--env "A-B"`},
		{name: "long variable", change: func(s *Spec) { s.Env = map[string]string{"A": strings.Repeat("x", 1025)} }, wantErr: "--env A: 1025 bytes"},
		{name: "longest variable", change: func(s *Spec) { s.Env = map[string]string{"A": strings.Repeat("x", 1024)} }},
		{name: "many variables", change: func(s *Spec) {
			s.Env = map[string]string{}
			for i := range 101 {
				s.Env[fmt.Sprint("V", i)] = ""
			}
		}, wantErr: "101 variables"},
		{name: "variables too long in all", change: func(s *Spec) {
			s.Env = map[string]string{}
			for i := range 40 {
				s.Env[fmt.Sprint("V", i)] = strings.Repeat("x", 1000)
			}
		}, wantErr: "bytes in all"},
		{name: "subnet alone", change: func(s *Spec) { s.Subnets = []string{"subnet-1"} }, wantErr: "takes both"},
		{name: "subnet and group mixed up", change: func(s *Spec) { s.Subnets, s.SecurityGroups = []string{"sg-1"}, []string{"subnet-1"} }, wantErr: "--subnet sg-1"},
		{name: "AWS's own tag", change: func(s *Spec) { s.Tags = map[string]string{"aws:x": "1"} }, wantErr: `--tag "aws:x"`},
		{name: "our own tag", change: func(s *Spec) { s.Tags = map[string]string{tagKey: "1"} }, wantErr: "deploy sets it"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := testSpec()
			tt.change(s)
			notes, err := s.Check("eu-west-1")
			if (err == nil) != (tt.wantErr == "") || err != nil && !strings.Contains(err.Error(), tt.wantErr) {
				t.Errorf("error %v, want %q", err, tt.wantErr)
			}
			if got := strings.Join(notes, "\n"); !strings.Contains(got, tt.note) || tt.note == "" && got != "" {
				t.Errorf("notes %q, want %q", got, tt.note)
			}
		})
	}
}

// A long name leaves room for the digest, and two that are cut to the same do
// not share parts.
func TestPartNames(t *testing.T) {
	names := map[string]bool{}
	for _, end := range []string{"a", "b"} {
		s := testSpec()
		s.Name = strings.Repeat("x", 62) + end
		r, err := s.requests("eu-west-1", s.Role, s.Model)
		if err != nil {
			t.Fatal(err)
		}
		if err := CheckName(*r.model.ModelName); err != nil || !partName.MatchString(*r.model.ModelName) {
			t.Errorf("%s: no name of a part: %v", *r.model.ModelName, err)
		}
		names[*r.model.ModelName] = true
	}
	if len(names) != 2 {
		t.Errorf("one name for two endpoints: %v", names)
	}
}

func TestReadFolder(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	write("model/config.json", "{}")
	write("model/.cache/x", "hidden")
	write("model/sub/adapter.safetensors", "weights")
	write("blobs/1234", "weights")
	if err := os.Symlink("../blobs/1234", filepath.Join(dir, "model/model.safetensors")); err != nil {
		t.Fatal(err)
	}
	files, err := readFolder(filepath.Join(dir, "model"))
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	for _, f := range files {
		got += fmt.Sprintf("%s %d\n", f.name, f.size)
	}
	if want := "config.json 2\nmodel.safetensors 7\nsub/adapter.safetensors 7\n"; got != want {
		t.Errorf("files\n%s, want\n%s", got, want)
	}
	write("model/more.safetensors.partial", "half")
	if _, err := readFolder(filepath.Join(dir, "model")); err == nil || !strings.Contains(err.Error(), "not complete") {
		t.Errorf("with the rest of a download: %v", err)
	}
}
