package s3test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// Gateway is a real S3 server, versitygw, that keeps objects in a folder of
// the test's.
type Gateway struct {
	URL, AccessKey, SecretKey string
	Client                    *s3.Client
}

// NewGateway starts build/bin/versitygw, which `make s3-server` builds, with
// one bucket. Without it the test is skipped. It ends with the test.
func NewGateway(tb testing.TB, bucket string) *Gateway {
	tb.Helper()
	binary := gatewayBinary()
	if binary == "" {
		tb.Skip("needs a real S3 server: make s3-server builds one")
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	address := listener.Addr().String()
	_ = listener.Close() // the port is free, most likely still in a moment
	g := &Gateway{URL: "http://" + address, AccessKey: "testkey", SecretKey: "testsecret"}
	cmd := exec.Command(binary, "--port", address, "--health", "/health", "--quiet", "--keep-alive", "posix", tb.TempDir())
	cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY="+g.AccessKey, "ROOT_SECRET_KEY="+g.SecretKey)
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if tb.Failed() {
			tb.Logf("versitygw: %s", log.Bytes())
		}
	})
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		resp, err := http.Get(g.URL + "/health")
		if err == nil {
			_ = resp.Body.Close()
			break
		}
		if time.Now().After(deadline) {
			tb.Fatalf("versitygw does not listen: %v", err)
		}
	}
	g.Client = s3.New(s3.Options{Region: "us-east-1", BaseEndpoint: &g.URL, UsePathStyle: true,
		Credentials: credentials.NewStaticCredentialsProvider(g.AccessKey, g.SecretKey, "")})
	if _, err := g.Client.CreateBucket(context.Background(), &s3.CreateBucketInput{Bucket: &bucket}); err != nil {
		tb.Fatal(err)
	}
	return g
}

// gatewayBinary looks for build/bin/versitygw in the module that the test runs in: what is
// compiled with -trimpath does not know where its source is.
func gatewayBinary() string {
	dir, err := os.Getwd()
	for err == nil {
		binary := filepath.Join(dir, "build", "bin", "versitygw")
		if _, err := os.Stat(binary); err == nil {
			return binary
		}
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil || dir == filepath.Dir(dir) {
			break
		}
		dir = filepath.Dir(dir)
	}
	return ""
}

// Put uploads an object.
func (g *Gateway) Put(tb testing.TB, bucket, key string, data []byte) {
	tb.Helper()
	if _, err := g.Client.PutObject(context.Background(), &s3.PutObjectInput{Bucket: &bucket, Key: &key, Body: bytes.NewReader(data)}); err != nil {
		tb.Fatal(err)
	}
}

// PutFile uploads a file.
func (g *Gateway) PutFile(tb testing.TB, bucket, key, path string) {
	tb.Helper()
	f, err := os.Open(path)
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	if _, err := g.Client.PutObject(context.Background(), &s3.PutObjectInput{Bucket: aws.String(bucket), Key: &key, Body: f}); err != nil {
		tb.Fatal(err)
	}
}

// PlainGets reads an object with n parallel GETs of a range each, throws the
// bytes away, and returns how long that took.
func (g *Gateway) PlainGets(tb testing.TB, bucket, key string, n int) time.Duration {
	tb.Helper()
	transport := &http.Transport{MaxIdleConnsPerHost: n}
	defer transport.CloseIdleConnections()
	client := s3.New(g.Client.Options(), func(o *s3.Options) { o.HTTPClient = &http.Client{Transport: transport} })
	head, err := client.HeadObject(context.Background(), &s3.HeadObjectInput{Bucket: &bucket, Key: &key})
	if err != nil {
		tb.Fatal(err)
	}
	size := *head.ContentLength
	start := time.Now()
	var group sync.WaitGroup
	for i := range int64(n) {
		from, to := size*i/int64(n), size*(i+1)/int64(n)-1
		group.Go(func() {
			out, err := client.GetObject(context.Background(), &s3.GetObjectInput{Bucket: &bucket, Key: &key, Range: aws.String(fmt.Sprintf("bytes=%d-%d", from, to))})
			if err == nil {
				_, err = io.CopyBuffer(io.Discard, struct{ io.Reader }{out.Body}, make([]byte, 256<<10))
				out.Body.Close()
			}
			if err != nil {
				tb.Error(err)
			}
		})
	}
	group.Wait()
	return time.Since(start)
}

// Environ are the variables that make the SDK talk to the server.
func (g *Gateway) Environ() []string {
	return []string{"AWS_ENDPOINT_URL_S3=" + g.URL, "AWS_ACCESS_KEY_ID=" + g.AccessKey, "AWS_SECRET_ACCESS_KEY=" + g.SecretKey, "AWS_REGION=us-east-1", "AWS_EC2_METADATA_DISABLED=true"}
}
