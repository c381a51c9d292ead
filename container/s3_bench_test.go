package main

import (
	"archive/tar"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/klauspost/pgzip"

	"github.com/millrace-ai/millrace/container/source/s3test"
)

// BenchmarkStartFromS3 measures, for a checkpoint of 1 GB on a real S3 server
// on the same cores, the time from starting the process to the first token,
// what plain parallel GETs of the same bytes take, what gzip and zstd take to
// unpack them from the disk to nowhere, and the most memory that was resident
// beside the weights until the server was ready.
func BenchmarkStartFromS3(b *testing.B) {
	g := s3test.NewGateway(b, "models")
	dir, size := gigabyteFolder(b)
	for _, tt := range []struct {
		name   string
		pack   func(io.Writer) (io.WriteCloser, error)
		unpack []string
	}{
		{name: "prefix"},
		{name: "tar", pack: func(w io.Writer) (io.WriteCloser, error) { return writeNopCloser{w}, nil }},
		{name: "tar.zst", pack: func(w io.Writer) (io.WriteCloser, error) {
			return zstd.NewWriter(w, zstd.WithAllLitEntropyCompression(true))
		}, unpack: []string{"zstd", "-qdc"}},
		{name: "tar.gz", pack: func(w io.Writer) (io.WriteCloser, error) { return pgzip.NewWriterLevel(w, pgzip.HuffmanOnly) }, unpack: []string{"gzip", "-dc"}},
	} {
		b.Run(tt.name, func(b *testing.B) {
			key, location, archive := "prefix/model.safetensors", "s3://models/prefix", ""
			if tt.pack == nil {
				for name := range tinyFiles(b) {
					g.PutFile(b, "models", "prefix/"+name, filepath.Join(dir, name))
				}
			} else {
				key = "model." + tt.name
				location, archive = "s3://models/"+key, filepath.Join(b.TempDir(), key)
				packFolder(b, archive, dir, tt.pack)
				g.PutFile(b, "models", key, archive)
			}
			never := time.Duration(math.MaxInt64)
			best, download, unpack, beside := never, never, never, 0.0
			for b.Loop() {
				download = min(download, g.PlainGets(b, "models", key, 8))
				unpack = min(unpack, timeUnpack(b, tt.unpack, archive))
				took, peak := firstTokenFrom(b, g, location)
				best, beside = min(best, took), max(beside, peak-float64(size)/(1<<20))
			}
			b.ReportMetric(best.Seconds(), "start-s")
			b.ReportMetric(download.Seconds(), "plain-download-s")
			if unpack > 0 {
				b.ReportMetric(unpack.Seconds(), "plain-unpack-s")
			}
			b.ReportMetric((best - max(download, unpack)).Seconds(), "beyond-s")
			b.ReportMetric(beside, "peak-beside-weights-MB")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// firstTokenFrom starts a server with the model at location, and returns how
// long it took to the first token and the most memory that was resident, in MB.
func firstTokenFrom(b *testing.B, g *s3test.Gateway, location string) (took time.Duration, peakMB float64) {
	begin := time.Now()
	p := start(b, append(g.Environ(), "MODEL_ID="+location), "--max-batch-total-tokens", "4096").ready()
	// The first request takes memory for the cache of keys and values.
	peak, err := field(os.DirFS("/"), fmt.Sprintf("proc/%d/status", p.cmd.Process.Pid), "VmHWM:")
	if err != nil {
		b.Skip("needs /proc")
	}
	status, body := p.post("/generate", `{"inputs":"the quick","parameters":{"max_new_tokens":1}}`)
	if status != http.StatusOK {
		b.Fatalf("%d %s", status, body)
	}
	took = time.Since(begin)
	_ = p.cmd.Process.Kill()
	<-p.exited
	return took, float64(peak) / 1024
}

// timeUnpack is how long a command takes to unpack a file and throw the bytes
// away, 0 if there is none.
func timeUnpack(b *testing.B, command []string, path string) time.Duration {
	if command == nil {
		return 0
	}
	if _, err := exec.LookPath(command[0]); err != nil {
		b.Log(err)
		return 0
	}
	begin := time.Now()
	if err := exec.Command(command[0], append(command[1:], path)...).Run(); err != nil {
		b.Fatal(err)
	}
	return time.Since(begin)
}

type writeNopCloser struct{ io.Writer }

func (writeNopCloser) Close() error { return nil }

// packFolder makes an archive of the files in dir, in the order of their names,
// as Python's tarfile has them.
func packFolder(b *testing.B, path, dir string, compress func(io.Writer) (io.WriteCloser, error)) {
	check := func(err error) {
		if err != nil {
			b.Fatal(err)
		}
	}
	out, err := os.Create(path)
	check(err)
	compressed, err := compress(out)
	check(err)
	archive := tar.NewWriter(compressed)
	check(archive.AddFS(os.DirFS(dir)))
	check(archive.Close())
	check(compressed.Close())
	check(out.Close())
}
