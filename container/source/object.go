package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// object is one object as it was when it was found: another content under the
// same key is refused.
type object struct {
	*bucket
	key     string
	etag    string
	version string
	size    int64
}

func (o *object) name() string { return o.uri(o.key) }

// explain makes the one line about a failed read of the object.
func (o *object) explain(err error) error {
	var said *Error
	if errors.As(err, &said) {
		return err
	}
	return explain(o.location, "get", o.key, err)
}

// checksum asks for the checksum of the whole object. That there is none, or
// that it cannot be asked for, is no error: reading will say what is wrong.
func (o *object) checksum(ctx context.Context) checksum {
	out, err := briefly(ctx, o.bucket, func(ctx context.Context) (*s3.HeadObjectOutput, error) {
		return o.api.Load().HeadObject(ctx, &s3.HeadObjectInput{Bucket: &o.bucket.bucket, Key: &o.key, IfMatch: &o.etag,
			VersionId: optional(o.version), RequestPayer: o.payer(), ChecksumMode: types.ChecksumModeEnabled})
	})
	if err != nil {
		return checksum{}
	}
	return wholeChecksum(out.ChecksumType, out.ChecksumCRC64NVME, out.ChecksumCRC32, out.ChecksumCRC32C)
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// wholeChecksum takes the checksum of an answer if it is of the object's
// bytes, not of its parts' checksums.
func wholeChecksum(kind types.ChecksumType, nvme, ieee, castagnoli *string) checksum {
	if kind == types.ChecksumTypeComposite {
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

// readAll reads the whole object into memory.
func (o *object) readAll(ctx context.Context) ([]byte, error) {
	if o.size > maxText {
		return nil, &Error{fmt.Sprintf("%s: %d MB, the limit is %d MB", o.name(), o.size>>20, maxText>>20), errors.ErrUnsupported}
	}
	c := &cursor{object: o, end: o.size, whole: true}
	defer c.close()
	data := make([]byte, o.size)
	if err := c.fill(ctx, data); err != nil {
		return nil, err
	}
	sum := newTally(c.sum, o.size)
	sum.add(data, 0)
	if err := sum.check(); err != nil {
		return nil, &Error{o.name() + ": " + err.Error(), err}
	}
	return data, nil
}

// readAt fills p with the bytes from offset on.
func (o *object) readAt(ctx context.Context, p []byte, offset int64) error {
	c := &cursor{object: o, at: offset, end: offset + int64(len(p))}
	defer c.close()
	return c.fill(ctx, p)
}

// cursor reads an object from byte at to byte end in order. After a fault it
// goes on with a new request at the byte where the last one stopped. For one
// goroutine; whoever made it closes it.
type cursor struct {
	*object
	at, end int64
	whole   bool     // all of the object, and its checksum
	sum     checksum // of the object, if whole and it has one

	body   io.ReadCloser
	cancel context.CancelCauseFunc
	idle   *time.Timer
	tries  int // in a row without a byte
}

// fill fills p, which lies before end, with the bytes that follow.
func (c *cursor) fill(ctx context.Context, p []byte) error {
	for len(p) > 0 {
		n, err := c.read(ctx, p)
		p = p[n:]
		c.at += int64(n)
		if n > 0 {
			c.tries = 0
		}
		if err == nil || len(p) == 0 && errors.Is(err, io.EOF) {
			continue
		}
		c.close()
		c.tries++
		if err := c.again(ctx, err, c.tries); err != nil {
			return c.explain(err)
		}
	}
	return nil
}

// read reads some bytes, at least one without an error.
func (c *cursor) read(ctx context.Context, p []byte) (int, error) {
	if c.body == nil {
		if err := c.open(ctx); err != nil {
			return 0, c.cause(ctx, err)
		}
	}
	c.idle.Reset(c.tune.idle)
	n, err := c.body.Read(p)
	c.idle.Stop()
	if n == 0 && err == nil {
		err = io.ErrNoProgress
	}
	if errors.Is(err, io.EOF) && c.at+int64(n) < c.end {
		err = io.ErrUnexpectedEOF
	}
	return n, c.cause(ctx, err)
}

// cause replaces the error of a request that was given up for being idle.
func (c *cursor) cause(ctx context.Context, err error) error {
	if err != nil && ctx.Err() == nil && errors.Is(err, context.Canceled) {
		return errIdle
	}
	return err
}

// open asks for what is left.
func (c *cursor) open(ctx context.Context) error {
	ctx, c.cancel = context.WithCancelCause(ctx)
	cancel := c.cancel
	c.idle = time.AfterFunc(c.tune.idle, func() { cancel(errIdle) })
	in := &s3.GetObjectInput{Bucket: &c.bucket.bucket, Key: &c.key, IfMatch: &c.etag, VersionId: optional(c.version), RequestPayer: c.payer()}
	asksAll := c.whole && c.at == 0
	if asksAll {
		in.ChecksumMode = types.ChecksumModeEnabled
	} else {
		in.Range = aws.String(fmt.Sprintf("bytes=%d-%d", c.at, c.end-1))
	}
	out, err := c.api.Load().GetObject(ctx, in)
	if err != nil {
		return err
	}
	c.body = out.Body
	switch {
	case aws.ToString(out.ETag) != c.etag:
		return errChanged // by a server that ignores If-Match
	case asksAll:
		if out.ContentLength != nil && *out.ContentLength != c.size {
			return errAnswer
		}
		c.sum = wholeChecksum(out.ChecksumType, out.ChecksumCRC64NVME, out.ChecksumCRC32, out.ChecksumCRC32C)
	case aws.ToString(out.ContentRange) != fmt.Sprintf("bytes %d-%d/%d", c.at, c.end-1, c.size):
		return fmt.Errorf("%w: bytes %d-%d/%d, found %q", errAnswer, c.at, c.end-1, c.size, aws.ToString(out.ContentRange))
	}
	return nil
}

// close ends the request that is under way.
func (c *cursor) close() {
	if c.cancel == nil {
		return
	}
	c.idle.Stop()
	if c.body != nil {
		c.body.Close()
	}
	c.cancel(nil)
	c.body, c.cancel = nil, nil
}
