package deploy

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sagemaker"
	"github.com/aws/aws-sdk-go-v2/service/sagemaker/types"
)

// The names of the only production variant, and of its shadow.
const (
	variant = "main"
	shadow  = "shadow"
)

// partName is what the models and configurations of an endpoint are called.
var partName = regexp.MustCompile(`^(.+)-[0-9a-f]{10}$`)

// requests are what makes an endpoint.
type requests struct {
	model  *sagemaker.CreateModelInput
	shadow *sagemaker.CreateModelInput // nil: there is none
	config *sagemaker.CreateEndpointConfigInput
	create *sagemaker.CreateEndpointInput
	update *sagemaker.UpdateEndpointInput
}

// models are the one that serves, and its shadow if there is one.
func (r *requests) models() []*sagemaker.CreateModelInput {
	if r.shadow == nil {
		return []*sagemaker.CreateModelInput{r.model}
	}
	return []*sagemaker.CreateModelInput{r.model, r.shadow}
}

// defaults are the variables of the container that nobody needs to set. By
// SAGEMAKER_REGION the server tells where it is, which else only model data of
// SageMaker's would show. Some clients send the endpoint's name as the model's,
// and a call that nobody waits for is not cut before SageMaker's bound on those
// that somebody does.
func (s *Spec) defaults(region string) map[string]string {
	env := map[string]string{"SAGEMAKER_REGION": region, "SERVED_MODEL_NAME": s.Name}
	if s.AsyncOutput != "" {
		env["SAGEMAKER_REQUEST_DEADLINE"] = "0"
	}
	return env
}

// requests writes them for a region; model is where the model is in S3, "" for
// none.
func (s *Spec) requests(region, role, model string) (r requests, err error) {
	tags := s.tags()
	env := s.defaults(region)
	maps.Copy(env, s.Env)
	container := &types.ContainerDefinition{Image: &s.Image}
	switch {
	case model == "":
	case s.readByContainer():
		env["MODEL_ID"] = model
	case isArchive(model):
		container.ModelDataUrl = &model
	default:
		container.ModelDataSource = &types.ModelDataSource{S3DataSource: &types.S3ModelDataSource{
			S3Uri: &model, S3DataType: types.S3ModelDataTypeS3Prefix, CompressionType: types.ModelCompressionTypeNone,
		}}
	}
	container.Environment = env
	r.model = &sagemaker.CreateModelInput{ExecutionRoleArn: &role, PrimaryContainer: container}
	if s.NetworkIsolation {
		r.model.EnableNetworkIsolation = aws.Bool(true)
	}
	if len(s.Subnets) > 0 {
		r.model.VpcConfig = &types.VpcConfig{Subnets: s.Subnets, SecurityGroupIds: s.SecurityGroups}
	}
	salt := ""
	if s.Force {
		salt = time.Now().String()
	}
	if r.model.ModelName, err = s.nameOf(r.model, salt); err != nil {
		return requests{}, err
	}
	r.model.Tags = tags

	r.config = &sagemaker.CreateEndpointConfigInput{ProductionVariants: []types.ProductionVariant{s.variant(variant, *r.model.ModelName)}}
	if s.ShadowImage != "" {
		same, other := *r.model, *container
		r.shadow = &same
		r.shadow.ModelName, r.shadow.Tags = nil, nil
		other.Image = &s.ShadowImage
		r.shadow.PrimaryContainer = &other
		if r.shadow.ModelName, err = s.nameOf(r.shadow, salt+shadow); err != nil {
			return requests{}, err
		}
		r.shadow.Tags = tags
		r.config.ShadowProductionVariants = []types.ProductionVariant{s.variant(shadow, *r.shadow.ModelName)}
	}
	if s.KMSKey != "" && !familyOf(s.InstanceType).localDisk {
		r.config.KmsKeyId = &s.KMSKey
	}
	if s.AsyncOutput != "" {
		out := &types.AsyncInferenceOutputConfig{
			S3OutputPath: &s.AsyncOutput, S3FailurePath: aws.String(strings.TrimSuffix(s.AsyncOutput, "/") + "/failures/"),
		}
		if s.KMSKey != "" {
			out.KmsKeyId = &s.KMSKey
		}
		r.config.AsyncInferenceConfig = &types.AsyncInferenceConfig{OutputConfig: out}
	}
	if r.config.EndpointConfigName, err = s.nameOf(r.config, ""); err != nil {
		return requests{}, err
	}
	r.config.Tags = tags

	r.create = &sagemaker.CreateEndpointInput{EndpointName: &s.Name, EndpointConfigName: r.config.EndpointConfigName, Tags: tags}
	r.update = &sagemaker.UpdateEndpointInput{EndpointName: &s.Name, EndpointConfigName: r.config.EndpointConfigName, DeploymentConfig: s.deployment()}
	return r, nil
}

