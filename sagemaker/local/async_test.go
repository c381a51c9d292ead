package local

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sagemakerruntime"
	"github.com/aws/aws-sdk-go-v2/service/sagemakerruntime/types"
)

type asyncInput = sagemakerruntime.InvokeEndpointAsyncInput

func TestAsynchronousCalls(t *testing.T) {
	dir := t.TempDir()
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	if err := os.MkdirAll(filepath.Join(dir, "bucket"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "bucket", "in.json"), []byte("from a file"), 0o644); err != nil {
		t.Fatal(err)
	}
	r := run(t, Config{
		Store: dir,
		Launcher: &fakes{t: t, handler: healthy(func(w http.ResponseWriter, req *http.Request) {
			body, _ := io.ReadAll(req.Body)
			switch string(body) {
			case "refuse":
				w.WriteHeader(http.StatusUnprocessableEntity)
				w.Write([]byte("no such adapter"))
			case "hang":
				wait(req, release)
			default:
				w.Write([]byte(req.Header.Get("Content-Type") + " " + req.Header.Get("Accept") + " " + string(body)))
			}
		})},
		Limits: Limits{InlineBody: 100, Body: 1, Unary: time.Nanosecond}, // not for these calls
	})
	const home = "s3://sagemaker-us-east-1-123456789012/demo/"
	for _, tt := range []struct {
		name                    string
		in                      asyncInput
		wantOutput, wantFailure string // locations; "": any
		want, wantError         string // contents of the file that appears
	}{
		{
			name: "an inline body",
			in:   asyncInput{Body: []byte("inline"), ContentType: aws.String("a/b"), Accept: aws.String("c/d")},
			want: "a/b c/d inline",
		}, {
			name: "a file",
			in:   asyncInput{InputLocation: aws.String("s3://bucket/in.json"), ContentType: aws.String("a/b"), Accept: aws.String("c/d")},
			want: "a/b c/d from a file",
		}, {
			name: "a file by its path",
			in:   asyncInput{InputLocation: aws.String("file://" + dir + "/bucket/in.json"), ContentType: aws.String("a/b"), Accept: aws.String("c/d")},
			want: "a/b c/d from a file",
		}, {
			name:       "a place for the output",
			in:         asyncInput{Body: []byte("x"), Filename: aws.String("answer"), S3OutputPathExtension: aws.String("today/../now")},
			wantOutput: home + "async-output/now/answer.out", wantFailure: home + "async-failures/now/answer-error.out",
			want: "  x",
		}, {
			name:      "an error of the container",
			in:        asyncInput{Body: []byte("refuse")},
			wantError: `Received client error (422) from primary with message "no such adapter"`,
		}, {
			name:      "no answer in time",
			in:        asyncInput{Body: []byte("hang"), InvocationTimeoutSeconds: aws.Int32(1)},
			wantError: "Your invocation timed out",
		}, {
			name:      "a missing file",
			in:        asyncInput{InputLocation: aws.String("s3://bucket/none")},
			wantError: "The input could not be read",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.in.EndpointName = aws.String("demo")
			out, err := r.InvokeEndpointAsync(context.Background(), &tt.in)
			if err != nil {
				t.Fatal(err)
			}
			output, failure := aws.ToString(out.OutputLocation), aws.ToString(out.FailureLocation)
			if aws.ToString(out.InferenceId) == "" || !strings.HasPrefix(output, home) || !strings.HasPrefix(failure, home) {
				t.Errorf("id %q, output %s, failure %s", aws.ToString(out.InferenceId), output, failure)
			}
			if tt.wantOutput != "" && (output != tt.wantOutput || failure != tt.wantFailure) {
				t.Errorf("output %s, failure %s; want %s, %s", output, failure, tt.wantOutput, tt.wantFailure)
			}
			appears, want := output, tt.want
			if tt.wantError != "" {
				appears, want = failure, tt.wantError
			}
			var got []byte
			eventually(t, appears+" appears", func() bool {
				got, err = os.ReadFile(filepath.Join(dir, strings.TrimPrefix(appears, "s3://")))
				return err == nil
			})
			if tt.wantError == "" && string(got) != want || !strings.Contains(string(got), want) {
				t.Errorf("%s holds %q, want %q", appears, got, want)
			}
		})
	}
}

