package source

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"regexp"
	"strings"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"

	"github.com/millrace-ai/millrace/container/config"
	"github.com/millrace-ai/millrace/internal/awserr"
)

// fault is what to do about an error of S3.
type fault int

const (
	fatal     fault = iota // trying again would not help
	transient              // try again after a while
	throttled              // the same, and ask for less
	expired                // try again with new credentials
	misplaced              // ask the region that the answer names
)

// What is wrong with an answer that the server itself takes for a success.
var (
	errIdle    = errors.New("no data arrived for too long")
	errAnswer  = errors.New("the answer is not the range that was requested")
	errChanged = errors.New("it was replaced while it was being read: start again")
)

// classify says what to do about err.
func classify(err error) fault {
	code, status, kind := awserr.Code(err), awserr.Status(err), awserr.KindOf(err)
	var dns *net.DNSError
	switch {
	case kind == awserr.Throttled, code == "ServiceUnavailable":
		return throttled
	case code == "RequestTimeout", code == "InternalError":
		return transient
	case kind == awserr.Expired:
		return expired
	case kind == awserr.OtherRegion && regionOf(err) != "":
		return misplaced
	case kind == awserr.OtherRegion, errors.Is(err, errChanged):
		return fatal
	case status == http.StatusServiceUnavailable, status == http.StatusTooManyRequests:
		return throttled
	case status >= 500 || status == http.StatusRequestTimeout:
		return transient
	case status >= 300:
		return fatal
	case errors.As(err, &dns) && dns.IsNotFound:
		return fatal
	case kind == awserr.NoCredentials, kind == awserr.Unsigned:
		return fatal
	}
	return transient // no answer, or one that broke off
}

const headerRegion = "X-Amz-Bucket-Region"

// regionOf returns the region that an answer sends the caller to.
func regionOf(err error) string {
	var r *awshttp.ResponseError
	if errors.As(err, &r) && r.Response != nil && r.Response.Response != nil {
		return r.Response.Header.Get(headerRegion)
	}
	return ""
}

// needs are the permissions an operation takes.
var needs = map[string]string{"list": "s3:ListBucket", "get": "s3:GetObject", "put": "s3:PutObject"}

// urls are those in a message of the SDK, which quotes the endpoint it is given.
var urls = regexp.MustCompile("[^\\s`\"']+://[^\\s`\"']+")

// permission is how IAM's messages name what was refused.
var permission = regexp.MustCompile(`not authorized to perform: (\S+)`)

// explain makes the one line about a failed operation, "list", "get" or "put", on
// key in l. It wraps err, and fs.ErrNotExist if there is no such object.
func explain(l location, operation, key string, err error) error {
	if err == nil {
		return nil
	}
	where := l.uri(key)
	if l.version != "" {
		where += "?versionId=" + l.version
	}
	say := func(format string, args ...any) error {
		text := urls.ReplaceAllStringFunc(fmt.Sprintf(format, args...), config.HideSecrets)
		return &Error{where + ": " + text, err}
	}
	code, status, message := awserr.Code(err), awserr.Status(err), awserr.Message(err)
	lower, kind := strings.ToLower(message), awserr.KindOf(err)
	switch {
	case kind == awserr.Interrupted:
		return say("interrupted")
	case errors.Is(err, errChanged), status == http.StatusPreconditionFailed, code == "PreconditionFailed":
		return say("%v", errChanged)
	case strings.HasPrefix(code, "KMS."), strings.Contains(lower, "kms:decrypt"), strings.Contains(lower, "kms key"), strings.Contains(lower, "ciphertext refers"):
		if strings.Contains(lower, "not authorized") || strings.Contains(lower, "kms:decrypt") || status == http.StatusForbidden {
			return say("kms:Decrypt is missing: the object is encrypted with a KMS key that this role may not use (%s)", awserr.Detail(code, message))
		}
		return say("its KMS key cannot be used: enabled, in this region and not pending deletion is expected (%s)", awserr.Detail(code, message))
	case kind == awserr.NoBucket:
		return say("there is no bucket %s", l.bucket)
	case code == "NoSuchKey", code == "NotFound", status == http.StatusNotFound:
		return &Error{where + ": no such object", errors.Join(err, fs.ErrNotExist)}
	case code == "NoSuchVersion":
		return say("no such version")
	case code == "InvalidObjectState":
		return say("archived in Glacier: restore it first (%s)", awserr.Detail(code, message))
	case status == http.StatusBadRequest && (strings.Contains(lower, "server side encryption") || strings.Contains(lower, "server-side encryption")):
		return say("encrypted with a key of the customer's (SSE-C), which is not supported: encrypt with SSE-KMS or SSE-S3")
	case kind == awserr.Expired:
		return say("the credentials have expired and no newer ones were found (%s)", awserr.Detail(code, message))
	case kind == awserr.Invalid:
		return say("the credentials are not valid (%s)", awserr.Detail(code, message))
	case code == "RequestTimeTooSkewed":
		return say("the clock of this machine is wrong (%s)", awserr.Detail(code, message))
	case kind == awserr.Unsigned:
		return say("the configured credentials cannot be retrieved: %s", awserr.Why(err))
	case kind == awserr.NoCredentials:
		return say("no credentials found in the environment, in a profile, or from the container or instance role; a SageMaker container in network isolation has none, give it the model as model data in /opt/ml/model")
	case kind == awserr.Denied:
		missing := needs[operation]
		if m := permission.FindStringSubmatch(message); m != nil {
			missing = strings.TrimSuffix(m[1], ".")
		}
		hint := ""
		if operation == "get" {
			hint = ", or without s3:ListBucket there is no such object"
		}
		if !l.requesterPays && operation != "put" {
			hint += "; a Requester Pays bucket takes ?requestPayer=requester after the URI"
		}
		return say("access denied: %s is missing%s (%s)", missing, hint, awserr.Detail(code, message))
	case regionOf(err) != "":
		return say("the bucket is in region %s and could not be read there (%s)", regionOf(err), awserr.Detail(code, message))
	}
	var dns *net.DNSError
	if errors.As(err, &dns) {
		return say("S3 cannot be reached: no address for %s; in a VPC or in network isolation there may be no way to S3: add an S3 gateway endpoint, or give the model as model data in /opt/ml/model", dns.Name)
	}
	if code != "" {
		return say("%s", awserr.Detail(code, message))
	}
	return say("%s", awserr.Cause(err))
}

// Error is a line for the operator about an object or a prefix.
type Error struct {
	text  string
	cause error
}

func (e *Error) Error() string { return e.text }
func (e *Error) Unwrap() error { return e.cause }
