package source

import (
	"strings"
	"testing"

	"github.com/millrace-ai/millrace/container/config"
)

func TestParseLocation(t *testing.T) {
	const arn = "arn:aws:s3:eu-west-1:123456789012:accesspoint/models"
	for _, tt := range []struct {
		text string
		want location
	}{
		{"s3://bucket", location{bucket: "bucket"}},
		{"s3://bucket/", location{bucket: "bucket"}},
		{"s3://bucket/a/b", location{bucket: "bucket", key: "a/b/"}},
		{"s3://bucket/a/b/", location{bucket: "bucket", key: "a/b/"}},
		{"s3://bucket/a/model.tar.gz", location{bucket: "bucket", key: "a/model.tar.gz"}},
		{"s3://bucket/m.tar.zst?versionId=x.y", location{bucket: "bucket", key: "m.tar.zst", version: "x.y"}},
		{"s3://bucket/a?requestPayer=requester", location{bucket: "bucket", key: "a/", requesterPays: true}},
		{"s3://" + arn + "/a/b", location{bucket: arn, key: "a/b/"}},
		{"s3://models--use1-az5--x-s3/a", location{bucket: "models--use1-az5--x-s3", key: "a/"}},
	} {
		if got, err := parseLocation(tt.text); err != nil || got != tt.want {
			t.Errorf("%s: %+v, %v; want %+v", tt.text, got, err, tt.want)
		}
	}
}

func TestParseLocationRefuses(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"s3://", "the bucket's name is missing"},
		{"s3:///key", "the bucket's name is missing"},
		{"s3://ab/key", "s3://ab/key: not a bucket's name"},
		{"s3://my bucket/key", "not a bucket's name"},
		{"https://bucket/key", "expected a folder, a .gguf file, ORG/NAME of the Hugging Face hub, s3://BUCKET"},
		{"s3://bucket/model.safetensors", "a single file is not a model"},
		{"s3://bucket/a?versionId=1", "a prefix has none"},
		{"s3://bucket/a?requestPayer=me", "expected requester"},
		{"s3://bucket/a?region=eu", "unknown option"},
		{"https://bucket/a.tar.gz?X-Amz-Signature=hunter2", "X-Amz-Signature=***: expected a folder"},
		{"s3://name:hunter2@bucket/a", "s3://***@bucket/a: not a bucket's name"},
		{"s3://bucket/a?hunter2", "s3://bucket/a?***: unknown option"},
		{"s3://bucket/a?%zz=hunter2", "cannot be read"},
		{"s3://arn:aws:s3:eu-west-1:1:bucket/a", "the ARN of an access point"},
	} {
		if _, err := parseLocation(tt.text); err == nil || !strings.Contains(err.Error(), tt.want) || !strings.HasPrefix(err.Error(), config.HideSecrets(tt.text)) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v; want %q in it", tt.text, err, tt.want)
		}
	}
}

func TestLocalName(t *testing.T) {
	for name, ok := range map[string]bool{
		"config.json": true, "a/b.json": true, "../x": false, "/x": false, "a/../b": false, "a//b": false, "": false, ".": false, "..": false, "a\\b": false,
		strings.Repeat("x", 256): false,
	} {
		if _, err := localName(name); (err == nil) != ok {
			t.Errorf("%q: %v, want accepted: %v", name, err, ok)
		}
	}
}
