package account

import (
	"errors"
	"fmt"
	"net"
	"regexp"
	"strings"

	"github.com/aws/smithy-go"

	"github.com/millrace-ai/millrace/internal/awserr"
)

// Error is a line for the operator.
type Error struct {
	text  string
	cause error
}

func (e *Error) Error() string { return e.text }
func (e *Error) Unwrap() error { return e.cause }

// Errorf makes an Error that wraps cause.
func Errorf(cause error, format string, args ...any) error {
	return &Error{fmt.Sprintf(format, args...), cause}
}

var (
	// denied is how IAM's messages name what was refused, and on what.
	denied = regexp.MustCompile(`not authorized to perform: (\S+)(?: on resource: (\S+))?`)
	// prefixes of IAM's actions by the SDK's service.
	actions = map[string]string{
		"SageMaker": "sagemaker", "SageMaker Runtime": "sagemaker", "S3": "s3", "Lambda": "lambda",
		"CloudWatch Logs": "logs", "CloudWatch": "cloudwatch", "IAM": "iam", "STS": "sts",
	}
	// permissions of operations whose names differ from them.
	permissions = map[string]string{
		// Without s3:ListBucket S3 does not even say that an object is not there.
		"s3:HeadObject": "s3:GetObject or s3:ListBucket", "s3:CreateMultipartUpload": "s3:PutObject", "s3:UploadPart": "s3:PutObject",
		"s3:CompleteMultipartUpload": "s3:PutObject", "sagemaker:InvokeEndpointWithResponseStream": "sagemaker:InvokeEndpoint",
		"lambda:Invoke": "lambda:InvokeFunction", "lambda:InvokeWithResponseStream": "lambda:InvokeFunction",
	}
)

// Explain makes the one line about a failed call that concerned what. It wraps
// err, and is nil if err is.
func (a *Account) Explain(err error, what string) error {
	if err == nil {
		return nil
	}
	say := func(format string, args ...any) error {
		return &Error{what + ": " + fmt.Sprintf(format, args...), err}
	}
	code, message := awserr.Code(err), awserr.Message(err)
	var dns *net.DNSError
	switch kind := awserr.KindOf(err); {
	case kind == awserr.Interrupted:
		return say("interrupted")
	case kind == awserr.Unsigned:
		return say("the configured credentials cannot be retrieved: %s; log in again, or check the profile with `aws sts get-caller-identity`", awserr.Why(err))
	case kind == awserr.NoCredentials:
		return say("no credentials found in the environment, in a profile (--profile) or from a role; check with `aws sts get-caller-identity`")
	case kind == awserr.Expired:
		return say("the credentials have expired: log in again (%s)", awserr.Detail(code, message))
	case kind == awserr.Invalid:
		return say("the credentials are not valid in %s (%s)", a.Region(), awserr.Detail(code, message))
	case kind == awserr.Denied:
		action, resource, how := actionOf(err), "", "is missing"
		if m := denied.FindStringSubmatch(message); m != nil {
			action = strings.TrimSuffix(m[1], ".")
			if m[2] != "" {
				resource = " on " + strings.TrimSuffix(m[2], ".")
			}
		}
		if strings.Contains(strings.ToLower(message), "explicit deny") {
			how = "is forbidden by a policy"
		}
		return say("access denied: %s%s %s (%s)", action, resource, how, awserr.Detail(code, message))
	case kind == awserr.Throttled:
		return say("AWS keeps refusing because of too many calls: try again in a minute (%s)", awserr.Detail(code, message))
	case errors.As(err, &dns):
		return say("no address for %s: check the region, %s, and the network", dns.Name, a.Region())
	case code != "":
		return say("%s", awserr.Detail(code, message))
	}
	return say("%s", awserr.Cause(err))
}

// IsMissing reports whether err says that what was named does not exist;
// SageMaker has no code of its own for that.
func IsMissing(err error) bool {
	switch awserr.Code(err) {
	case "ResourceNotFound", "ResourceNotFoundException", "NotFound", "NoSuchKey", "NoSuchEntity":
		return true
	case "ValidationException":
		m := strings.ToLower(awserr.Message(err))
		return strings.Contains(m, "could not find") || strings.Contains(m, "does not exist")
	}
	return false
}

// actionOf is the permission that the failed call takes.
func actionOf(err error) string {
	var op *smithy.OperationError
	if !errors.As(err, &op) {
		return "a permission"
	}
	action := actions[op.ServiceID] + ":" + op.OperationName
	if other, ok := permissions[action]; ok {
		return other
	}
	return action
}
