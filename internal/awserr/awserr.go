// Package awserr reads what an error of the AWS SDK says: its kind, AWS's code
// and words, the status, and what lies below the SDK's frames. Its users decide
// what to tell the operator.
package awserr

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"
)

// Kind is what an error is about, as far as AWS's services have it in common.
type Kind int

// The kinds.
const (
	Other         Kind = iota
	Interrupted        // its context was cancelled
	NoCredentials      // there is nothing to sign with, and nothing is configured
	Unsigned           // what is configured gives no credentials; Why says why
	Expired            // the credentials have expired
	Invalid            // AWS does not know the credentials, or the signature is wrong
	Denied             // a permission is missing
	Throttled          // too many calls
	OtherRegion        // what was asked for is in another region
	NoBucket           // the bucket does not exist
)

// kinds are the codes of AWS's services by what they mean.
var kinds = map[string]Kind{
	"ExpiredToken": Expired, "ExpiredTokenException": Expired, "TokenRefreshRequired": Expired, "RequestExpired": Expired,

	"UnrecognizedClientException": Invalid, "InvalidClientTokenId": Invalid, "InvalidAccessKeyId": Invalid, "InvalidToken": Invalid,
	"SignatureDoesNotMatch": Invalid, "InvalidSignatureException": Invalid,

	"AccessDenied": Denied, "AccessDeniedException": Denied,

	"SlowDown": Throttled, "Throttling": Throttled, "ThrottlingException": Throttled, "RequestLimitExceeded": Throttled,
	"TooManyRequests": Throttled, "TooManyRequestsException": Throttled,

	"PermanentRedirect": OtherRegion, "TemporaryRedirect": OtherRegion, "AuthorizationHeaderMalformed": OtherRegion,
	"IllegalLocationConstraintException": OtherRegion,

	"NoSuchBucket": NoBucket,
}

// KindOf returns the kind of err.
func KindOf(err error) Kind {
	if errors.Is(err, context.Canceled) {
		return Interrupted
	}
	if code := Code(err); code != "" && kinds[code] != Other {
		return kinds[code]
	}
	switch Status(err) {
	case http.StatusForbidden:
		return Denied
	case http.StatusMovedPermanently:
		return OtherRegion
	}
	switch {
	case Why(err) != "":
		return Unsigned
	case noCredentials(err):
		return NoCredentials
	}
	return Other
}

// Code is AWS's code of err, "" if it is not an answer of AWS.
func Code(err error) string {
	var api smithy.APIError
	if errors.As(err, &api) {
		return api.ErrorCode()
	}
	return ""
}

// Message is AWS's message in err on one line, "" if there is none.
func Message(err error) string {
	var api smithy.APIError
	if errors.As(err, &api) {
		return oneLine(api.ErrorMessage())
	}
	return ""
}

// Status is the HTTP status of the answer that err is, 0 if there was none.
func Status(err error) int {
	var r *awshttp.ResponseError
	if errors.As(err, &r) && r.Response != nil {
		return r.HTTPStatusCode()
	}
	return 0
}

// Detail is AWS's own words, cut to what a line holds.
func Detail(code, message string) string {
	const most = 400
	switch {
	case message == "" || message == code:
		return code
	case len(message) > most:
		message = strings.ToValidUTF8(message[:most], "") + "…"
	}
	return code + ": " + message
}

// Cause is the text of the innermost error in err, without the SDK's frames
// around it, on one line.
func Cause(err error) string {
	for {
		inner := errors.Unwrap(err)
		if inner == nil || inner.Error() == "" {
			return oneLine(err.Error())
		}
		var op *net.OpError
		if errors.As(err, &op) {
			return oneLine(op.Error())
		}
		err = inner
	}
}

// noCredentials reports whether the SDK has nothing to sign with, for which it
// has no type.
func noCredentials(err error) bool {
	text := err.Error()
	return strings.Contains(text, "failed to refresh cached credentials") || strings.Contains(text, "no EC2 IMDS role found") ||
		strings.Contains(text, "static credentials are empty") || strings.Contains(text, "get identity: get credentials")
}

// Why is why configured credentials cannot be retrieved, in the SDK's words: an
// expired login, a role that may not be assumed, a program that fails. It is ""
// if none are configured, or err is about something else.
func Why(err error) string {
	text := oneLine(err.Error())
	if strings.Contains(text, "no EC2 IMDS role found") || strings.Contains(text, "static credentials are empty") {
		return ""
	}
	_, why, _ := strings.Cut(text, "get identity: get credentials: ")
	return strings.TrimPrefix(why, "failed to refresh cached credentials, ")
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
