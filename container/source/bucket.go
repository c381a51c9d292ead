package source

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"regexp"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go/logging"

	"github.com/millrace-ai/millrace/internal/awserr"
)

// tuning is every number of reading from S3.
type tuning struct {
	attempts    int           // in a row without a byte
	backoff     time.Duration // before the second attempt; doubles
	mostBackoff time.Duration
	idle        time.Duration // without a byte until a connection is given up

	segment     int64 // bytes of a range of weights
	bufferBytes int64 // of all connections together, at most
	connections int   // at the start
	mostConns   int

	tick       time.Duration // between two looks at the connections
	window     time.Duration // that a rate is measured over
	hedgeAfter time.Duration // a range is not overtaken before
}

// AWS advises ranges of 8 to 16 MB and a connection for each 85 to 90 MB/s. As
// buffers do not grow with ranges, the upper end costs nothing.
var defaultTuning = tuning{
	attempts: 8, backoff: 100 * time.Millisecond, mostBackoff: 5 * time.Second, idle: 15 * time.Second,
	segment: 16 << 20, bufferBytes: 32 << 20, connections: 8, mostConns: 96,
	tick: 50 * time.Millisecond, window: 200 * time.Millisecond, hedgeAfter: 300 * time.Millisecond,
}

// wait waits before attempt tries+1: exponentially with full jitter, and no less
// than a quarter of the most or than atLeast.
func (t tuning) wait(ctx context.Context, tries int, atLeast time.Duration) error {
	most := min(t.mostBackoff, t.backoff<<min(tries-1, 16))
	select {
	case <-time.After(max(atLeast, most/4+rand.N(most*3/4+1))):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// bucket is a bucket and how to reach it. Safe for concurrent use.
type bucket struct {
	place location
	cfg   aws.Config
	tune  tuning
	log   *slog.Logger

	api       atomic.Pointer[s3.Client]
	redirects atomic.Int32
	throttles atomic.Int64 // answers that asked for less
}

// dialTimeout is short: a network without a way to S3 is to be noticed.
const dialTimeout = 4 * time.Second

// loadConfig finds region and credentials as every AWS tool does.
func loadConfig(ctx context.Context, log *slog.Logger) (aws.Config, error) {
	client := awshttp.NewBuildableClient().
		WithDialerOptions(func(d *net.Dialer) { d.Timeout = dialTimeout }).
		WithTransportOptions(func(t *http.Transport) {
			// S3 speaks HTTP/1.1, and one connection for each range is the point.
			t.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
			t.ForceAttemptHTTP2 = false
			t.MaxIdleConns, t.MaxIdleConnsPerHost = 2*defaultTuning.mostConns, 2*defaultTuning.mostConns
			t.ReadBufferSize = 64 << 10
			t.ResponseHeaderTimeout = defaultTuning.idle
			t.DisableCompression = true
		})
	cfg, err := config.LoadDefaultConfig(ctx, config.WithHTTPClient(client), config.WithDefaultRegion("us-east-1"),
		config.WithLogger(logging.LoggerFunc(func(_ logging.Classification, format string, v ...any) {
			log.Debug(fmt.Sprintf("AWS SDK: "+format, v...))
		})))
	if err != nil {
		return cfg, fmt.Errorf("AWS configuration: %w", err)
	}
	return cfg, nil
}

func newBucket(cfg aws.Config, l location, tune tuning, log *slog.Logger) *bucket {
	b := &bucket{place: l, cfg: cfg, tune: tune, log: log}
	b.connect(cfg.Region)
	return b
}

// connect makes the client for region.
func (b *bucket) connect(region string) {
	b.api.Store(s3.NewFromConfig(b.cfg, func(o *s3.Options) {
		o.Region = region
		o.UseARNRegion = true
		o.HTTPClient = regionReader{b.cfg.HTTPClient}
		// A server of one's own rarely has a name for each bucket.
		o.UsePathStyle = o.BaseEndpoint != nil
		// Attempts are counted here, where it is known what has arrived.
		o.Retryer = aws.NopRetryer{}
		// Whole objects are checked here, from the parts; ranges have no sum.
		o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
		o.DisableLogOutputChecksumValidationSkipped = true
	}))
}

// regionReader puts the region that only the body of an error names, as S3 sends
// it for a wrong signature, where regionOf finds it: the SDK drops the body.
type regionReader struct{ aws.HTTPClient }

var bodyRegion = regexp.MustCompile(`<Region>([a-z0-9-]+)</Region>`)

// Do sends r.
func (c regionReader) Do(r *http.Request) (*http.Response, error) {
	resp, err := c.HTTPClient.Do(r)
	if err != nil || resp.StatusCode != http.StatusBadRequest && resp.StatusCode/100 != 3 || resp.Header.Get(headerRegion) != "" {
		return resp, err
	}
	const most = 64 << 10
	body, err := io.ReadAll(io.LimitReader(resp.Body, most))
	resp.Body.Close()
	resp.Body = io.NopCloser(bytes.NewReader(body))
	if m := bodyRegion.FindSubmatch(body); m != nil {
		resp.Header.Set(headerRegion, string(m[1]))
	}
	return resp, err
}

// retry is what remoteFile says, for all requests about the bucket.
func (b *bucket) retry(ctx context.Context, err error, tries int) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	switch classify(err) {
	case misplaced:
		// An answer to a request that was under way when the region changed
		// says the same again; buckets do not move.
		if b.redirects.Add(1) > 16 {
			return err
		}
		region := regionOf(err)
		b.log.Debug("bucket is in another region", "bucket", b.place.bucket, "region", region)
		b.connect(region)
		return nil
	case expired:
		cache, ok := b.cfg.Credentials.(*aws.CredentialsCache)
		if !ok || tries > 3 {
			return err
		}
		cache.Invalidate()
	case throttled:
		b.throttles.Add(1)
		if tries > b.tune.attempts {
			return err
		}
	case transient:
		if tries > b.tune.attempts {
			return err
		}
	default:
		return err
	}
	b.log.Debug("reading from S3 again after a fault", "bucket", b.place.bucket, "attempt", tries, "err", err)
	return b.tune.wait(ctx, tries, 0)
}

func (b *bucket) payer() types.RequestPayer {
	if b.place.requesterPays {
		return types.RequestPayerRequester
	}
	return ""
}

// list returns the objects below the bucket's prefix, without those that only
// stand for a folder.
func (b *bucket) list(ctx context.Context) (objects []*object, err error) {
	in := &s3.ListObjectsV2Input{Bucket: &b.place.bucket, Prefix: &b.place.key, RequestPayer: b.payer()}
	for tries := 0; ; {
		out, err := briefly(ctx, b, func(ctx context.Context) (*s3.ListObjectsV2Output, error) {
			return b.api.Load().ListObjectsV2(ctx, in)
		})
		if err != nil {
			tries++
			if err = b.retry(ctx, err, tries); err != nil {
				return nil, explain(b.place, "list", b.place.key, err)
			}
			continue
		}
		tries = 0
		for _, o := range out.Contents {
			key := aws.ToString(o.Key)
			if key == b.place.key || key[len(key)-1] == '/' {
				continue
			}
			objects = append(objects, &object{bucket: b, key: key, etag: aws.ToString(o.ETag), size: aws.ToInt64(o.Size)})
			if len(objects) > mostObjects {
				return nil, &Error{b.place.uri(b.place.key) + fmt.Sprintf(": more than %d objects, expected one model: give its own prefix", mostObjects), nil}
			}
		}
		if !aws.ToBool(out.IsTruncated) {
			return objects, nil
		}
		in.ContinuationToken = out.NextContinuationToken
	}
}

// briefly bounds a request whose whole answer is small, which may stop half-way.
func briefly[T any](ctx context.Context, b *bucket, request func(context.Context) (T, error)) (T, error) {
	limited, cancel := context.WithTimeout(ctx, 2*b.tune.idle)
	defer cancel()
	out, err := request(limited)
	if err != nil && ctx.Err() == nil && limited.Err() != nil {
		err = errIdle
	}
	return out, err
}

// mostObjects bounds a listing: a model has some tens.
const mostObjects = 20_000

// object returns the object called key, pinned to what it is now.
func (b *bucket) object(ctx context.Context, key string) (*object, error) {
	in := &s3.GetObjectInput{Bucket: &b.place.bucket, Key: &key, RequestPayer: b.payer(), Range: aws.String("bytes=0-0")}
	if b.place.version != "" {
		in.VersionId = &b.place.version
	}
	for tries := 0; ; {
		// A read of one byte, as the answer to HEAD has no text that says why.
		out, err := b.api.Load().GetObject(ctx, in)
		if err == nil {
			out.Body.Close()
			o := &object{bucket: b, key: key, version: b.place.version, etag: aws.ToString(out.ETag)}
			if _, err = fmt.Sscanf(aws.ToString(out.ContentRange), "bytes 0-0/%d", &o.size); err == nil {
				return o, nil
			}
			err = errors.Join(errAnswer, err)
		}
		if awserr.Status(err) == http.StatusRequestedRangeNotSatisfiable {
			return nil, &Error{b.place.uri(key) + ": the object is empty", err}
		}
		tries++
		if err = b.retry(ctx, err, tries); err != nil {
			return nil, explain(b.place, "get", key, err)
		}
	}
}
