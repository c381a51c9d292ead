package deploy

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The role has the permissions of the Terraform module's, statement by statement,
// and may create the log group, which the module does itself.
func TestPolicy(t *testing.T) {
	text, err := os.ReadFile(filepath.FromSlash("../../terraform/modules/execution-role/main.tf"))
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
	s.AsyncOutput, s.Subnets, s.SecurityGroups = "s3://answers/chat", []string{"subnet-1"}, []string{"sg-1"}
	s.KMSKey = "1234abcd-12ab-34cd-56ef-1234567890ab"
	s.Env = map[string]string{"LORA_ADAPTERS": "legal=s3://models/llama/"}
	policy := s.Policy("eu-west-1", s.Account())
	want := map[string][]string{
		"ImageLogin": {"*"},
		"Image":      {"arn:aws:ecr:eu-west-1:123456789012:repository/millrace"},
		"Read":       {"arn:aws:s3:::models/llama/*"},
		"List":       {"arn:aws:s3:::models"},
		"Write":      {"arn:aws:s3:::answers/chat/*"},
		"Keys":       {"arn:aws:kms:eu-west-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"},
		"Logs":       {"arn:aws:logs:eu-west-1:123456789012:log-group:/aws/sagemaker/Endpoints/chat:*"},
		"Metrics":    {"*"},
		"Interfaces": {"arn:aws:ec2:eu-west-1:123456789012:network-interface/*", "arn:aws:ec2:eu-west-1:123456789012:subnet/subnet-1", "arn:aws:ec2:eu-west-1:123456789012:security-group/sg-1"},
		"Network":    {"*"},
	}
	seen := map[string]bool{}
	for _, st := range policy.Permissions.Statement {
		sid := strings.TrimRight(st.Sid, "0123456789")
		if !slices.Equal(st.Resource, want[sid]) {
			t.Errorf("%s: %q, want %q", sid, st.Resource, want[sid])
		}
		seen[st.Sid] = true
		actions := module[sid]
		switch sid {
		case "Logs":
			actions = append([]string{"logs:CreateLogGroup"}, actions...)
		case "Keys": // the module has no key for disks here
			actions = []string{"kms:CreateGrant", "kms:Decrypt", "kms:DescribeKey", "kms:GenerateDataKey"}
		}
		if len(actions) == 0 || !slices.Equal(st.Action, actions) {
			t.Errorf("%s: %q, want %q", sid, st.Action, actions)
		}
	}
	for sid := range want {
		if !seen[sid] && !(seen[sid+"0"] && seen[sid+"1"]) { // those that are numbered: the model's, the adapter's
			t.Errorf("no statement for %s in %v", sid, seen)
		}
	}
	trust, err := json.Marshal(policy.Trust)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{`"Principal":{"Service":"sagemaker.amazonaws.com"}`, `"Condition":{"StringEquals":{"aws:SourceAccount":["123456789012"]}}`} {
		if !bytes.Contains(trust, []byte(part)) {
			t.Errorf("the trust policy is %s; want %s", trust, part)
		}
	}
}

// --create-role makes a role, gives it what the endpoint needs at each deployment,
// and delete deletes it; a role of somebody else's stays.
func TestRole(t *testing.T) {
	f, s := newFake(t), testSpec()
	s.Role, s.CreateRole = "", true
	const role = "millrace-eu-west-1-chat"
	c, _ := f.dial(false)
	if err := c.Deploy(context.Background(), s, true, nil); err != nil {
		t.Fatal(err)
	}
	if calls := f.took(); len(calls) < 3 || calls[0] != "CreateRole "+role || calls[1] != "PutRolePolicy "+role || !strings.HasPrefix(calls[2], "CreateModel") {
		t.Errorf("calls %q", calls)
	}
	if !strings.Contains(f.roles[role], "arn:aws:s3:::models/llama/*") {
		t.Errorf("the role's policy is %q", f.roles[role])
	}
	for _, m := range f.models {
		if m["ExecutionRoleArn"] != "arn:aws:iam::123456789012:role/"+role {
			t.Errorf("the model's role is %v", m["ExecutionRoleArn"])
		}
	}
	s.Model = "s3://models/qwen/"
	if err := c.Deploy(context.Background(), s, true, nil); err != nil {
		t.Fatal(err)
	}
	if calls := f.took(); calls[0] != "PutRolePolicy "+role || !strings.Contains(f.roles[role], "arn:aws:s3:::models/qwen/*") {
		t.Errorf("calls %q, policy %s", calls, f.roles[role])
	}
	removed, err := c.Delete(context.Background(), "chat", Removal{})
	if err != nil || !slices.Contains(removed, "role "+role) || len(f.roles) != 0 {
		t.Errorf("removed %q, %v; roles left: %v", removed, err, f.roles)
	}

	f.roles[role], f.rolesTag = "{}", "another"
	if err := c.Deploy(context.Background(), s, true, nil); err == nil || !strings.Contains(err.Error(), "was not made by this command") {
		t.Errorf("a role of somebody else's: %v", err)
	}
	s.Role, s.CreateRole = "arn:aws:iam::123456789012:role/mine", false
	if err := c.Deploy(context.Background(), s, true, nil); err != nil {
		t.Fatal(err)
	}
	if removed, err := c.Delete(context.Background(), "chat", Removal{}); err != nil || slices.Contains(removed, "role "+role) || f.roles[role] == "" {
		t.Errorf("removed %q, %v", removed, err)
	}
}

// Names of roles are short, and differ where names of endpoints do.
func TestRoleName(t *testing.T) {
	long := strings.Repeat("a", 62)
	one, two := roleName("eu-west-1", long+"1"), roleName("eu-west-1", long+"2")
	if len(one) != 64 || one == two {
		t.Errorf("%s, %s", one, two)
	}
}
