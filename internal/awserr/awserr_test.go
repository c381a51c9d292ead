package awserr

import (
	"context"
	"errors"
	"net/http"
	"testing"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

func TestKindOf(t *testing.T) {
	code := func(c string) error { return &smithy.GenericAPIError{Code: c, Message: "m"} }
	status := func(status int, err error) error {
		return &awshttp.ResponseError{ResponseError: &smithyhttp.ResponseError{
			Response: &smithyhttp.Response{Response: &http.Response{StatusCode: status}}, Err: err,
		}}
	}
	for _, tt := range []struct {
		name string
		err  error
		want Kind
	}{
		{"interrupted", &smithy.CanceledError{Err: context.Canceled}, Interrupted},
		{"expired", code("ExpiredToken"), Expired},
		{"invalid", code("InvalidAccessKeyId"), Invalid},
		{"invalid, as 403", status(403, code("SignatureDoesNotMatch")), Invalid},
		{"denied", code("AccessDeniedException"), Denied},
		{"denied by a HEAD, which has no code", status(403, errors.New("forbidden")), Denied},
		{"throttled", status(503, code("SlowDown")), Throttled},
		{"moved", status(301, errors.New("moved")), OtherRegion},
		{"another region", code("AuthorizationHeaderMalformed"), OtherRegion},
		{"no bucket", status(404, code("NoSuchBucket")), NoBucket},
		{"another code", status(400, code("ValidationException")), Other},
		{"nothing to sign with", errors.New("get identity: get credentials: failed to refresh cached credentials, no EC2 IMDS role found"), NoCredentials},
		{"a login that has ended", errors.New("get identity: get credentials: failed to refresh cached credentials, the SSO session has expired"), Unsigned},
		{"anything", errors.New("connection reset"), Other},
	} {
		if got := KindOf(tt.err); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
	}
	if why := Why(errors.New("get identity: get credentials: failed to refresh cached credentials, the SSO session has expired")); why != "the SSO session has expired" {
		t.Errorf("why: %q", why)
	}
}
