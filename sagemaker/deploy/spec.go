package deploy

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/millrace-ai/millrace/internal/account"
)

// Spec describes an endpoint.
type Spec struct {
	Name  string
	Image string
	// ShadowImage gets a copy of each call on as many instances of its own; its
	// answers are dropped. "": there is no shadow.
	ShadowImage string
	Role        string // ARN of what the container acts as; "": that of the endpoint's present model
	// CreateRole makes the role, with what the endpoint needs and no more.
	CreateRole bool
	Env        map[string]string
	Tags       map[string]string // besides the one that every part gets

	// Model is a prefix of S3 that ends in "/", an archive s3://…/x.tar.gz, or a
	// folder of this machine; "": the image brings its model, or Env names it.
	Model string
	// Bucket is where a folder is copied to: BUCKET or BUCKET/PREFIX.
	Bucket string
	// StreamModel leaves it to the container to read the model from S3, with the
	// role's permissions, instead of waiting for SageMaker to copy it.
	StreamModel bool

	InstanceType string // "" with Serverless
	// FallbackTypes are taken in this order where InstanceType has no capacity.
	FallbackTypes []string
	Instances     int32
	Serverless    *Serverless // nil: on instances
	AsyncOutput   string      // s3://… for the answers of an asynchronous endpoint; "": it is not one

	Subnets, SecurityGroups []string // of a VPC; both or none
	NetworkIsolation        bool
	KMSKey                  string // for volumes and for asynchronous answers
	VolumeGB                int32  // 0: SageMaker's default
	StartupTimeout          time.Duration
	Rolling                 bool // update batch by batch, not with a second fleet
	Force                   bool // new parts even if nothing has changed
}

// Serverless is a serverless endpoint's size.
type Serverless struct {
	MemoryMB       int32 `json:"memory_mb"`
	MaxConcurrency int32 `json:"max_concurrency"`
}

// SageMaker's limits.
const (
	mostEnv        = 100
	ownEnv         = 4 // variables that are set here
	mostEnvBytes   = 1024
	mostEnvTotal   = 32 << 10
	mostName       = 63
	tagKey         = "millrace:endpoint"
	leastTimeout   = time.Minute
	mostTimeout    = time.Hour
	mostVolumeGB   = 512
	mostConcurrent = 200
	mostPools      = 5 // instance types of a variant
)

var (
	endpointName = regexp.MustCompile(`^[a-zA-Z0-9](-*[a-zA-Z0-9])*$`)
	envName      = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]*$`)
	bucketPlace  = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/.*)?$`)
)

// CheckName checks the form of an endpoint's name.
func CheckName(name string) error {
	if len(name) > mostName || !endpointName.MatchString(name) {
		return fmt.Errorf("name %q: expected at most %d letters, digits and hyphens, none of those at either end", name, mostName)
	}
	return nil
}

// Check finds what SageMaker would refuse, or accept and fail on minutes later,
// without asking AWS. The error names the flag. The notes are about what is allowed
// but may be unexpected.
func (s *Spec) Check(region string) (notes []string, err error) {
	for _, check := range []func() error{
		func() error { return CheckName(s.Name) },
		func() error { return s.checkImages(region) },
		s.checkMachines,
		s.checkModel,
		func() error { return account.CheckRole(s.Role, s.CreateRole) },
		s.checkEnv,
		s.checkNetwork,
		func() error { return account.CheckTags(s.Tags, tagKey) },
	} {
		if err := check(); err != nil {
			return nil, err
		}
	}
	return s.notes(), nil
}

func (s *Spec) checkImages(region string) error {
	if s.Image == "" {
		return errors.New("--image is missing: an image in ECR, such as ACCOUNT.dkr.ecr." + region + ".amazonaws.com/millrace:1.0")
	}
	if err := checkImage("--image", s.Image, region); err != nil || s.ShadowImage == "" {
		return err
	}
	refused := ""
	switch {
	case s.Serverless != nil:
		refused = "--serverless"
	case s.AsyncOutput != "":
		refused = "--async"
	case s.Rolling:
		refused = "--update-strategy rolling"
	case len(s.FallbackTypes) > 0:
		refused = "--fallback-type" // both variants are to run on the same machines, to be compared
	}
	if refused != "" {
		return fmt.Errorf("--shadow-image: not with %s; leave one of them out", refused)
	}
	return checkImage("--shadow-image", s.ShadowImage, region)
}

