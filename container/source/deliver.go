package source

import (
	"bytes"
	"context"
	"log/slog"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// Delivery writes answers to a prefix in S3. Safe for concurrent use.
type Delivery struct{ bucket *bucket }

// Deliver returns a Delivery to a prefix, s3://BUCKET/PREFIX/. It makes no
// request.
func Deliver(ctx context.Context, prefix string, log *slog.Logger) (*Delivery, error) {
	l, err := parsePlace(prefix)
	if err != nil {
		return nil, err
	}
	if l.key != "" && !strings.HasSuffix(l.key, "/") {
		l.key += "/"
	}
	cfg, err := loadConfig(ctx, log)
	if err != nil {
		return nil, err
	}
	return &Delivery{newBucket(cfg, l, defaultTuning, log)}, nil
}

// Put writes an answer of JSON under a name below the prefix.
func (d *Delivery) Put(ctx context.Context, name string, answer []byte) error {
	key := d.bucket.place.key + name
	for tries := 1; ; tries++ {
		_, err := briefly(ctx, d.bucket, func(ctx context.Context) (*s3.PutObjectOutput, error) {
			return d.bucket.api.Load().PutObject(ctx, &s3.PutObjectInput{
				Bucket: &d.bucket.place.bucket, Key: &key, Body: bytes.NewReader(answer), ContentType: aws.String("application/json"),
			})
		})
		if err == nil {
			return nil
		}
		if err = d.bucket.retry(ctx, err, tries); err != nil {
			return explain(d.bucket.place, "put", key, err)
		}
	}
}
