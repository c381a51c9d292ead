package deploy

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"

	"github.com/millrace-ai/millrace/internal/account"
)

// Spec describes a function.
type Spec struct {
	Name  string
	Image string
	Arm   bool   // the image is for arm64, not for x86-64
	Role  string // ARN of what the function acts as; "": what it acts as already
	// CreateRole makes the role, with what the function needs and no more.
	CreateRole bool
	Env        map[string]string
	Tags       map[string]string // besides the one that says who made the function

	Model string // s3://…/ of the model; "": the image brings its model, or Env names it

	MemoryMB int32
	Timeout  time.Duration
	TmpMB    int32 // size of /tmp

	URL       URL
	Buffered  bool // answers leave in one piece, not as they are generated
	SnapStart bool // environments start from a snapshot
	Force     bool // a new version even if nothing has changed
}

// URL says who may use the function's URL.
type URL string

// The kinds of URLs.
const (
	NoURL     URL = "none"
	SignedURL URL = "iam"    // whom IAM allows to
	PublicURL URL = "public" // everybody
)

// Lambda's limits.
const (
	mostName     = 64
	leastMB      = 128
	mostMB       = 10_240
	leastTmpMB   = 512
	mostTmpMB    = 10_240
	mostTimeout  = 15 * time.Minute
	mostEnvBytes = 4 << 10 // all together
	tagKey       = "millrace:function"
)

// invokeMode is the variable that tells the function its URL's mode.
const invokeMode = "LAMBDA_INVOKE_MODE"

var (
	functionName = regexp.MustCompile(`^[a-zA-Z0-9_-]+$`)
	envName      = regexp.MustCompile(`^[a-zA-Z][a-zA-Z0-9_]+$`)
	// reserved are the variables that Lambda sets itself.
	reserved = regexp.MustCompile(`^(AWS_REGION|AWS_DEFAULT_REGION|AWS_ACCESS_KEY(_ID)?|AWS_SECRET_ACCESS_KEY|AWS_SECRET_KEY|AWS_SESSION_TOKEN|AWS_SECURITY_TOKEN|AWS_EXECUTION_ENV|AWS_LAMBDA_.*|LAMBDA_TASK_ROOT|LAMBDA_RUNTIME_DIR)$`)
)

// CheckName checks the form of a function's name.
func CheckName(name string) error {
	if len(name) > mostName || !functionName.MatchString(name) {
		return fmt.Errorf("name %q: expected at most %d letters, digits, hyphens and underscores", name, mostName)
	}
	return nil
}

// Check finds what Lambda would refuse, or accept and fail on later, without
// asking AWS. The error names the flag. The notes are about what is allowed but
// may be unexpected.
func (s *Spec) Check(region string) (notes []string, err error) {
	for _, check := range []func() error{
		func() error { return CheckName(s.Name) },
		func() error { return s.checkImage(region) },
		s.checkSize,
		s.checkModel,
		func() error { return account.CheckRole(s.Role, s.CreateRole) },
		s.checkEnv,
		func() error { return account.CheckTags(s.Tags, tagKey) },
	} {
		if err := check(); err != nil {
			return nil, err
		}
	}
	if !strings.Contains(s.Image, "@sha256:") {
		notes = append(notes, "the image is named by a tag: Lambda goes on with what it is now, and --force takes what has been pushed since")
	}
	if s.URL == PublicURL && s.Env["API_KEY"] == "" {
		notes = append(notes, "--url public without --env API_KEY: whoever has the URL generates text that you pay for")
	}
	return notes, nil
}

func (s *Spec) checkImage(region string) error {
	image, ok := account.ParseImage(s.Image)
	switch {
	case !ok:
		return fmt.Errorf("--image %s: expected an image in a private registry, ACCOUNT.dkr.ecr.%s.amazonaws.com/REPOSITORY@sha256:…; Lambda takes images from no other, public.ecr.aws neither: push it to ECR first", s.Image, region)
	case image.Region != region:
		return fmt.Errorf("--image %s is in region %s, the function in %s: Lambda takes images from its own region only; copy the image there, or choose --region %s", s.Image, image.Region, region, image.Region)
	}
	return nil
}