func checkImage(flag, uri, region string) error {
	if len(uri) > 255 {
		return fmt.Errorf("%s: %d characters, SageMaker takes 255", flag, len(uri))
	}
	if strings.HasPrefix(uri, "public.ecr.aws/") {
		return nil
	}
	image, ok := account.ParseImage(uri)
	if !ok {
		return fmt.Errorf("%s %s: expected an image in ECR, ACCOUNT.dkr.ecr.%s.amazonaws.com/REPOSITORY:TAG or public.ecr.aws/…; SageMaker pulls from no other registry: push it to ECR first", flag, uri, region)
	}
	if image.Region != region {
		return fmt.Errorf("%s %s is in region %s, the endpoint in %s: SageMaker pulls from its own region's ECR only; copy the image there, or choose --region %s", flag, uri, image.Region, region, image.Region)
	}
	return nil
}

func (s *Spec) checkMachines() error {
	if s.Serverless != nil {
		return s.checkServerless()
	}
	if s.InstanceType == "" {
		return fmt.Errorf("--instance-type is missing, such as ml.c7i.2xlarge; or --serverless MEMORY,CONCURRENCY")
	}
	if err := checkType("--instance-type", s.InstanceType); err != nil {
		return err
	}
	f := familyOf(s.InstanceType)
	if err := s.checkFallback(f); err != nil {
		return err
	}
	switch {
	case f.localDisk && s.KMSKey != "" && s.AsyncOutput == "":
		return fmt.Errorf("--kms-key: the disk of %s is local and encrypted with a key of its own; leave --kms-key out", s.InstanceType)
	case f.localDisk && s.VolumeGB != 0:
		return fmt.Errorf("--volume-size: the disk of %s is local and of fixed size; leave --volume-size out", s.InstanceType)
	case s.VolumeGB < 0 || s.VolumeGB > mostVolumeGB:
		return fmt.Errorf("--volume-size %d: expected 1 to %d GB", s.VolumeGB, mostVolumeGB)
	case s.Instances < 1:
		return fmt.Errorf("--instances %d: expected 1 or more", s.Instances)
	case s.Rolling && s.Instances < 2:
		return fmt.Errorf("--update-strategy rolling: replaces at most half of the instances at a time, which takes --instances 2 or more")
	case s.StartupTimeout < leastTimeout || s.StartupTimeout > mostTimeout:
		return fmt.Errorf("--startup-timeout %v: expected %v to %v", s.StartupTimeout, leastTimeout, mostTimeout)
	}
	if s.AsyncOutput != "" && !account.IsPlace(s.AsyncOutput) {
		return fmt.Errorf("--async %s: expected s3://BUCKET/PREFIX for the answers", s.AsyncOutput)
	}
	return nil
}

func checkType(flag, name string) error {
	switch {
	case !instanceType.MatchString(name):
		return fmt.Errorf("%s %s: expected ml.FAMILY.SIZE, such as ml.c7i.2xlarge", flag, name)
	case familyOf(name).foreign:
		return fmt.Errorf("%s %s: the server computes on CPUs and NVIDIA GPUs, not on Inferentia or Trainium", flag, name)
	}
	return nil
}

// checkFallback checks that the other types can take the place of the first,
// which is of family f.
func (s *Spec) checkFallback(f family) error {
	if len(s.FallbackTypes) >= mostPools {
		return fmt.Errorf("--fallback-type: %d, SageMaker takes %d besides --instance-type", len(s.FallbackTypes), mostPools-1)
	}
	for i, name := range s.FallbackTypes {
		if err := checkType("--fallback-type", name); err != nil {
			return err
		}
		g := familyOf(name)
		switch {
		case name == s.InstanceType || slices.Contains(s.FallbackTypes[:i], name):
			return fmt.Errorf("--fallback-type %s: is there twice", name)
		case g.arm != f.arm:
			return fmt.Errorf("--fallback-type %s: has another processor than %s, which the image is for", name, s.InstanceType)
		case g.gpu != f.gpu:
			return fmt.Errorf("--fallback-type %s: only one of it and %s has a GPU", name, s.InstanceType)
		case g.localDisk != f.localDisk && (s.VolumeGB != 0 || s.KMSKey != ""):
			return fmt.Errorf("--fallback-type %s: only one of it and %s has a local disk, so that --volume-size and --kms-key suit one of them only", name, s.InstanceType)
		}
	}
	return nil
}

