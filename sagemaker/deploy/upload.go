package deploy

import (
	"context"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/millrace-ai/millrace/internal/account"
)

const (
	leastPart = 16 << 20
	mostParts = 10_000
	uploaders = 8 // parts on their way at a time
)

// upload copies the model in the folder dir to a prefix of its own below place,
// BUCKET or BUCKET/PREFIX, and returns its URI. Objects that are there already
// are not sent again. S3 compares each object with the sum of the file.
func (c *Client) upload(ctx context.Context, dir, place, name string, progress Progress) (string, error) {
	files, err := readFolder(dir)
	if err != nil {
		return "", err
	}
	total := int64(0)
	for _, f := range files {
		total += f.size
	}
	c.Say("%s: reading %d files, %.1f MB", dir, len(files), float64(total)/1e6)
	content, err := digest(ctx, files)
	if err != nil {
		return "", err
	}
	bucket, prefix, _ := strings.Cut(place, "/")
	if prefix = strings.Trim(prefix, "/"); prefix != "" {
		prefix += "/"
	}
	prefix += name + "/" + content + "/"
	uri := "s3://" + bucket + "/" + prefix

	u := &upload{client: c, bucket: bucket, total: total, progress: progress}
	for _, f := range files {
		key := prefix + f.name
		there, err := u.has(ctx, key, f)
		switch {
		case err != nil:
			return "", err
		case there:
			u.advance(f.size)
			continue
		case c.Dry():
			err = c.NoteFile(bucket, key, f.size)
		default:
			err = u.put(ctx, key, f)
		}
		if err != nil {
			return "", c.explain(err, "s3://"+bucket+"/"+key)
		}
	}
	c.Say("%s: is in %s", dir, uri)
	return uri, nil
}

// upload is the copy of a folder to a bucket.
type upload struct {
	client   *Client
	bucket   string
	total    int64
	progress Progress

	mu   sync.Mutex
	done int64
}

func (u *upload) advance(n int64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.done += n
	u.progress(u.done, u.total)
}

// has reports whether S3 holds f under key: the key names the content, and an
// object is there whole or not at all.
func (u *upload) has(ctx context.Context, key string, f *file) (bool, error) {
	out, err := u.client.s3.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &u.bucket, Key: &key})
	if account.IsMissing(err) {
		return false, nil
	}
	if err != nil {
		return false, u.client.explain(err, "s3://"+u.bucket+"/"+key)
	}
	return aws.ToInt64(out.ContentLength) == f.size, nil
}

func (u *upload) put(ctx context.Context, key string, f *file) error {
	in, err := os.Open(f.path)
	if err != nil {
		return err
	}
	defer in.Close()
	if f.size > leastPart {
		return u.putParts(ctx, key, f, in)
	}
	_, err = u.client.s3.PutObject(ctx, &s3.PutObjectInput{
		Bucket: &u.bucket, Key: &key, Body: in, ContentLength: &f.size, ChecksumCRC64NVME: &f.crc,
	})
	if err == nil {
		u.advance(f.size)
	}
	return err
}

// putParts sends a large file in parts, several at a time.
func (u *upload) putParts(ctx context.Context, key string, f *file, in io.ReaderAt) error {
	api := u.client.s3
	made, err := api.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{
		Bucket: &u.bucket, Key: &key, ChecksumAlgorithm: types.ChecksumAlgorithmCrc64nvme, ChecksumType: types.ChecksumTypeFullObject,
	})
	if err != nil {
		return err
	}
	size := max(leastPart, (f.size+mostParts-1)/mostParts)
	parts := make([]types.CompletedPart, (f.size+size-1)/size)

	sending, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	var next atomic.Int32
	var workers sync.WaitGroup
	for range min(uploaders, len(parts)) {
		workers.Go(func() {
			for i := next.Add(1) - 1; int(i) < len(parts) && sending.Err() == nil; i = next.Add(1) - 1 {
				from := int64(i) * size
				section := io.NewSectionReader(in, from, min(size, f.size-from))
				out, err := api.UploadPart(sending, &s3.UploadPartInput{
					Bucket: &u.bucket, Key: &key, UploadId: made.UploadId, PartNumber: aws.Int32(i + 1),
					Body: section, ChecksumAlgorithm: types.ChecksumAlgorithmCrc64nvme,
				})
				if err != nil {
					fail(err)
					return
				}
				parts[i] = types.CompletedPart{PartNumber: aws.Int32(i + 1), ETag: out.ETag, ChecksumCRC64NVME: out.ChecksumCRC64NVME}
				u.advance(section.Size())
			}
		})
	}
	workers.Wait()
	if err = context.Cause(sending); err == nil {
		_, err = api.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{
			Bucket: &u.bucket, Key: &key, UploadId: made.UploadId, MultipartUpload: &types.CompletedMultipartUpload{Parts: parts},
			ChecksumCRC64NVME: &f.crc, ChecksumType: types.ChecksumTypeFullObject, MpuObjectSize: &f.size,
		})
	}
	if err != nil {
		// An unfinished upload costs money; nothing more can be done if this fails too.
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		_, _ = api.AbortMultipartUpload(last, &s3.AbortMultipartUploadInput{Bucket: &u.bucket, Key: &key, UploadId: made.UploadId})
	}
	return err
}
