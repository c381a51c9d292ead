package deploy

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
)

func TestStatus(t *testing.T) {
	f := newFake(t)
	c, _ := f.dial(false)
	ctx := context.Background()
	if _, err := c.Status(ctx, "chat", 0); err == nil || !strings.Contains(err.Error(), "there is no endpoint chat in eu-west-1") {
		t.Errorf("of nothing: %v", err)
	}
	if err := c.Deploy(ctx, testSpec(), true, nil); err != nil {
		t.Fatal(err)
	}
	f.log = []string{"ready"}
	common := []string{
		"endpoint chat in eu-west-1 status InService", "instances 1 of 2 ml.c7i.2xlarge", "model data s3://models/llama/",
		"image 123456789012.dkr.ecr.eu-west-1.amazonaws.com/millrace:1.0", "ready",
	}
	for _, tt := range []struct {
		name, fault, want string
	}{
		{name: "all permitted", want: "last hour 5 calls, 1 refused (4xx), 0 failed (5xx), 300 ms mean, 500 ms longest"},
		{
			name:  "no metrics permitted",
			fault: "AccessDeniedException: User: u is not authorized to perform: cloudwatch:GetMetricData because no policy allows it",
			want:  "# the metrics of chat: access denied: cloudwatch:GetMetricData is missing",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.fault != "" {
				f.faults["GetMetricData"] = []string{tt.fault}
			}
			s, err := c.Status(ctx, "chat", 3)
			if err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			if err := s.Write(&out); err != nil {
				t.Fatal(err)
			}
			table := strings.Join(strings.Fields(out.String()), " ")
			for _, want := range append(common, tt.want) {
				if !strings.Contains(table, want) {
					t.Errorf("table\n%s\nwant %q in it", out.String(), want)
				}
			}
		})
	}
}

func TestProbableCause(t *testing.T) {
	for _, tt := range []struct{ name, reason, log, want string }{
		{name: "capacity", reason: "Unable to provision requested ML compute capacity due to InsufficientInstanceCapacity error.", want: "AWS has no free ml.c7i.large"},
		{name: "image", reason: "The repository 'x' does not grant ecr:GetDownloadUrlForLayer, ecr:BatchGetImage permission to sagemaker.amazonaws.com", want: "the image cannot be pulled"},
		{name: "no image", reason: "Please make sure all images included in the model for the production variant main exist, and that the execution role used to create the model has permissions to access them.", want: "the image cannot be pulled"},
		{name: "model data", reason: "Failed to download model data for container. Please ensure that the role has s3:GetObject", want: "the model cannot be copied from S3"},
		{name: "ping", reason: "The primary container did not pass the ping health check.", log: "loading the room", want: "the container did not answer /ping"},
		{name: "the log knows better", reason: "did not pass the ping health check", log: "s3://m/x: access denied: s3:GetObject is missing", want: "the role may not read the model"},
		{name: "entrypoint", reason: "did not pass the ping health check", log: `exec: "serve": executable file not found in $PATH`, want: "the image has no entrypoint"},
		{name: "memory", reason: "did not pass the ping health check", log: "fatal error: out of memory", want: "the memory of ml.c7i.large is too small"},
		{name: "unknown", reason: "Request to service failed.", want: ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := probableCause(tt.reason, []string{tt.log}, "ml.c7i.large")
			if !strings.HasPrefix(got, tt.want) || tt.want == "" && got != "" {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}

// Newer versions of these services build tables of all their operations when
// any command starts, serve and Lambda too; go.mod keeps them at older ones.
func TestNoTablesAtStart(t *testing.T) {
	cmd := exec.Command("go", "list", "-deps", "../../container")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, service := range []string{"sagemaker", "cloudwatch", "cloudwatchlogs", "lambda"} {
		if strings.Contains(string(out), "/service/"+service+"/schemas\n") {
			t.Errorf("service/%s is of a version that builds tables at start: hold it at the version of go.mod's history", service)
		}
	}
}
