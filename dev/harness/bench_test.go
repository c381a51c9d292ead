package harness_test

import (
	"net/http"
	"os"
	"testing"
	"time"
)

// BenchmarkImage measures the size of the image, and the time from `docker
// run` to the first token under two CPUs: of the demo model, and of a
// checkpoint of half a gigabyte that lies in a layer of its own and in the page
// cache.
func BenchmarkImage(b *testing.B) {
	b.Run("size", func(b *testing.B) {
		for b.Loop() {
			size, err := engine.CompressedSize(b.Context(), tag)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(size)/1e6, "compressed-MB")
		}
		b.ReportMetric(0, "ns/op")
	})
	b.Run("demo", func(b *testing.B) { benchmarkStart(b, tag) })
	b.Run("half-gigabyte", func(b *testing.B) {
		const big = "millrace-model:big"
		dir := shape{hidden: 1024, inner: 4096, layers: 16}.folder(b)
		info, err := os.Stat(dir + "/model.safetensors")
		if err != nil {
			b.Fatal(err)
		}
		if err := engine.Build(b.Context(), root, "container/Dockerfile.model", dir, big, "--build-arg", "IMAGE="+tag); err != nil {
			b.Fatal(err)
		}
		defer engine.Forget(big)
		benchmarkStart(b, big)
		b.ReportMetric(float64(info.Size())/1e6, "weights-MB")
	})
}

func benchmarkStart(b *testing.B, image string) {
	options := append([]string{"--cpus", "2"}, hosted...)
	firstToken := func() time.Duration {
		begin := time.Now()
		c := start(b, image, 8080, options, "serve").ready()
		const request = `{"inputs":"What is Millrace?","parameters":{"max_new_tokens":1}}`
		if a := c.must(http.MethodPost, "/generate", request); a.status != http.StatusOK {
			b.Fatalf("%d %s", a.status, a.body)
		}
		took := time.Since(begin)
		c.Remove()
		return took
	}
	best := firstToken() // reads the layer into the page cache
	for b.Loop() {
		best = min(best, firstToken())
	}
	b.ReportMetric(best.Seconds(), "best-s")
	b.ReportMetric(0, "ns/op")
}
