package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// object is one object in S3 as it was when it was found: another content under
// the same key is refused.
type object struct {
	bucket  *bucket
	key     string
	etag    string
	version string
	size    int64
}

var _ remoteFile = (*object)(nil)

// String implements remoteFile.
func (o *object) String() string { return o.bucket.place.uri(o.key) }

func (o *object) length() int64 { return o.size }

func (o *object) retry(ctx context.Context, err error, tries int) error {
	return o.bucket.retry(ctx, err, tries)
}

func (o *object) explain(err error) error {
	var said *Error
	if errors.As(err, &said) {
		return err
	}
	return explain(o.bucket.place, "get", o.key, err)
}

// request returns what every read of the object asks for.
func (o *object) request() *s3.GetObjectInput {
	return &s3.GetObjectInput{Bucket: &o.bucket.place.bucket, Key: &o.key, IfMatch: &o.etag, VersionId: optional(o.version), RequestPayer: o.bucket.payer()}
}

// get sends a request and refuses an answer about another version, which a
// server sends that ignores If-Match.
func (o *object) get(ctx context.Context, in *s3.GetObjectInput) (*s3.GetObjectOutput, error) {
	out, err := o.bucket.api.Load().GetObject(ctx, in)
	if err == nil && aws.ToString(out.ETag) != o.etag {
		out.Body.Close()
		err = errChanged
	}
	return out, err
}

func (o *object) open(ctx context.Context, from, to int64) (io.ReadCloser, error) {
	in := o.request()
	in.Range = aws.String(fmt.Sprintf("bytes=%d-%d", from, to-1))
	out, err := o.get(ctx, in)
	if err != nil {
		return nil, err
	}
	if want := fmt.Sprintf("bytes %d-%d/%d", from, to-1, o.size); aws.ToString(out.ContentRange) != want {
		out.Body.Close()
		return nil, fmt.Errorf("%w: %s, found %q", errAnswer, want, aws.ToString(out.ContentRange))
	}
	return out.Body, nil
}

// wholeObject is an object that is read in one request, which also brings its
// checksum. After a fault the rest is read as a range.
type wholeObject struct {
	*object
	sum checksum
}

func (o *wholeObject) open(ctx context.Context, from, to int64) (io.ReadCloser, error) {
	if from > 0 {
		return o.object.open(ctx, from, to)
	}
	in := o.request()
	in.ChecksumMode = types.ChecksumModeEnabled
	out, err := o.get(ctx, in)
	if err != nil {
		return nil, err
	}
	if out.ContentLength != nil && *out.ContentLength != o.size {
		out.Body.Close()
		return nil, errAnswer
	}
	o.sum = wholeChecksum(o.etag, out.ChecksumType, out.ChecksumCRC64NVME, out.ChecksumCRC32, out.ChecksumCRC32C)
	return out.Body, nil
}

// readAll reads the whole object into memory.
func (o *object) readAll(ctx context.Context) ([]byte, error) {
	if o.size > maxText {
		return nil, &Error{fmt.Sprintf("%s: %d MB, the limit is %d MB", o, o.size>>20, maxText>>20), errors.ErrUnsupported}
	}
	whole := &wholeObject{object: o}
	data := make([]byte, o.size)
	if err := readRange(ctx, whole, o.bucket.tune.idle, data, 0); err != nil {
		return nil, err
	}
	sum := newTally(whole.sum, o.size)
	sum.add(data, 0)
	if err := sum.check(); err != nil {
		return nil, &Error{o.String() + ": " + err.Error(), err}
	}
	return data, nil
}

// readAt fills p with the bytes from offset on.
func (o *object) readAt(ctx context.Context, p []byte, offset int64) error {
	return readRange(ctx, o, o.bucket.tune.idle, p, offset)
}

// checksum asks for the checksum of the whole object. That there is none, or
// that it cannot be asked for, is not an error: reading will say what is wrong.
func (o *object) checksum(ctx context.Context) checksum {
	out, err := briefly(ctx, o.bucket, func(ctx context.Context) (*s3.HeadObjectOutput, error) {
		return o.bucket.api.Load().HeadObject(ctx, &s3.HeadObjectInput{Bucket: &o.bucket.place.bucket, Key: &o.key, IfMatch: &o.etag,
			VersionId: optional(o.version), RequestPayer: o.bucket.payer(), ChecksumMode: types.ChecksumModeEnabled})
	})
	if err != nil {
		return checksum{}
	}
	return wholeChecksum(o.etag, out.ChecksumType, out.ChecksumCRC64NVME, out.ChecksumCRC32, out.ChecksumCRC32C)
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// wholeChecksum takes the checksum of an answer if it is of the object's
// bytes, not of its parts' checksums. Some S3-compatible stores do not say which
// of the two a CRC32 is; then it is of the parts if the ETag is, which ends in
// the number of parts.
func wholeChecksum(etag string, kind types.ChecksumType, nvme, ieee, castagnoli *string) checksum {
	inParts := strings.Contains(etag, "-")
	if kind == types.ChecksumTypeComposite || kind == "" && inParts && nvme == nil {
		return checksum{}
	}
	for _, c := range []struct {
		a    *algorithm
		text *string
	}{{crc64NVME, nvme}, {crc32IEEE, ieee}, {crc32C, castagnoli}} {
		if c.text == nil {
			continue
		}
		// A checksum of parts says how many: "…-5".
		if want, err := c.a.decode(*c.text); err == nil {
			return checksum{c.a, want}
		}
	}
	return checksum{}
}
