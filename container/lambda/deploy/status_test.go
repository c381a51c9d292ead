package deploy

import (
	"bytes"
	"context"
	"strings"
	"testing"
)

func TestStatus(t *testing.T) {
	f := newFake(t)
	c, _ := f.dial(false)
	ctx := context.Background()
	if _, err := c.Status(ctx, "small", 1); err == nil || !strings.Contains(err.Error(), "there is no function small in eu-west-1") {
		t.Fatalf("no function: %v", err)
	}
	if _, err := c.Deploy(ctx, testSpec()); err != nil {
		t.Fatal(err)
	}
	f.took()
	f.log = []string{"one", "two"}
	f.failures = []string{`{"level":"ERROR","msg":"the disk is full"}`}
	s, err := c.Status(ctx, "small", 2)
	if err != nil {
		t.Fatal(err)
	}
	if calls := f.took(); len(calls) > 0 {
		t.Errorf("a look has changed something: %q", calls)
	}
	var out bytes.Buffer
	if err := s.Write(&out); err != nil {
		t.Fatal(err)
	}
	const want = `function  small in eu-west-1
status    Active
serving   version 1, Active
image     123456789012.dkr.ecr.eu-west-1.amazonaws.com/millrace@sha256:abc
model     s3://models/llama/
size      3008 MB, 300 s
url       https://small.lambda-url.eu-west-1.on.aws/ (AWS_IAM, RESPONSE_STREAM)
# failures in the last hour:
{"level":"ERROR","msg":"the disk is full"}
# log:
one
two
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}

func TestStatusOfFailures(t *testing.T) {
	f := newFake(t)
	c, _ := f.dial(false)
	ctx := context.Background()
	if _, err := c.Deploy(ctx, testSpec()); err != nil {
		t.Fatal(err)
	}
	// The function is as it should be, and the version that serves is not.
	f.failed, f.reason = "1", [2]string{"FunctionError", "Runtime exited with error: signal: killed"}
	f.link, f.tags = nil, nil // nor was it made by this command
	f.faults["GET functions/small/url:live"] = []string{"403 AccessDeniedException: not allowed"}
	s, err := c.Status(ctx, "small", 0)
	if err != nil {
		t.Fatal(err)
	}
	if s.Status != "Active" || s.Serving != "Failed" || !strings.Contains(s.Failure, "raise --memory") || !strings.Contains(s.Failure, "FunctionError") {
		t.Errorf("got %+v", s)
	}
	if len(s.Notes) != 1 || !strings.Contains(s.Notes[0], "the URL of function small") || s.Log != nil {
		t.Errorf("notes %q, log %q", s.Notes, s.Log)
	}

	f.failed, f.alias, f.broken = "", "", true
	if s, err = c.Status(ctx, "small", 0); err != nil {
		t.Fatal(err)
	}
	if s.Status != "Active, last change Failed" || len(s.Notes) != 1 || !strings.Contains(s.Notes[0], "there is no alias live") {
		t.Errorf("got %+v", s)
	}
}
