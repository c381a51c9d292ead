package deploy

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// What Lambda would refuse is refused before it is asked, by the flag's name.
func TestCheck(t *testing.T) {
	for _, tt := range []struct {
		want   string
		change func(*Spec)
	}{
		{"", func(*Spec) {}},
		{`name "a b": expected at most 64`, func(s *Spec) { s.Name = "a b" }},
		{"expected at most 64", func(s *Spec) { s.Name = strings.Repeat("a", 65) }},
		{"--image x/y:1: expected an image in a private registry", func(s *Spec) { s.Image = "x/y:1" }},
		{"Lambda takes images from no other, public.ecr.aws neither", func(s *Spec) { s.Image = "public.ecr.aws/a/b:1" }},
		{"is in region us-east-1, the function in eu-west-1", func(s *Spec) { s.Image = strings.ReplaceAll(s.Image, "eu-west-1", "us-east-1") }},
		{"--memory 127: expected 128 to 10240 MB", func(s *Spec) { s.MemoryMB = 127 }},
		{"--memory 10241", func(s *Spec) { s.MemoryMB = 10_241 }},
		{"--tmp 511: expected 512 to 10240 MB", func(s *Spec) { s.TmpMB = 511 }},
		{"--tmp 10241", func(s *Spec) { s.TmpMB = 10_241 }},
		{"--tmp 1024: with --snap-start", func(s *Spec) { s.SnapStart, s.TmpMB = true, 1024 }},
		{"--timeout 15m1s: expected whole seconds, 1s to 15m0s", func(s *Spec) { s.Timeout = 901 * time.Second }},
		{"--timeout 1.5s", func(s *Spec) { s.Timeout = 1500 * time.Millisecond }},
		{"--model ./llama: expected s3://BUCKET/PREFIX/", func(s *Spec) { s.Model = "./llama" }},
		{"did you mean s3://models/llama/ ?", func(s *Spec) { s.Model = "s3://models/llama" }},
		{"--env MODEL_ID: --model sets it", func(s *Spec) { s.Env = map[string]string{"MODEL_ID": "x"} }},
		{"--env AWS_LAMBDA_RUNTIME_API: Lambda sets it itself", func(s *Spec) { s.Env = map[string]string{"AWS_LAMBDA_RUNTIME_API": "x"} }},
		{"--env AWS_REGION: Lambda sets it itself", func(s *Spec) { s.Env = map[string]string{"AWS_REGION": "x"} }},
		{`--env "_A": expected a name`, func(s *Spec) { s.Env = map[string]string{"_A": "x"} }},
		{"--env LAMBDA_INVOKE_MODE=stream: the URL's mode is buffered", func(s *Spec) {
			s.Buffered, s.Env = true, map[string]string{"LAMBDA_INVOKE_MODE": "stream"}
		}},
		{"bytes in all, Lambda takes 4096", func(s *Spec) { s.Env = map[string]string{"A0": strings.Repeat("x", 4096)} }},
		{"--role x: expected arn:", func(s *Spec) { s.Role = "x" }},
		{"--create-role makes a role, and --role names one", func(s *Spec) { s.CreateRole = true }},
		{"--tag millrace:function: deploy sets it", func(s *Spec) { s.Tags = map[string]string{tagKey: "x"} }},
	} {
		s := testSpec()
		tt.change(s)
		_, err := s.Check("eu-west-1")
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("error %v, want %q", err, tt.want)
		}
	}
}

// What is allowed but may surprise is said.
func TestNotes(t *testing.T) {
	s := testSpec()
	if notes, err := s.Check("eu-west-1"); err != nil || notes != nil {
		t.Errorf("notes %q, %v", notes, err)
	}
	s.Image, s.URL = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/millrace:1", PublicURL
	notes, err := s.Check("eu-west-1")
	if err != nil || len(notes) != 2 || !strings.Contains(notes[0], "by a tag") || !strings.Contains(notes[1], "API_KEY") {
		t.Errorf("notes %q, %v", notes, err)
	}
}

// The role may do what the Terraform module's may, and create the log group, which
// the module does itself.
func TestPolicy(t *testing.T) {
	text, err := os.ReadFile(filepath.FromSlash("../../../terraform/modules/lambda-function/role.tf"))
	if err != nil {
		t.Fatal(err)
	}
	module := map[string][]string{}
	quoted := regexp.MustCompile(`"([a-z0-9]+:[A-Za-z*]+)"`)
	for _, block := range strings.Split(string(text), "Sid ")[1:] {
		sid := regexp.MustCompile(`^\s*= "(\w+)`).FindStringSubmatch(block)[1]
		_, block, _ = strings.Cut(block, "Action")
		block, _, _ = strings.Cut(block, "Resource")
		for _, m := range quoted.FindAllStringSubmatch(block, -1) {
			module[sid] = append(module[sid], m[1])
		}
	}
	s := testSpec()
	s.Env = map[string]string{"PREFIX_CACHE_FILE": "s3://prefixes/a.prefix,/opt/b.prefix", "QUEUE_OUTPUT": "s3://answers/small/"}
	want := map[string]struct {
		resources []string
		actions   []string
	}{
		"Logs":    {[]string{"arn:aws:logs:eu-west-1:123456789012:log-group:/aws/lambda/small:*"}, append([]string{"logs:CreateLogGroup"}, module["Logs"]...)},
		"Read0":   {[]string{"arn:aws:s3:::models/llama/*"}, module["Weights"]},
		"List0":   {[]string{"arn:aws:s3:::models"}, module["List"]},
		"Read1":   {[]string{"arn:aws:s3:::prefixes/a.prefix", "arn:aws:s3:::prefixes/a.prefix/*"}, module["Weights"]},
		"List1":   {[]string{"arn:aws:s3:::prefixes"}, module["List"]},
		"Answers": {[]string{"arn:aws:s3:::answers/small/*"}, module["Answers"]},
	}
	policy := s.Policy("eu-west-1", s.Account())
	var seen []string
	for _, st := range policy.Permissions.Statement {
		seen = append(seen, st.Sid)
		if w := want[st.Sid]; len(w.actions) == 0 || !slices.Equal(st.Resource, w.resources) || !slices.Equal(st.Action, w.actions) {
			t.Errorf("%s: %q on %q, want %+v", st.Sid, st.Action, st.Resource, w)
		}
	}
	slices.Sort(seen)
	if !slices.Equal(seen, slices.Sorted(maps.Keys(want))) {
		t.Errorf("statements %q", seen)
	}
	if got := policy.Trust.Statement[0].Principal["Service"]; got != "lambda.amazonaws.com" {
		t.Errorf("the role trusts %q", got)
	}
}