func (s *Spec) checkServerless() error {
	refused := map[string]bool{
		"--instance-type": s.InstanceType != "", "--fallback-type": len(s.FallbackTypes) > 0, "--subnet": len(s.Subnets) > 0, "--async": s.AsyncOutput != "",
		"--network-isolation": s.NetworkIsolation, "--volume-size": s.VolumeGB != 0, "--kms-key": s.KMSKey != "",
	}
	for _, flag := range slices.Sorted(maps.Keys(refused)) {
		if refused[flag] {
			return fmt.Errorf("%s: not for a serverless endpoint; leave it or --serverless out", flag)
		}
	}
	if mb := s.Serverless.MemoryMB; mb < 1024 || mb > 6144 || mb%1024 != 0 {
		return fmt.Errorf("--serverless: memory %d MB: expected 1024, 2048, … 6144", mb)
	}
	if n := s.Serverless.MaxConcurrency; n < 1 || n > mostConcurrent {
		return fmt.Errorf("--serverless: concurrency %d: expected 1 to %d", n, mostConcurrent)
	}
	return nil
}

func (s *Spec) checkModel() error {
	if s.StreamModel {
		switch {
		case s.Model == "":
			return fmt.Errorf("--stream-model: there is no --model to stream")
		case s.NetworkIsolation:
			return fmt.Errorf("--stream-model: a container in --network-isolation reaches no S3; leave one of them out")
		}
	}
	if _, ok := s.Env["MODEL_ID"]; ok && s.readByContainer() {
		return fmt.Errorf("--env MODEL_ID: --model sets it; give one of them")
	}
	switch {
	case s.Model == "":
		return nil
	case !strings.HasPrefix(s.Model, "s3://"):
		if _, err := readFolder(s.Model); err != nil {
			return err
		}
		if !bucketPlace.MatchString(s.Bucket) {
			return fmt.Errorf("--bucket %q: expected BUCKET or BUCKET/PREFIX, where the folder %s is to be copied to", s.Bucket, s.Model)
		}
		return nil
	case !account.IsPlace(s.Model):
		return fmt.Errorf("--model %s: expected s3://BUCKET/PREFIX/ or s3://BUCKET/KEY.tar.gz", s.Model)
	case !strings.HasSuffix(s.Model, "/") && !isArchive(s.Model):
		return fmt.Errorf("--model %s: a prefix must end in \"/\", an archive in .tar.gz; did you mean %s/ ?", s.Model, s.Model)
	}
	return nil
}

func (s *Spec) checkEnv() error {
	if len(s.Env) > mostEnv-ownEnv {
		return fmt.Errorf("--env: %d variables, SageMaker takes %d besides those set here; put them into millrace.yaml in the model's folder", len(s.Env), mostEnv-ownEnv)
	}
	total := 0
	for _, name := range slices.Sorted(maps.Keys(s.Env)) {
		value := s.Env[name]
		total += len(name) + len(value)
		switch {
		case !envName.MatchString(name):
			return fmt.Errorf("--env %q: expected a name of letters, digits and underscores, then =VALUE", name)
		case len(value) > mostEnvBytes:
			return fmt.Errorf("--env %s: %d bytes, SageMaker takes %d; put it into millrace.yaml in the model's folder", name, len(value), mostEnvBytes)
		}
	}
	if total > mostEnvTotal {
		return fmt.Errorf("--env: %d bytes in all, SageMaker takes %d; put them into millrace.yaml in the model's folder", total, mostEnvTotal)
	}
	return nil
}

func (s *Spec) checkNetwork() error {
	if (len(s.Subnets) == 0) != (len(s.SecurityGroups) == 0) {
		return fmt.Errorf("--subnet and --security-group: a VPC takes both")
	}
	for _, id := range s.Subnets {
		if !strings.HasPrefix(id, "subnet-") {
			return fmt.Errorf("--subnet %s: expected subnet-…", id)
		}
	}
	for _, id := range s.SecurityGroups {
		if !strings.HasPrefix(id, "sg-") {
			return fmt.Errorf("--security-group %s: expected sg-…", id)
		}
	}
	return nil
}

func (s *Spec) notes() (notes []string) {
	if s.Serverless != nil {
		return nil
	}
	f := familyOf(s.InstanceType)
	switch {
	case !f.known:
		notes = append(notes, s.InstanceType+" is of a family this build does not know: the CPU backend is quick with AVX2 or AVX-512, and slow on any other CPU")
	case f.gpu:
		notes = append(notes, s.InstanceType+" has a GPU: it is used by an image with the CUDA backend, the CPU image leaves it idle")
	}
	if f.arm {
		notes = append(notes, s.InstanceType+" is arm64: the image must be built for linux/arm64, and computes more slowly than on x86")
	}
	return notes
}

// isArchive reports whether an S3 URI names an archive that SageMaker unpacks.
func isArchive(uri string) bool { return strings.HasSuffix(uri, ".tar.gz") }

// readByContainer reports whether the container, not SageMaker, fetches the
// model: SageMaker copies no prefix for serverless endpoints.
func (s *Spec) readByContainer() bool {
	return s.StreamModel || s.Serverless != nil && s.Model != "" && !isArchive(s.Model)
}
