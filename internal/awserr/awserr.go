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
