// Package s3test is a stand-in for S3 in tests: a server that keeps objects in
// memory and understands ListObjectsV2, HeadObject, GetObject and PutObject, with
// ranges, If-Match, versions left out, and checksums; and a proxy in front of any S3
// server that does to requests what networks, services and people do.
//
// Signatures are not checked: that is tried against a real server.
package s3test

import (
	"bytes"
	"crypto/md5"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/minio/crc64nvme"
)

// Server is an S3 server with any number of buckets. Safe for concurrent use.
type Server struct {
	URL string

	mu        sync.Mutex
	objects   map[string]object // by "bucket/key"
	checksums bool
	page      int // keys in one answer of a listing
}

type object struct {
	data []byte
	etag string
	nvme string
}

// NewServer starts a server that is closed with the test.
func NewServer(tb testing.TB) *Server {
	s := &Server{objects: map[string]object{}, checksums: true, page: 1000}
	h := httptest.NewServer(s)
	tb.Cleanup(h.Close)
	s.URL = h.URL
	return s
}

// WithoutChecksums makes it a server that keeps none.
func (s *Server) WithoutChecksums() *Server { s.checksums = false; return s }

// PageOf makes listings answer n keys at a time.
func (s *Server) PageOf(n int) *Server { s.page = n; return s }

// Put makes or replaces an object. The server keeps data.
func (s *Server) Put(bucket, key string, data []byte) {
	sum := md5.Sum(data)
	o := object{data: data, etag: `"` + hex.EncodeToString(sum[:]) + `"`}
	o.nvme = base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint64(nil, crc64nvme.Checksum(data)))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.objects[bucket+"/"+key] = o
}

// Get returns an object, nil if there is none.
func (s *Server) Get(bucket, key string) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.objects[bucket+"/"+key].data
}

// Delete removes an object.
func (s *Server) Delete(bucket, key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.objects, bucket+"/"+key)
}

func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	bucket, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	if key == "" && r.URL.Query().Get("list-type") == "2" {
		s.list(w, r, bucket)
		return
	}
	s.mu.Lock()
	o, ok := s.objects[bucket+"/"+key]
	s.mu.Unlock()
	switch {
	case r.Method == http.MethodPut:
		data, err := io.ReadAll(r.Body)
		if err != nil {
			Fail(w, http.StatusBadRequest, "IncompleteBody", err.Error())
			return
		}
		s.Put(bucket, key, data)
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		Fail(w, http.StatusMethodNotAllowed, "MethodNotAllowed", "The specified method is not allowed against this resource.")
	case !ok:
		Fail(w, http.StatusNotFound, "NoSuchKey", "The specified key does not exist.")
	case r.Header.Get("If-Match") != "" && r.Header.Get("If-Match") != o.etag:
		Fail(w, http.StatusPreconditionFailed, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold")
	default:
		s.get(w, r, o)
	}
}

func (s *Server) get(w http.ResponseWriter, r *http.Request, o object) {
	h := w.Header()
	h.Set("ETag", o.etag)
	h.Set("Content-Type", "binary/octet-stream")
	if s.checksums && r.Header.Get("Range") == "" && r.Header.Get("X-Amz-Checksum-Mode") == "ENABLED" {
		h.Set("X-Amz-Checksum-Crc64nvme", o.nvme)
		h.Set("X-Amz-Checksum-Type", "FULL_OBJECT")
	}
	if rg := r.Header.Get("Range"); rg != "" {
		var from, to int
		if _, err := fmt.Sscanf(rg, "bytes=%d-%d", &from, &to); err != nil || from > to || from >= len(o.data) {
			Fail(w, http.StatusRequestedRangeNotSatisfiable, "InvalidRange", "The requested range is not satisfiable")
			return
		}
	}
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(o.data))
}

// list answers ListObjectsV2. The continuation token is the last key.
func (s *Server) list(w http.ResponseWriter, r *http.Request, bucket string) {
	q := r.URL.Query()
	type content struct {
		Key  string
		ETag string
		Size int
	}
	out := struct {
		XMLName               xml.Name `xml:"ListBucketResult"`
		Name                  string
		Contents              []content
		IsTruncated           bool
		NextContinuationToken string `xml:",omitempty"`
	}{Name: bucket}
	s.mu.Lock()
	known := false
	for _, full := range slices.Sorted(maps.Keys(s.objects)) {
		key, ok := strings.CutPrefix(full, bucket+"/")
		known = known || ok
		if !ok || !strings.HasPrefix(key, q.Get("prefix")) || key <= q.Get("continuation-token") {
			continue
		}
		if len(out.Contents) == s.page {
			out.IsTruncated, out.NextContinuationToken = true, out.Contents[s.page-1].Key
			break
		}
		o := s.objects[full]
		out.Contents = append(out.Contents, content{key, o.etag, len(o.data)})
	}
	s.mu.Unlock()
	if !known {
		Fail(w, http.StatusNotFound, "NoSuchBucket", "The specified bucket does not exist")
		return
	}
	w.Header().Set("Content-Type", "application/xml")
	_ = xml.NewEncoder(w).Encode(out)
}

// Fail answers with an error as S3 writes it.
func Fail(w http.ResponseWriter, status int, code, message string) {
	var text bytes.Buffer
	text.WriteString(xml.Header)
	_ = xml.NewEncoder(&text).Encode(struct {
		XMLName       xml.Name `xml:"Error"`
		Code, Message string
		RequestId     string
	}{Code: code, Message: message, RequestId: "TEST"})
	w.Header().Set("Content-Type", "application/xml")
	w.Header().Set("Content-Length", strconv.Itoa(text.Len()))
	w.WriteHeader(status)
	_, _ = w.Write(text.Bytes())
}
