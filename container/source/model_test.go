package source

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/millrace-ai/millrace/container/source/s3test"
	"github.com/millrace-ai/millrace/engine/weights"
	"github.com/millrace-ai/millrace/engine/weights/weightstest"
)

// quick makes faults pass quickly: most waits are a hundredth of the real ones.
var quick = tuning{
	attempts: 8, backoff: time.Millisecond, mostBackoff: 20 * time.Millisecond, idle: time.Second,
	segment: 64 << 10, bufferBytes: 32 << 20, connections: 4, mostConns: 16,
	tick: 5 * time.Millisecond, window: 20 * time.Millisecond, hedgeAfter: 20 * time.Millisecond,
}

var silent = slog.New(slog.DiscardHandler)

// testBucket reads location from the S3 server at url.
func testBucket(t testing.TB, url, at string, tune tuning) *bucket {
	t.Helper()
	l, err := parseLocation(at)
	if err != nil {
		t.Fatal(err)
	}
	return newBucket(testConfig(t, url, credentials.NewStaticCredentialsProvider("KEY", "secret", "")), l, tune, silent)
}

func testConfig(t testing.TB, url string, provider aws.CredentialsProvider) aws.Config {
	client := awshttp.NewBuildableClient()
	t.Cleanup(func() { client.GetTransport().CloseIdleConnections() })
	return aws.Config{Region: "us-east-1", BaseEndpoint: &url, Credentials: aws.NewCredentialsCache(provider), HTTPClient: client}
}

// randomModel returns the files of a checkpoint of several shards, and
// tensors nobody asks for among them.
func randomModel(seed uint64, shards, tensors, rows int) map[string][]byte {
	r := rand.New(rand.NewPCG(seed, 7))
	files := map[string][]byte{
		"config.json":    []byte(`{"model_type":"llama"}`),
		"tokenizer.json": bytes.Repeat([]byte(`{"a": 1}, `), 3000),
	}
	index := map[string]string{}
	for s := range shards {
		name := fmt.Sprintf("model-%05d-of-%05d.safetensors", s+1, shards)
		if shards == 1 {
			name = "model.safetensors"
		}
		var list []weightstest.Tensor
		for i := range tensors {
			n := 1 + r.IntN(2*rows)
			data := make([]byte, 64*n)
			for j := 0; j < len(data); j += 8 {
				binary.LittleEndian.PutUint64(data[j:], r.Uint64())
			}
			list = append(list, weightstest.Tensor{Name: fmt.Sprintf("layers.%d.%d", s, i), DType: "BF16", Shape: []int{n, 32}, Data: data})
			index[list[i].Name] = name
		}
		files[name] = weightstest.File(list...)
	}
	if shards > 1 {
		files["model.safetensors.index.json"], _ = json.Marshal(map[string]any{"weight_map": index})
	}
	return files
}

// hashes reads every tensor of c, but for some, as an engine would, and returns
// the hash of each.
func hashes(c *weights.Checkpoint, skip func(name string) bool) (map[string][32]byte, error) {
	return hashesOf(c, skip, func([]byte) {})
}

// hashesOf is hashes that shows each piece when it is taken.
func hashesOf(c *weights.Checkpoint, skip func(name string) bool, taking func(p []byte)) (map[string][32]byte, error) {
	const rowBytes, pieceRows = 64, 512
	var pieces []weights.Piece
	type place struct {
		name   string
		offset int
	}
	var places []place
	data := map[string][]byte{}
	taken := map[string]int{}
	for _, name := range c.Names() {
		if skip != nil && skip(name) {
			continue
		}
		t, _ := c.Tensor(name)
		data[name] = make([]byte, t.Size)
		for at := 0; at < int(t.Size); at += rowBytes * pieceRows {
			n := min(rowBytes*pieceRows, int(t.Size)-at)
			pieces = append(pieces, weights.Piece{File: t.File, Offset: t.Offset + int64(at), Length: n})
			places = append(places, place{name, at})
		}
	}
	err := c.Read(pieces, func(i int, p []byte) error {
		taking(p)
		copy(data[places[i].name][places[i].offset:], p)
		taken[places[i].name] += len(p)
		return nil
	})
	if err != nil {
		return nil, err
	}
	sums := map[string][32]byte{}
	for name, d := range data {
		if taken[name] != len(d) {
			return nil, fmt.Errorf("WRONG: tensor %s: %d bytes were handed over, it has %d", name, taken[name], len(d))
		}
		sums[name] = sha256.Sum256(d)
	}
	return sums, nil
}

// wantHashes are the hashes of what is in files.
func wantHashes(t testing.TB, files map[string][]byte) map[string][32]byte {
	t.Helper()
	c, err := weights.Open(weightstest.Folder(t, files))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	sums, err := hashes(c, nil)
	if err != nil {
		t.Fatal(err)
	}
	return sums
}

// read opens the model at b and reads all of it.
func read(ctx context.Context, b *bucket) (sums map[string][32]byte, tokenizer []byte, err error) {
	m, err := openBucket(ctx, b, math.MaxInt64)
	if err != nil {
		return nil, nil, err
	}
	defer m.Checkpoint.Close()
	text := make(chan error, 1)
	go func() {
		var err error
		tokenizer, err = fs.ReadFile(m.Files, "tokenizer.json")
		text <- err
	}()
	sums, err = hashes(m.Checkpoint, nil)
	if terr := <-text; err == nil {
		err = terr
	}
	return sums, tokenizer, err
}

func put(s *s3test.Server, bucket, prefix string, files map[string][]byte) {
	for name, data := range files {
		s.Put(bucket, prefix+name, data)
	}
}
