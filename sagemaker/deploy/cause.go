package deploy

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

var (
	// denied is how IAM's messages name what was refused, and on what.
	denied = regexp.MustCompile(`not authorized to perform: (\S+)(?: on resource: (\S+))?`)
	// noType is how SageMaker refuses an instance type, before a list of all.
	noType = regexp.MustCompile(`Value '([^']*)' at '[^']*instanceType' failed to satisfy constraint: Member must satisfy enum`)
	// prefixes of IAM's actions by the SDK's service.
	actions = map[string]string{
		"SageMaker": "sagemaker", "SageMaker Runtime": "sagemaker", "S3": "s3",
		"CloudWatch Logs": "logs", "CloudWatch": "cloudwatch", "IAM": "iam", "STS": "sts",
	}
	// permissions of operations whose names differ from them.
	permissions = map[string]string{
		// Without s3:ListBucket S3 does not even say that an object is not there.
		"s3:HeadObject": "s3:GetObject or s3:ListBucket", "s3:CreateMultipartUpload": "s3:PutObject", "s3:UploadPart": "s3:PutObject",
		"s3:CompleteMultipartUpload": "s3:PutObject", "sagemaker:InvokeEndpointWithResponseStream": "sagemaker:InvokeEndpoint",
	}
)

// explain makes the one line about a failed call that concerned what. It wraps
// err, and is nil if err is.
func (c *Client) explain(err error, what string) error {
	if err == nil {
		return nil
	}
	say := func(format string, args ...any) error {
		return &Error{what + ": " + fmt.Sprintf(format, args...), err}
	}
	code, message := awserr.Code(err), awserr.Message(err)
	lower, kind := strings.ToLower(message), awserr.KindOf(err)
	var dns *net.DNSError
	switch {
	case kind == awserr.Interrupted:
		return say("interrupted")
	case kind == awserr.Unsigned:
		return say("the configured credentials cannot be retrieved: %s; log in again, or check the profile with `aws sts get-caller-identity`", awserr.Why(err))
	case kind == awserr.NoCredentials:
		return say("no credentials found in the environment, in a profile (--profile) or from a role; check with `aws sts get-caller-identity`")
	case kind == awserr.Expired:
		return say("the credentials have expired: log in again (%s)", awserr.Detail(code, message))
	case kind == awserr.Invalid:
		return say("the credentials are not valid in %s (%s)", c.region, awserr.Detail(code, message))
	case strings.Contains(lower, "cross-account pass role"):
		return say("--role is of another account than the credentials: SageMaker takes roles of the endpoint's account only (%s)", awserr.Detail(code, message))
	case kind == awserr.Denied:
		action, resource, how := actionOf(err), "", "is missing"
		if m := denied.FindStringSubmatch(message); m != nil {
			action = strings.TrimSuffix(m[1], ".")
			if m[2] != "" {
				resource = " on " + strings.TrimSuffix(m[2], ".")
			}
		}
		if strings.Contains(lower, "explicit deny") {
			how = "is forbidden by a policy"
		}
		return say("access denied: %s%s %s (%s)", action, resource, how, awserr.Detail(code, message))
	case noType.MatchString(message):
		return say("SageMaker has no instance type %s in %s", noType.FindStringSubmatch(message)[1], c.region)
	case strings.Contains(lower, "could not access model data"):
		return say("the role cannot read the model: sagemaker.amazonaws.com must be trusted to assume it, it needs s3:GetObject and s3:ListBucket there, and the bucket must be in %s (%s)", c.region, awserr.Detail(code, message))
	case strings.Contains(lower, "requested image"):
		return say("the image was not found: check its repository and tag in ECR in %s (%s)", c.region, awserr.Detail(code, message))
	case code == "ResourceLimitExceeded":
		return say("a quota of the account is used up: ask for more in Service Quotas (SageMaker, “… for endpoint usage”), or choose another instance type (%s)", message)
	case kind == awserr.Throttled:
		return say("AWS keeps refusing because of too many calls: try again in a minute (%s)", awserr.Detail(code, message))
	case kind == awserr.NoBucket:
		return say("there is no such bucket")
	case kind == awserr.OtherRegion:
		return say("the bucket is not in %s, where the endpoint is: SageMaker reads from its own region only; take a bucket there", c.region)
	case errors.As(err, &dns):
		return say("no address for %s: check the region, %s, and the network", dns.Name, c.region)
	case code != "":
		return say("%s", awserr.Detail(code, message))
	}
	return say("%s", awserr.Cause(err))
}

// isMissing reports whether err says that what was named does not exist;
// SageMaker has no code of its own for that.
func isMissing(err error) bool {
	switch awserr.Code(err) {
	case "ResourceNotFound", "ResourceNotFoundException", "NotFound", "NoSuchKey", "NoSuchEntity":
		return true
	case "ValidationException":
		m := strings.ToLower(awserr.Message(err))
		return strings.Contains(m, "could not find") || strings.Contains(m, "does not exist")
	}
	return false
}

// isBusy reports whether err says that something must end first.
func isBusy(err error) bool {
	return awserr.Code(err) == "ResourceInUse" || awserr.Code(err) == "ValidationException" && strings.Contains(awserr.Message(err), "in-progress")
}

// isYoungRole reports whether err can come from a role that was made a moment
// ago, which not every part of AWS knows yet.
func isYoungRole(err error) bool {
	m := strings.ToLower(awserr.Message(err))
	return awserr.Code(err) == "ValidationException" && strings.Contains(m, "assume") && strings.Contains(m, "role")
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
