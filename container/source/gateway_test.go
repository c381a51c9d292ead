package source

import (
	"bytes"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/millrace-ai/millrace/container/source/s3test"
	"github.com/millrace-ai/millrace/engine/weights"
)

// gatewayEnv points the SDK at g, as a user would, and away from this
// machine's own files.
func gatewayEnv(t testing.TB, g *s3test.Gateway) {
	for _, kv := range append(g.Environ(), "AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null") {
		k, v, _ := strings.Cut(kv, "=")
		switch t := t.(type) {
		case *testing.T:
			t.Setenv(k, v)
		case *testing.B:
			t.Setenv(k, v)
		}
	}
}

// TestRealServer reads and pulls from a server that checks signatures and
// keeps checksums.
func TestRealServer(t *testing.T) {
	g := s3test.NewGateway(t, "models")
	gatewayEnv(t, g)
	files := randomModel(8, 2, 5, 4000)
	for name, data := range files {
		g.Put(t, "models", "a/llama/"+name, data)
	}
	g.Put(t, "models", "m.tar.gz", pack(t, files, ".gz", nil))
	want := wantHashes(t, files)
	for _, location := range []string{"s3://models/a/llama", "s3://models/m.tar.gz"} {
		m, err := Open(t.Context(), location, math.MaxInt64, silent)
		if err != nil {
			t.Fatal(err)
		}
		got, err := hashes(m.Checkpoint, nil)
		if err != nil || !maps.Equal(got, want) {
			t.Errorf("%s: other weights, or %v", location, err)
		}
		m.Checkpoint.Close()
		dir := t.TempDir()
		if err := Pull(t.Context(), location, dir, silent, func(int64, int64) {}); err != nil || !same(pulled(t, dir), files) {
			t.Errorf("pull %s: %v, or other files", location, err)
		}
	}

	l, _ := parseLocation("s3://models/a/llama")
	b := newBucket(testConfig(t, g.URL, credentials.NewStaticCredentialsProvider(g.AccessKey, g.SecretKey, "")), l, quick, silent)
	o, err := b.object(t.Context(), "a/llama/model-00001-of-00002.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	if sum := o.checksum(t.Context()); sum.algorithm == nil {
		t.Error("the server keeps a checksum of the whole object, and it was not found")
	}
	g.Put(t, "models", o.key, []byte("something else"))
	if _, err := o.readAll(t.Context()); err == nil || !strings.Contains(err.Error(), "replaced while") {
		t.Errorf("replaced: %v", err)
	}
	b.cfg.Credentials = aws.NewCredentialsCache(credentials.NewStaticCredentialsProvider(g.AccessKey, "wrong", ""))
	b.connect("us-east-1")
	if _, err := openBucket(t.Context(), b, math.MaxInt64); err == nil || !strings.Contains(err.Error(), "the credentials are not valid") {
		t.Errorf("wrong secret: %v", err)
	}
}

// TestPartsChecksum uploads in parts: the checksum, if the server has one of
// the whole, holds, and one of the parts is not taken for it.
func TestPartsChecksum(t *testing.T) {
	g := s3test.NewGateway(t, "models")
	const key = "big.bin"
	data := []byte(strings.Repeat("0123456789abcdef", 6<<20/16+7))
	up, err := g.Client.CreateMultipartUpload(t.Context(), &s3.CreateMultipartUploadInput{Bucket: aws.String("models"), Key: aws.String(key)})
	if err != nil {
		t.Fatal(err)
	}
	var parts []types.CompletedPart
	for at := 0; at < len(data); at += 5 << 20 {
		number := aws.Int32(int32(len(parts) + 1))
		part, err := g.Client.UploadPart(t.Context(), &s3.UploadPartInput{Bucket: aws.String("models"), Key: aws.String(key), UploadId: up.UploadId,
			PartNumber: number, Body: bytes.NewReader(data[at:min(len(data), at+5<<20)])})
		if err != nil {
			t.Fatal(err)
		}
		parts = append(parts, types.CompletedPart{ETag: part.ETag, PartNumber: number, ChecksumCRC32: part.ChecksumCRC32})
	}
	_, err = g.Client.CompleteMultipartUpload(t.Context(), &s3.CompleteMultipartUploadInput{Bucket: aws.String("models"), Key: aws.String(key), UploadId: up.UploadId,
		MultipartUpload: &types.CompletedMultipartUpload{Parts: parts}})
	if err != nil {
		t.Fatal(err)
	}
	l, _ := parseLocation("s3://models")
	b := newBucket(testConfig(t, g.URL, credentials.NewStaticCredentialsProvider(g.AccessKey, g.SecretKey, "")), l, quick, silent)
	o, err := b.object(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	got, err := o.readAll(t.Context())
	if err != nil || string(got) != string(data) {
		t.Errorf("%d bytes, %v; want %d", len(got), err, len(data))
	}
}

// BenchmarkRead compares reading a checkpoint of 512 MB from a real server,
// over loopback on the same cores, with plain parallel GETs of the same bytes.
// Rounds alternate, so that both meet the same machine.
func BenchmarkRead(b *testing.B) {
	g := s3test.NewGateway(b, "models")
	gatewayEnv(b, g)
	files := randomModel(9, 1, 16, 512<<20/64/16)
	for name, data := range files {
		g.Put(b, "models", "llama/"+name, data)
	}
	size := int64(len(files["model.safetensors"]))
	const piece = 512 << 10   // as the engine asks for
	var plain, ours []float64 // MB/s
	rate := func(took time.Duration) float64 { return float64(size) / 1e6 / took.Seconds() }
	for b.Loop() {
		plain = append(plain, rate(g.PlainGets(b, "models", "llama/model.safetensors", defaultTuning.connections)))
		m, err := Open(b.Context(), "s3://models/llama", math.MaxInt64, silent)
		if err != nil {
			b.Fatal(err)
		}
		var pieces []weights.Piece
		for _, name := range m.Checkpoint.Names() {
			t, _ := m.Checkpoint.Tensor(name)
			for at := int64(0); at < t.Size; at += piece {
				pieces = append(pieces, weights.Piece{File: t.File, Offset: t.Offset + at, Length: int(min(piece, t.Size-at))})
			}
		}
		start := time.Now()
		if err := m.Checkpoint.Read(pieces, func(int, []byte) error { return nil }); err != nil {
			b.Fatal(err)
		}
		ours = append(ours, rate(time.Since(start)))
		m.Checkpoint.Close()
	}
	slices.Sort(plain)
	slices.Sort(ours)
	last, middle := len(ours)-1, len(ours)/2
	b.ReportMetric(plain[last], "plain-best-MB/s")
	b.ReportMetric(ours[last], "best-MB/s")
	b.ReportMetric(ours[last]/plain[last], "best-of-plain")
	b.ReportMetric(ours[middle]/plain[middle], "median-of-plain")
	b.ReportMetric(0, "ns/op")
}
