package deploy

import (
	"regexp"
	"strings"

	"github.com/millrace-ai/millrace/internal/account"
	"github.com/millrace-ai/millrace/internal/awserr"
)

// noType is how SageMaker refuses an instance type, before a list of all.
var noType = regexp.MustCompile(`Value '([^']*)' at '[^']*instanceType' failed to satisfy constraint: Member must satisfy enum`)

// explain makes the one line about a failed call that concerned what: what is
// known of SageMaker's errors, and of any other what the account knows. It wraps
// err, and is nil if err is.
func (c *Client) explain(err error, what string) error {
	if err == nil {
		return nil
	}
	say := func(format string, args ...any) error {
		return account.Errorf(err, what+": "+format, args...)
	}
	code, message, kind := awserr.Code(err), awserr.Message(err), awserr.KindOf(err)
	lower := strings.ToLower(message)
	switch {
	case strings.Contains(lower, "cross-account pass role"):
		return say("--role is of another account than the credentials: SageMaker takes roles of the endpoint's account only (%s)", awserr.Detail(code, message))
	case kind == awserr.Denied:
		return c.Explain(err, what)
	case noType.MatchString(message):
		return say("SageMaker has no instance type %s in %s", noType.FindStringSubmatch(message)[1], c.Region())
	case strings.Contains(lower, "could not access model data"):
		return say("the role cannot read the model: sagemaker.amazonaws.com must be trusted to assume it, it needs s3:GetObject and s3:ListBucket there, and the bucket must be in %s (%s)", c.Region(), awserr.Detail(code, message))
	case strings.Contains(lower, "requested image"):
		return say("the image was not found: check its repository and tag in ECR in %s (%s)", c.Region(), awserr.Detail(code, message))
	case code == "ResourceLimitExceeded":
		return say("a quota of the account is used up: ask for more in Service Quotas (SageMaker, “… for endpoint usage”), or choose another instance type (%s)", message)
	case kind == awserr.NoBucket:
		return say("there is no such bucket")
	case kind == awserr.OtherRegion:
		return say("the bucket is not in %s, where the endpoint is: SageMaker reads from its own region only; take a bucket there", c.Region())
	}
	return c.Explain(err, what)
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
