package deploy

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"
)

// rolePolicy is the name of the policy in a role that is made here.
const rolePolicy = "millrace"

// roleName is what the role that is made for an endpoint is called. Roles belong
// to no region, endpoints do.
func roleName(region, endpoint string) string {
	const most = 64
	name := "millrace-" + region + "-" + endpoint
	if len(name) <= most {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	return name[:most-9] + "-" + hex.EncodeToString(sum[:4])
}

// ensureRole makes the role of the endpoint, or gives the one that was made
// earlier what it needs now, and returns its ARN.
func (c *Client) ensureRole(ctx context.Context, s *Spec) (string, error) {
	account := s.Account()
	if !c.Offline() {
		id, err := c.sts.GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
		if err != nil {
			return "", c.explain(err, "the account")
		}
		account = aws.ToString(id.Account)
	}
	policy, name := s.Policy(c.region, account), roleName(c.region, s.Name)
	what := "role " + name
	trust, err := json.Marshal(policy.Trust)
	if err != nil {
		return "", fmt.Errorf("%s: %w", what, err)
	}
	permissions, err := json.Marshal(policy.Permissions)
	if err != nil {
		return "", fmt.Errorf("%s: %w", what, err)
	}
	found, err := c.iam.GetRole(ctx, &iam.GetRoleInput{RoleName: &name})
	switch {
	case isMissing(err):
		_, err := c.iam.CreateRole(ctx, &iam.CreateRoleInput{
			RoleName: &name, AssumeRolePolicyDocument: aws.String(string(trust)), Description: aws.String("What endpoint " + s.Name + " may do as SageMaker runs it"),
			Tags: []types.Tag{{Key: aws.String(tagKey), Value: &s.Name}},
		})
		if err != nil {
			return "", c.explain(err, what)
		}
		c.say("%s: created", what)
	case err != nil:
		return "", c.explain(err, what)
	case !madeFor(found.Role, s.Name):
		return "", fmt.Errorf("%s exists and was not made by this command: it has no tag %s=%s; name a role with --role", what, tagKey, s.Name)
	}
	_, err = c.iam.PutRolePolicy(ctx, &iam.PutRolePolicyInput{RoleName: &name, PolicyName: aws.String(rolePolicy), PolicyDocument: aws.String(string(permissions))})
	if err != nil {
		return "", c.explain(err, what)
	}
	return fmt.Sprintf("arn:%s:iam::%s:role/%s", partition(c.region), account, name), nil
}

// madeFor reports whether a role was made here for an endpoint.
func madeFor(role *types.Role, endpoint string) bool {
	for _, tag := range role.Tags {
		if aws.ToString(tag.Key) == tagKey && aws.ToString(tag.Value) == endpoint {
			return true
		}
	}
	return false
}

// hasMadeRole reports whether a model of the endpoint has the role that was made
// for it.
func (c *Client) hasMadeRole(ctx context.Context, endpoint string) (bool, error) {
	models, err := c.models(ctx, endpoint)
	if err != nil {
		return false, err
	}
	for _, name := range models {
		m, err := c.model(ctx, name)
		if err != nil {
			return false, err
		}
		if m != nil && strings.HasSuffix(aws.ToString(m.ExecutionRoleArn), ":role/"+roleName(c.region, endpoint)) {
			return true, nil
		}
	}
	return false, nil
}

// removeRole deletes the role that was made for an endpoint, and says which.
func (c *Client) removeRole(ctx context.Context, endpoint string) (removed string, err error) {
	name := roleName(c.region, endpoint)
	what := "role " + name
	_, err = c.iam.DeleteRolePolicy(ctx, &iam.DeleteRolePolicyInput{RoleName: &name, PolicyName: aws.String(rolePolicy)})
	if err != nil && !isMissing(err) {
		return "", c.explain(err, what)
	}
	_, err = c.iam.DeleteRole(ctx, &iam.DeleteRoleInput{RoleName: &name})
	switch {
	case isMissing(err):
		return "", nil
	case err != nil:
		return "", c.explain(err, what)
	}
	return what, nil
}
