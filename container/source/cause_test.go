package source

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"math"
	"net/http"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/millrace-ai/millrace/container/source/s3test"
)

// TestCauses answers the requests for one object, or the listing, with an
// error of S3's, and reads the one line that comes of it.
func TestCauses(t *testing.T) {
	const tar, tree = "s3://models/m.tar.gz", "s3://models/llama"
	for _, tt := range []struct {
		name     string
		location string
		status   int
		code     string
		message  string
		want     []string
	}{
		{"no permission to read", tar, 403, "AccessDenied", "User: arn:aws:sts::1:assumed-role/r/i is not authorized to perform: s3:GetObject on resource: \"arn:aws:s3:::models/m.tar.gz\" because no identity-based policy allows the s3:GetObject action",
			[]string{"s3://models/m.tar.gz: ", "s3:GetObject is missing", "arn:aws:sts::1:assumed-role/r/i"}},
		{"no permission, few words", tar, 403, "AccessDenied", "Access Denied", []string{"s3:GetObject is missing, or without s3:ListBucket there is no such object", "requestPayer=requester"}},
		{"no permission to list", tree, 403, "AccessDenied", "Access Denied", []string{"s3://models/llama/: ", "s3:ListBucket is missing"}},
		{"a version is another permission", tar, 403, "AccessDenied", "x is not authorized to perform: s3:GetObjectVersion on resource y", []string{"s3:GetObjectVersion is missing"}},
		{"no permission for the key", tar, 403, "AccessDenied", "User: arn:x is not authorized to perform: kms:Decrypt on resource: arn:aws:kms:eu-west-1:1:key/k because no identity-based policy allows the kms:Decrypt action",
			[]string{"s3://models/m.tar.gz: ", "kms:Decrypt is missing", "arn:aws:kms:eu-west-1:1:key/k"}},
		{"key is disabled", tar, 400, "KMS.DisabledException", "arn:aws:kms:eu-west-1:1:key/k is disabled.", []string{"its KMS key cannot be used", "is disabled"}},
		{"customer's key", tar, 400, "InvalidRequest", "The object was stored using a form of Server Side Encryption. The correct parameters must be provided to retrieve the object.", []string{"SSE-C"}},
		{"no bucket", tree, 404, "NoSuchBucket", "The specified bucket does not exist", []string{"there is no bucket models"}},
		{"no object", tar, 404, "NoSuchKey", "The specified key does not exist.", []string{"no such object"}},
		{"archived", tar, 403, "InvalidObjectState", "The operation is not valid for the object's storage class", []string{"Glacier: restore it first"}},
		{"token too old", tar, 400, "ExpiredToken", "The provided token has expired.", []string{"the credentials have expired and no newer ones were found"}},
		{"unknown key", tar, 403, "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records.", []string{"the credentials are not valid"}},
		{"wrong clock", tar, 403, "RequestTimeTooSkewed", "The difference between the request time and the current time is too large.", []string{"the clock of this machine is wrong"}},
		{"always busy", tar, 503, "SlowDown", "Please reduce your request rate.", []string{"SlowDown: Please reduce your request rate."}},
		{"two lines", tar, 400, "Odd", "one\ntwo", []string{"Odd: one two"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			proxy := s3test.NewProxy(t, "", 1, nil)
			proxy.Intercept(func(_ int, w http.ResponseWriter, _ *http.Request) bool {
				s3test.Fail(w, tt.status, tt.code, tt.message)
				return true
			})
			_, err := openBucket(t.Context(), testBucket(t, proxy.URL, tt.location, quick), math.MaxInt64)
			if err == nil || strings.Contains(err.Error(), "\n") || len(err.Error()) > 1000 {
				t.Fatalf("got %v, want one line", err)
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got  %v\nwant %q in it", err, want)
				}
			}
		})
	}
}

