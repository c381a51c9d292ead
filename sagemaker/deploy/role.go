package deploy

import (
	"context"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/millrace-ai/millrace/internal/account"
)

// roleName is what the role that is made for an endpoint is called.
func roleName(region, endpoint string) string {
	return account.RoleName("millrace", region, endpoint)
}

// ensureRole makes the role of the endpoint, or gives the one that was made
// earlier what it needs now, and returns its ARN.
func (c *Client) ensureRole(ctx context.Context, s *Spec) (string, error) {
	id, err := c.ID(ctx, s.Account())
	if err != nil {
		return "", err
	}
	return c.EnsureRole(ctx, &account.Role{
		Name: roleName(c.Region(), s.Name), Description: "What endpoint " + s.Name + " may do as SageMaker runs it",
		Tag: tagKey, Value: s.Name,
	}, id, s.Policy(c.Region(), id))
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
		if m != nil && strings.HasSuffix(aws.ToString(m.ExecutionRoleArn), ":role/"+roleName(c.Region(), endpoint)) {
			return true, nil
		}
	}
	return false, nil
}
