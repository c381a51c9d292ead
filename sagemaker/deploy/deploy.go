package deploy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sagemaker"
	"github.com/aws/aws-sdk-go-v2/service/sagemaker/types"

	"github.com/millrace-ai/millrace/internal/account"
	"github.com/millrace-ai/millrace/internal/awserr"
)

// Progress is told how many bytes of the total have been uploaded.
type Progress func(done, total int64)

// Deploy creates the endpoint that s describes, or updates an existing one, and
// waits until it is in service if wait is set. Called again after a failure or an
// interruption, it continues where it stopped. s has passed Check.
//
// What an update replaces, and what failed deployments have left, is deleted once the
// new configuration is in service; if the update fails, the platform rolls back.
func (c *Client) Deploy(ctx context.Context, s *Spec, wait bool, progress Progress) error {
	present, err := c.mine(ctx, s.Name)
	if err != nil {
		return err
	}
	role := s.Role
	if role == "" && present != nil {
		if role, err = c.roleOf(ctx, present); err != nil {
			return err
		}
	}
	if s.CreateRole {
		if role, err = c.ensureRole(ctx, s); err != nil {
			return err
		}
	}
	if role == "" {
		return errors.New("--role is missing: the ARN of a role that sagemaker.amazonaws.com may assume; --print-policy prints what it needs, and --create-role makes it")
	}
	model := s.Model
	if model != "" && !strings.HasPrefix(model, "s3://") {
		if model, err = c.upload(ctx, model, s.Bucket, s.Name, progress); err != nil {
			return err
		}
	}
	r, err := s.requests(c.Region(), role, model)
	if err != nil {
		return err
	}
	if present, err = c.settle(ctx, s.Name, *r.config.EndpointConfigName); err != nil {
		return err
	}
	for _, model := range r.models() {
		if err := c.ensureModel(ctx, model, s.CreateRole); err != nil {
			return err
		}
	}
	began := time.Now()
	if err = c.ensureConfig(ctx, r.config); err == nil {
		err = c.move(ctx, s, r, present)
	}
	if err != nil {
		if present == nil {
			c.Say("what has been created so far is kept for the next try; `millrace sagemaker delete %s` deletes it", s.Name)
		}
		return err
	}
	switch {
	case c.Dry():
	case !wait:
		c.Say("not waiting: `millrace sagemaker status %s` shows the progress", s.Name)
		return nil
	default:
		if err := c.await(ctx, s, r, began); err != nil {
			return err
		}
	}
	removed, err := c.removeParts(ctx, s.Name, *r.config.EndpointConfigName, func(m string) bool {
		return slices.ContainsFunc(r.models(), func(kept *sagemaker.CreateModelInput) bool { return *kept.ModelName == m })
	})
	if err != nil {
		return fmt.Errorf("endpoint %s is in service, but what earlier deployments have left could not be removed: %w", s.Name, err)
	}
	for _, part := range removed {
		c.Say("%s: removed", part)
	}
	if present == nil {
		return nil
	}
	return c.retag(ctx, s, present)
}

// move creates the endpoint with the configuration of r, or updates it to that, unless
// it has it or is changing to it already.
func (c *Client) move(ctx context.Context, s *Spec, r requests, present *sagemaker.DescribeEndpointOutput) error {
	what := "endpoint " + s.Name
	switch {
	case present == nil:
		if _, err := c.sm.CreateEndpoint(ctx, r.create); err != nil {
			return c.explain(err, what)
		}
		c.Say("%s: is being created in %s", what, c.Region())
	case targetConfig(present) != *r.config.EndpointConfigName, present.EndpointStatus == types.EndpointStatusUpdateRollbackFailed:
		if _, err := c.sm.UpdateEndpoint(ctx, r.update); err != nil {
			fault := c.explain(err, what)
			if awserr.Code(err) == "ResourceLimitExceeded" && s.Instances > 1 && !s.Rolling {
				fault = fmt.Errorf("%w; an update starts the new instances while the old ones still run: --update-strategy rolling needs only half as many more", fault)
			}
			return fault
		}
		c.Say("%s: is being updated from %s to %s", what, aws.ToString(present.EndpointConfigName), *r.config.EndpointConfigName)
	case present.EndpointStatus == types.EndpointStatusInService:
		c.Say("%s: serves exactly this already (if the image was pushed again under the same tag: deploy it by digest, or with --force)", what)
	default:
		c.Say("%s: is already changing to this", what)
	}
	return nil
}