func TestCauseWithoutAnswer(t *testing.T) {
	for _, tt := range []struct{ name, url, want string }{
		{"nobody listens", "http://127.0.0.1:1", "connection refused"},
		{"no such host", "http://s3.invalid", "S3 cannot be reached: no address for"},
		{"secret in the endpoint's query", "http://127.0.0.1:1/?token=hunter2", "Custom endpoint `http://127.0.0.1:1/?token=***`"},
		{"secret in a wrong endpoint", "ht!tp://user:hunter2@h", "Custom endpoint `ht!tp://***@h`"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := openBucket(t.Context(), testBucket(t, tt.url, "s3://models/llama", quick), math.MaxInt64)
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.HasPrefix(err.Error(), "s3://models/llama/: ") || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("got %v; want %q in it", err, tt.want)
			}
		})
	}
}

func TestCauseWithoutCredentials(t *testing.T) {
	l, err := parseLocation("s3://models/llama")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, failure, want string }{
		{"none", "no EC2 IMDS role found", "no credentials found"},
		{"a login that has ended", "the SSO session has expired", "the configured credentials cannot be retrieved: the SSO session has expired"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			failing := aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
				return aws.Credentials{}, errors.New(tt.failure)
			})
			_, err := openBucket(t.Context(), newBucket(testConfig(t, "http://127.0.0.1:1", failing), l, quick, silent), math.MaxInt64)
			if err == nil || !strings.Contains(err.Error(), "s3://models/llama/: "+tt.want) {
				t.Errorf("got %v; want %q in it", err, tt.want)
			}
		})
	}
}

// TestRegion answers as S3 does when asked in another region than the
// bucket's: the client follows, and stays there.
func TestRegion(t *testing.T) {
	files := randomModel(1, 1, 3, 500)
	server := s3test.NewServer(t)
	put(server, "models", "llama/", files)
	proxy := s3test.NewProxy(t, server.URL, 1, func(int, *http.Request) s3test.Fault { return s3test.None })
	for name, redirect := range map[string]http.HandlerFunc{
		"in a header": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Amz-Bucket-Region", "eu-west-1")
			s3test.Fail(w, http.StatusMovedPermanently, "PermanentRedirect", "The bucket you are attempting to access must be addressed using the specified endpoint.")
		},
		"in the body": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/xml")
			w.WriteHeader(http.StatusBadRequest)
			io.WriteString(w, "<?xml version=\"1.0\"?><Error><Code>AuthorizationHeaderMalformed</Code>"+
				"<Message>The authorization header is malformed; the region 'us-east-1' is wrong; expecting 'eu-west-1'</Message><Region>eu-west-1</Region></Error>")
		},
	} {
		t.Run(name, func(t *testing.T) {
			redirected := 0
			proxy.Intercept(func(_ int, w http.ResponseWriter, r *http.Request) bool {
				if strings.Contains(r.Header.Get("Authorization"), "/eu-west-1/s3/") {
					return false
				}
				redirected++
				redirect(w, r)
				return true
			})
			sums, _, err := read(t.Context(), testBucket(t, proxy.URL, "s3://models/llama", quick))
			if err != nil || len(sums) != 3 || redirected != 1 {
				t.Errorf("%d tensors, %v, redirected %d times; want 3, once", len(sums), err, redirected)
			}
		})
	}
}

func TestRequesterPays(t *testing.T) {
	server := s3test.NewServer(t)
	put(server, "models", "llama/", randomModel(1, 1, 3, 500))
	proxy := s3test.NewProxy(t, server.URL, 1, func(int, *http.Request) s3test.Fault { return s3test.None })
	proxy.Intercept(func(_ int, w http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("X-Amz-Request-Payer") == "requester" {
			return false
		}
		s3test.Fail(w, http.StatusForbidden, "AccessDenied", "Access Denied")
		return true
	})
	if _, _, err := read(t.Context(), testBucket(t, proxy.URL, "s3://models/llama?requestPayer=requester", quick)); err != nil {
		t.Error(err)
	}
}

func TestMissingObjectIsNotExist(t *testing.T) {
	server := s3test.NewServer(t)
	server.Put("models", "x", nil)
	for _, location := range []string{"s3://models/llama", "s3://models/m.tar.gz"} {
		if _, err := openBucket(t.Context(), testBucket(t, server.URL, location, quick), math.MaxInt64); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v, want that it does not exist", location, err)
		}
	}
}
