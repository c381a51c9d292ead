package deploy

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sagemaker"
	"github.com/aws/aws-sdk-go-v2/service/sagemaker/types"

	"github.com/millrace-ai/millrace/internal/account"
)

// found is the description of what, nil if there is none: to AWS an error, here
// an answer.
func found[T any](c *Client, description *T, err error, what string) (*T, error) {
	if account.IsMissing(err) {
		return nil, nil
	}
	return description, c.explain(err, what)
}

// endpoint describes the endpoint called name, nil if there is none.
func (c *Client) endpoint(ctx context.Context, name string) (*sagemaker.DescribeEndpointOutput, error) {
	out, err := c.sm.DescribeEndpoint(ctx, &sagemaker.DescribeEndpointInput{EndpointName: &name})
	return found(c, out, err, "endpoint "+name)
}

// config describes an endpoint configuration, nil if there is none.
func (c *Client) config(ctx context.Context, name string) (*sagemaker.DescribeEndpointConfigOutput, error) {
	out, err := c.sm.DescribeEndpointConfig(ctx, &sagemaker.DescribeEndpointConfigInput{EndpointConfigName: &name})
	return found(c, out, err, "endpoint configuration "+name)
}

// model describes a model, nil if there is none.
func (c *Client) model(ctx context.Context, name string) (*sagemaker.DescribeModelOutput, error) {
	out, err := c.sm.DescribeModel(ctx, &sagemaker.DescribeModelInput{ModelName: &name})
	return found(c, out, err, "model "+name)
}

// owned reports whether what arn names was made here for the endpoint called
// name: whether it has the tag.
func (c *Client) owned(ctx context.Context, arn, name string) (bool, error) {
	in := &sagemaker.ListTagsInput{ResourceArn: &arn}
	for {
		out, err := c.sm.ListTags(ctx, in)
		if err != nil {
			return false, c.explain(err, arn)
		}
		for _, tag := range out.Tags {
			if aws.ToString(tag.Key) == tagKey && aws.ToString(tag.Value) == name {
				return true, nil
			}
		}
		if in.NextToken = out.NextToken; in.NextToken == nil {
			return false, nil
		}
	}
}

// configs are the names of the configurations that were made for the endpoint
// called name.
func (c *Client) configs(ctx context.Context, name string) (names []string, err error) {
	in := &sagemaker.ListEndpointConfigsInput{NameContains: aws.String(stem(name) + "-")}
	for {
		out, err := c.sm.ListEndpointConfigs(ctx, in)
		if err != nil {
			return nil, c.explain(err, "the endpoint configurations of "+name)
		}
		for _, e := range out.EndpointConfigs {
			if names, err = c.collect(ctx, names, name, e.EndpointConfigName, e.EndpointConfigArn); err != nil {
				return nil, err
			}
		}
		if in.NextToken = out.NextToken; in.NextToken == nil {
			return names, nil
		}
	}
}

// models are the names of the models that were made for the endpoint called
// name.
func (c *Client) models(ctx context.Context, name string) (names []string, err error) {
	in := &sagemaker.ListModelsInput{NameContains: aws.String(stem(name) + "-")}
	for {
		out, err := c.sm.ListModels(ctx, in)
		if err != nil {
			return nil, c.explain(err, "the models of "+name)
		}
		for _, m := range out.Models {
			if names, err = c.collect(ctx, names, name, m.ModelName, m.ModelArn); err != nil {
				return nil, err
			}
		}
		if in.NextToken = out.NextToken; in.NextToken == nil {
			return names, nil
		}
	}
}

// collect adds part to names if it belongs to the endpoint.
func (c *Client) collect(ctx context.Context, names []string, endpoint string, part, arn *string) ([]string, error) {
	m := partName.FindStringSubmatch(aws.ToString(part))
	if m == nil || m[1] != stem(endpoint) {
		return names, nil
	}
	mine, err := c.owned(ctx, aws.ToString(arn), endpoint)
	if err == nil && mine {
		names = append(names, *part)
	}
	return names, err
}

// removeParts deletes the configurations and models of the endpoint called
// name, but for those named keepConfig and keepModel, and says which.
func (c *Client) removeParts(ctx context.Context, name, keepConfig string, keepModel func(string) bool) (removed []string, err error) {
	configs, err := c.configs(ctx, name)
	if err != nil {
		return nil, err
	}
	for _, part := range configs {
		if part == keepConfig {
			continue
		}
		_, err := c.sm.DeleteEndpointConfig(ctx, &sagemaker.DeleteEndpointConfigInput{EndpointConfigName: &part})
		if err != nil && !account.IsMissing(err) {
			return removed, c.explain(err, "endpoint configuration "+part)
		}
		removed = append(removed, "endpoint configuration "+part)
	}
	models, err := c.models(ctx, name)
	if err != nil {
		return removed, err
	}
	for _, part := range models {
		if keepModel(part) {
			continue
		}
		_, err := c.sm.DeleteModel(ctx, &sagemaker.DeleteModelInput{ModelName: &part})
		if err != nil && !account.IsMissing(err) {
			return removed, c.explain(err, "model "+part)
		}
		removed = append(removed, "model "+part)
	}
	return removed, nil
}

// roleOf is the role of an endpoint's model, "" if it cannot be found.
func (c *Client) roleOf(ctx context.Context, e *sagemaker.DescribeEndpointOutput) (string, error) {
	config, err := c.config(ctx, aws.ToString(e.EndpointConfigName))
	if err != nil || config == nil {
		return "", err
	}
	for _, v := range config.ProductionVariants {
		m, err := c.model(ctx, aws.ToString(v.ModelName))
		if err != nil {
			return "", err
		}
		if m != nil && m.ExecutionRoleArn != nil {
			return *m.ExecutionRoleArn, nil
		}
	}
	return "", nil
}

// settled reports whether nothing is under way in an endpoint of this status.
func settled(s types.EndpointStatus) bool {
	switch s {
	case types.EndpointStatusInService, types.EndpointStatusOutOfService, types.EndpointStatusFailed, types.EndpointStatusUpdateRollbackFailed:
		return true
	}
	return false
}