func TestAsynchronousCallsThePlatformRefuses(t *testing.T) {
	dir := t.TempDir()
	r := run(t, Config{
		Store:    dir,
		Launcher: &fakes{t: t, handler: healthy(func(http.ResponseWriter, *http.Request) { t.Error("the request reached the container") })},
		Limits:   Limits{InlineBody: 10},
	})
	for _, tt := range []struct {
		name string
		in   asyncInput
		want string
	}{
		{"no input", asyncInput{}, "Exactly one of Body and InputLocation must be given, and neither is."},
		{"two inputs", asyncInput{Body: []byte("x"), InputLocation: aws.String("s3://b/k")}, "and both are"},
		{"a long body", asyncInput{Body: []byte("more than ten")}, "13 bytes is too large: the payload may have at most 10"},
		{"a bucket without a key", asyncInput{InputLocation: aws.String("s3://bucket/")}, "expected s3://BUCKET/KEY"},
		{"a way out of the folder", asyncInput{InputLocation: aws.String("s3://../etc/passwd")}, "expected s3://BUCKET/KEY"},
		{"a file outside the folder", asyncInput{InputLocation: aws.String("file:///etc/passwd")}, "expected a file below " + dir},
		{"a web address", asyncInput{InputLocation: aws.String("https://bucket.s3.amazonaws.com/k")}, "expected s3://BUCKET/KEY, or file://"},
		{"a short life", asyncInput{Body: []byte("x"), RequestTTLSeconds: aws.Int32(59)}, "Value '59' at 'requestTTLSeconds' failed to satisfy constraint: Member must be an integer from 60 to 21600"},
		{"a long run", asyncInput{Body: []byte("x"), InvocationTimeoutSeconds: aws.Int32(3601)}, "at 'invocationTimeoutSeconds'"},
		{"a file name with two dots", asyncInput{Body: []byte("x"), Filename: aws.String("a.b.c")}, "at 'filename'"},
		{"an extension that is a location", asyncInput{Body: []byte("x"), S3OutputPathExtension: aws.String("s3://b")}, "at 's3OutputPathExtension'"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.in.EndpointName = aws.String("demo")
			_, err := r.InvokeEndpointAsync(context.Background(), &tt.in)
			var v *types.ValidationError
			if !errors.As(err, &v) || !strings.Contains(v.ErrorMessage(), tt.want) {
				t.Errorf("got %v, want a ValidationError with %q", err, tt.want)
			}
		})
	}
}

func TestAnEndpointWithoutAStoreTakesNoAsynchronousCalls(t *testing.T) {
	r := run(t, Config{Launcher: &fakes{t: t, handler: healthy(http.NotFound)}})
	_, err := r.InvokeEndpointAsync(context.Background(), &asyncInput{EndpointName: aws.String("demo"), Body: []byte("x")})
	var v *types.ValidationError
	if !errors.As(err, &v) || !strings.Contains(v.ErrorMessage(), "no asynchronous inference configuration") {
		t.Errorf("got %v, want a ValidationError", err)
	}
}

// What the queue holds when the endpoint is deleted fails, and says so.
func TestDeletingTheEndpointFailsWhatWaits(t *testing.T) {
	dir := t.TempDir()
	begun := make(chan struct{}, 2)
	r := run(t, Config{
		Store:            dir,
		AsyncPerInstance: 1,
		Launcher: &fakes{t: t, handler: func(f *fake) http.Handler {
			return healthy(func(w http.ResponseWriter, _ *http.Request) {
				begun <- struct{}{}
				<-f.term
				w.Write([]byte("answer"))
			})(f)
		}},
	})
	var outs []*sagemakerruntime.InvokeEndpointAsyncOutput
	for range 2 {
		out, err := r.InvokeEndpointAsync(context.Background(), &asyncInput{EndpointName: aws.String("demo"), Body: []byte("x")})
		if err != nil {
			t.Fatal(err)
		}
		outs = append(outs, out)
	}
	<-begun
	eventually(t, "both are counted", func() bool {
		return strings.Contains(r.metricsText(), `ApproximateBacklogSize{EndpointName="demo",VariantName="AllTraffic"} 2`)
	})
	r.stop()
	answers, failures := 0, 0
	for _, out := range outs {
		if _, err := os.Stat(filepath.Join(dir, strings.TrimPrefix(*out.OutputLocation, "s3://"))); err == nil {
			answers++
		}
		if _, err := os.Stat(filepath.Join(dir, strings.TrimPrefix(*out.FailureLocation, "s3://"))); err == nil {
			failures++
		}
	}
	if answers != 1 || failures != 1 {
		t.Errorf("%d answers and %d failures, want one of each", answers, failures)
	}
}

func FuzzLocation(f *testing.F) {
	dir := f.TempDir()
	s, err := openStore(filepath.Join(dir, "store"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add("s3://bucket/key")
	f.Add("file://" + dir + "/store/../x")
	f.Add("s3://a/..//b")
	f.Fuzz(func(t *testing.T, location string) {
		name, err := s.name(location)
		if err != nil {
			return
		}
		if !filepath.IsLocal(name) || name == "." {
			t.Errorf("%q was read as %q", location, name)
		}
	})
}
