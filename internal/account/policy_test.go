package account

import (
	"slices"
	"testing"
)

// What a server reads from S3 is found in each form that its variables take.
func TestReads(t *testing.T) {
	got := Reads(map[string]string{
		"MODEL_ID":          "s3://models/llama?requestPayer=requester",
		"LORA_ADAPTERS":     `legal=s3://adapters/legal/,{"name": "medical", "path": "s3://adapters/medical"},org/name`,
		"PREFIX_CACHE_FILE": "/opt/a.prefix,s3://prefixes/b.prefix",
		"QUEUE_OUTPUT":      "s3://answers/", // is written
	})
	want := []string{"s3://models/llama", "s3://adapters/legal/", "s3://adapters/medical", "s3://prefixes/b.prefix"}
	if !slices.Equal(got, want) {
		t.Errorf("reads %q, want %q", got, want)
	}
}

// A name without a slash at its end may be an object's or a prefix.
func TestAllowReading(t *testing.T) {
	for _, tt := range []struct {
		place   string
		objects []string
		listed  string
	}{
		{"s3://models", []string{"arn:aws:s3:::models/*"}, "*"},
		{"s3://models/llama/", []string{"arn:aws:s3:::models/llama/*"}, "llama/*"},
		{"s3://models/llama", []string{"arn:aws:s3:::models/llama", "arn:aws:s3:::models/llama/*"}, "llama*"},
	} {
		var p Permissions
		p.AllowReading("eu-west-1", []string{tt.place})
		if !slices.Equal(p[0].Resource, tt.objects) || p[1].Condition["StringLike"]["s3:prefix"][0] != tt.listed {
			t.Errorf("%s: %+v", tt.place, p)
		}
	}
}