// mine describes the endpoint called name, nil if there is none; one that was
// not made here is an error.
func (c *Client) mine(ctx context.Context, name string) (*sagemaker.DescribeEndpointOutput, error) {
	e, err := c.endpoint(ctx, name)
	if err != nil || e == nil {
		return nil, err
	}
	mine, err := c.owned(ctx, aws.ToString(e.EndpointArn), name)
	if err != nil {
		return nil, err
	}
	if !mine {
		return nil, fmt.Errorf("endpoint %s exists and was not made by this command: it has no tag %s=%s; choose another name, or add that tag to let this command manage it", name, tagKey, name)
	}
	return e, nil
}

// targetConfig is the configuration that an endpoint has or is changing to.
func targetConfig(e *sagemaker.DescribeEndpointOutput) string {
	if pending := e.PendingDeploymentSummary; pending != nil {
		return aws.ToString(pending.EndpointConfigName)
	}
	return aws.ToString(e.EndpointConfigName)
}

// settle waits until the endpoint can be given a configuration, and deletes one that
// never came into service. It does not wait for one that is already changing to
// config.
func (c *Client) settle(ctx context.Context, name, config string) (*sagemaker.DescribeEndpointOutput, error) {
	for last := types.EndpointStatus(""); ; {
		e, err := c.endpoint(ctx, name)
		if err != nil || e == nil {
			return nil, err
		}
		leaving := e.EndpointStatus == types.EndpointStatusDeleting || e.EndpointStatus == types.EndpointStatusRollingBack
		switch {
		case e.EndpointStatus == types.EndpointStatusFailed:
			c.Say("endpoint %s: failed earlier, recreating it", name)
			_, err := c.sm.DeleteEndpoint(ctx, &sagemaker.DeleteEndpointInput{EndpointName: &name})
			if err != nil && !account.IsMissing(err) && !isBusy(err) {
				return nil, c.explain(err, "endpoint "+name)
			}
			if c.Dry() {
				return nil, nil // as if it were deleted
			}
		case settled(e.EndpointStatus), !leaving && targetConfig(e) == config:
			return e, nil
		case c.Dry():
			return e, nil
		case e.EndpointStatus != last:
			c.Say("endpoint %s: %s, waiting for that to end", name, e.EndpointStatus)
		}
		last = e.EndpointStatus
		if !account.Sleep(ctx, c.Poll) {
			return nil, fmt.Errorf("endpoint %s: stopped waiting while it was %s; the same command continues from there", name, e.EndpointStatus)
		}
	}
}

// ensureModel creates the model unless an earlier run has. A role that was made a
// moment ago may have its permissions even later than its name.
func (c *Client) ensureModel(ctx context.Context, wanted *sagemaker.CreateModelInput, madeRole bool) error {
	model, err := c.model(ctx, *wanted.ModelName)
	if err != nil || model != nil {
		return err
	}
	const most = 6 // tries: a new role takes up to a minute to be known everywhere
	name := "model " + *wanted.ModelName
	for try := 1; ; try++ {
		_, err := c.sm.CreateModel(ctx, wanted)
		if err == nil {
			c.Say("%s: created", name)
			return nil
		}
		young := isYoungRole(err) || madeRole && strings.Contains(strings.ToLower(awserr.Message(err)), "could not access model data")
		if !young || try == most || !account.Sleep(ctx, c.Poll) {
			return c.explain(err, name)
		}
		c.Say("%s: SageMaker cannot use the role yet, which may be new; try %d of %d", name, try+1, most)
	}
}

// ensureConfig creates the configuration unless an earlier run has.
func (c *Client) ensureConfig(ctx context.Context, wanted *sagemaker.CreateEndpointConfigInput) error {
	name := *wanted.EndpointConfigName
	config, err := c.config(ctx, name)
	if err != nil || config != nil {
		return err
	}
	if _, err := c.sm.CreateEndpointConfig(ctx, wanted); err != nil {
		return c.explain(err, "endpoint configuration "+name)
	}
	c.Say("endpoint configuration %s: created", name)
	return nil
}

// retag gives an endpoint that was there before the tags that are wanted now.
func (c *Client) retag(ctx context.Context, s *Spec, e *sagemaker.DescribeEndpointOutput) error {
	if len(s.Tags) == 0 {
		return nil
	}
	_, err := c.sm.AddTags(ctx, &sagemaker.AddTagsInput{ResourceArn: e.EndpointArn, Tags: s.tags()})
	return c.explain(err, "the tags of endpoint "+s.Name)
}