func (s *Spec) checkSize() error {
	switch {
	case s.MemoryMB < leastMB || s.MemoryMB > mostMB:
		return fmt.Errorf("--memory %d: expected %d to %d MB", s.MemoryMB, leastMB, mostMB)
	case s.TmpMB < leastTmpMB || s.TmpMB > mostTmpMB:
		return fmt.Errorf("--tmp %d: expected %d to %d MB", s.TmpMB, leastTmpMB, mostTmpMB)
	case s.SnapStart && s.TmpMB != leastTmpMB:
		return fmt.Errorf("--tmp %d: with --snap-start Lambda gives a function %d MB of /tmp", s.TmpMB, leastTmpMB)
	case s.Timeout < time.Second || s.Timeout > mostTimeout || s.Timeout%time.Second != 0:
		return fmt.Errorf("--timeout %v: expected whole seconds, 1s to %v", s.Timeout, mostTimeout)
	}
	return nil
}

func (s *Spec) checkModel() error {
	switch {
	case s.Model == "":
		return nil
	case !account.IsPlace(s.Model):
		return fmt.Errorf("--model %s: expected s3://BUCKET/PREFIX/; a model on this machine: copy it to S3, or put it into the image", s.Model)
	case !strings.HasSuffix(s.Model, "/"):
		return fmt.Errorf("--model %s: a prefix must end in \"/\"; did you mean %s/ ?", s.Model, s.Model)
	case s.Env["MODEL_ID"] != "":
		return errors.New("--env MODEL_ID: --model sets it; give one of them")
	}
	return nil
}

func (s *Spec) checkEnv() error {
	total := 0
	for _, name := range slices.Sorted(maps.Keys(s.Env)) {
		switch {
		case reserved.MatchString(name):
			return fmt.Errorf("--env %s: Lambda sets it itself", name)
		case !envName.MatchString(name):
			return fmt.Errorf("--env %q: expected a name of letters, digits and underscores that begins with a letter, then =VALUE", name)
		}
	}
	if given, ok := s.Env[invokeMode]; ok && given != s.mode() && s.URL != NoURL {
		return fmt.Errorf("--env %s=%s: the URL's mode is %s, and they must agree: leave it to --url-mode", invokeMode, given, s.mode())
	}
	for name, value := range s.variables() {
		total += len(name) + len(value)
	}
	if total > mostEnvBytes {
		return fmt.Errorf("--env: %d bytes in all, Lambda takes %d; put them into millrace.yaml in the model's folder", total, mostEnvBytes)
	}
	return nil
}

// mode is the URL's mode as the function knows it.
func (s *Spec) mode() string {
	if s.Buffered {
		return "buffered"
	}
	return "stream"
}

// variables are the function's, with those that nobody needs to set.
func (s *Spec) variables() map[string]string {
	env := map[string]string{}
	if s.URL != NoURL && !s.Buffered {
		env[invokeMode] = s.mode()
	}
	if s.Model != "" {
		env["MODEL_ID"] = s.Model
	}
	maps.Copy(env, s.Env)
	return env
}

func (s *Spec) architecture() types.Architecture {
	if s.Arm {
		return types.ArchitectureArm64
	}
	return types.ArchitectureX8664
}

func (s *Spec) snapStart() types.SnapStartApplyOn {
	if s.SnapStart {
		return types.SnapStartApplyOnPublishedVersions
	}
	return types.SnapStartApplyOnNone
}

func (s *Spec) seconds() *int32 { return aws.Int32(int32(s.Timeout / time.Second)) }

// tags are all that the function has.
func (s *Spec) tags() map[string]string {
	tags := map[string]string{tagKey: s.Name}
	maps.Copy(tags, s.Tags)
	return tags
}