func (s *Spec) variant(name, model string) types.ProductionVariant {
	v := types.ProductionVariant{VariantName: &name, ModelName: &model}
	if s.Serverless != nil {
		v.ServerlessConfig = &types.ProductionVariantServerlessConfig{
			MemorySizeInMB: &s.Serverless.MemoryMB, MaxConcurrency: &s.Serverless.MaxConcurrency,
		}
		return v
	}
	seconds := int32(s.StartupTimeout / time.Second)
	if len(s.FallbackTypes) == 0 {
		v.InstanceType = types.ProductionVariantInstanceType(s.InstanceType)
	} else {
		for i, name := range append([]string{s.InstanceType}, s.FallbackTypes...) {
			v.InstancePools = append(v.InstancePools, types.InstancePool{InstanceType: types.ProductionVariantInstanceType(name), Priority: aws.Int32(int32(i + 1))})
		}
	}
	v.InitialInstanceCount = &s.Instances
	v.ContainerStartupHealthCheckTimeoutInSeconds = &seconds
	v.ModelDataDownloadTimeoutInSeconds = &seconds
	// Generations differ in length by far: the next request goes to the instance that has
	// the fewest, not to anybody.
	v.RoutingConfig = &types.ProductionVariantRoutingConfig{RoutingStrategy: types.RoutingStrategyLeastOutstandingRequests}
	if s.VolumeGB > 0 {
		v.VolumeSizeInGB = &s.VolumeGB
	}
	if familyOf(s.InstanceType).gpu {
		// The only one whose driver CUDA 13 runs on.
		v.InferenceAmiVersion = types.ProductionVariantInferenceAmiVersionAl2023Gpu41
	}
	return v
}

// deployment says how an update replaces the instances: with a second fleet,
// which takes twice the machines for a while, or half of them at a time.
func (s *Spec) deployment() *types.DeploymentConfig {
	switch {
	case s.Serverless != nil, s.ShadowImage != "": // which have SageMaker's own way only
		return nil
	case s.Rolling:
		half := &types.CapacitySize{Type: types.CapacitySizeTypeCapacityPercent, Value: aws.Int32(50)}
		return &types.DeploymentConfig{RollingUpdatePolicy: &types.RollingUpdatePolicy{
			MaximumBatchSize: half, WaitIntervalInSeconds: aws.Int32(60),
		}}
	}
	return &types.DeploymentConfig{BlueGreenUpdatePolicy: &types.BlueGreenUpdatePolicy{
		TrafficRoutingConfiguration: &types.TrafficRoutingConfig{Type: types.TrafficRoutingConfigTypeAllAtOnce, WaitIntervalInSeconds: aws.Int32(0)},
	}}
}

func (s *Spec) tags() []types.Tag {
	tags := []types.Tag{{Key: aws.String(tagKey), Value: &s.Name}}
	for _, key := range slices.Sorted(maps.Keys(s.Tags)) {
		tags = append(tags, types.Tag{Key: aws.String(key), Value: aws.String(s.Tags[key])})
	}
	return tags
}

// nameOf names a part of the endpoint after its request, which has neither a
// name nor tags yet.
func (s *Spec) nameOf(request any, salt string) (*string, error) {
	raw, err := json.Marshal(request)
	if err != nil {
		return nil, fmt.Errorf("digest of a request: %w", err)
	}
	var tree any
	if err := json.Unmarshal(raw, &tree); err != nil {
		return nil, fmt.Errorf("digest of a request: %w", err)
	}
	// Members that are not set do not count: the SDK's next version may have more.
	if raw, err = json.Marshal(withoutEmpty(tree)); err != nil {
		return nil, fmt.Errorf("digest of a request: %w", err)
	}
	sum := sha256.Sum256(append(raw, s.Name+salt...))
	digest := hex.EncodeToString(sum[:5])
	return aws.String(s.stem() + "-" + digest), nil
}

// stem is what the names of all parts begin with: the endpoint's name, cut to
// leave room for a digest.
func (s *Spec) stem() string { return stem(s.Name) }

func stem(name string) string {
	const most = mostName - 11
	return strings.TrimRight(name[:min(len(name), most)], "-")
}

func withoutEmpty(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for key, inner := range v {
			inner = withoutEmpty(inner)
			if inner == nil || inner == "" {
				delete(v, key)
				continue
			}
			v[key] = inner
		}
		if len(v) == 0 {
			return nil
		}
	case []any:
		for i, inner := range v {
			v[i] = withoutEmpty(inner)
		}
		if len(v) == 0 {
			return nil
		}
	}
	return v
}
