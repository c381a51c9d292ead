package deploy

import (
	"strings"

	"github.com/millrace-ai/millrace/internal/account"
	"github.com/millrace-ai/millrace/internal/awserr"
)

// causes are what is known of Lambda's refusals and failures: what its message has
// in it, in lower case, and what it means.
var causes = []struct{ text, cause string }{
	{"cannot be assumed by lambda", "the role must trust lambda.amazonaws.com to assume it; --print-policy prints how"},
	{"'memorysize' value failed to satisfy", "the account may not give a function that much --memory yet, which new accounts ask for in Service Quotas"},
	{"does not have permission to access the ecr image", "Lambda may not read the image: the repository's policy must let lambda.amazonaws.com use ecr:BatchGetImage and ecr:GetDownloadUrlForLayer, which it grants itself where the caller may use ecr:SetRepositoryPolicy"},
	{"media type", "Lambda takes one image of one platform, without an index around it: build it with --provenance=false --sbom=false, and --platform"},
	{"source image", "the image was not found: check its repository and its tag or digest in ECR"},
	{"exec format error", "the image is built for a different processor: see --architecture"},
	{"invalidentrypoint", "the image has no entrypoint that can be run: see its processor, and --architecture"},
	{"access denied", "the role may not read the model in S3: it needs s3:GetObject and s3:ListBucket there, and kms:Decrypt on its key"},
	{"accessdenied", "the role may not read the model in S3: it needs s3:GetObject and s3:ListBucket there, and kms:Decrypt on its key"},
	{"does not fit", "the model is too large: raise --memory, or quantise it"},
	{"signal: killed", "the memory is too small for the model: raise --memory, or quantise the model"},
	{"modelnotloaded", "the model did not load: the log says why"},
	{"inittimeout", "the model took too long to load: raise --timeout, which a snapshot has too, or put the weights into the image"},
}

// probableCause is what is known of a message or a log, "" for nothing.
func probableCause(texts ...string) string {
	for _, text := range texts {
		lower := strings.ToLower(text)
		for _, known := range causes {
			if strings.Contains(lower, known.text) {
				return known.cause
			}
		}
	}
	return ""
}

// explain makes the one line about a failed call that concerned what: what is
// known of Lambda's errors, and of any other what the account knows. It wraps
// err, and is nil if err is.
func (c *Client) explain(err error, what string) error {
	if err == nil {
		return nil
	}
	code, message := awserr.Code(err), awserr.Message(err)
	switch code {
	case "InvalidParameterValueException", "ValidationException", "InvalidImageException":
		if cause := probableCause(message); cause != "" {
			return account.Errorf(err, "%s: %s (%s)", what, cause, awserr.Detail(code, message))
		}
	case "ResourceConflictException":
		return account.Errorf(err, "%s: something else is changing it: try again in a minute (%s)", what, awserr.Detail(code, message))
	case "CodeArtifactUserPendingException", "SnapStartNotReadyException", "ResourceNotReadyException":
		return account.Errorf(err, "%s: Lambda is still preparing it: try again in a minute (%s)", what, awserr.Detail(code, message))
	}
	return c.Explain(err, what)
}

// isYoungRole reports whether err can come from a role that was made a moment ago,
// which not every part of AWS knows yet.
func isYoungRole(err error) bool {
	return awserr.Code(err) == "InvalidParameterValueException" && strings.Contains(strings.ToLower(awserr.Message(err)), "cannot be assumed by lambda")
}

// isConflict reports whether err says that what was to be made is there, or that
// what was to be removed is in use.
func isConflict(err error) bool { return awserr.Code(err) == "ResourceConflictException" }
