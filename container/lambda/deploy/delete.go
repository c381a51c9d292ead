package deploy

import (
	"context"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/lambda"

	"github.com/millrace-ai/millrace/internal/account"
)

// Delete deletes the function called name, with its versions, aliases and URL, and
// the role that was made for it, and with logs its log. It waits until the
// function is gone, and returns what it removed, also with an error; what does
// not exist is not an error. Files in S3 stay.
func (c *Client) Delete(ctx context.Context, name string, logs bool) (removed []string, err error) {
	present, err := c.describe(ctx, name)
	if err != nil {
		return nil, err
	}
	if present != nil {
		role := aws.ToString(present.Configuration.Role)
		// First the role: without the function nothing would name it any more.
		if made := roleName(c.Region(), name); strings.HasSuffix(role, ":role/"+made) {
			what, err := c.RemoveRole(ctx, made)
			if err != nil {
				return nil, err
			}
			if what != "" {
				removed = append(removed, what)
			}
		}
		if err := c.deleteFunction(ctx, name); err != nil {
			return removed, err
		}
		removed = append(removed, "function "+name)
	}
	if !logs {
		return removed, nil
	}
	group, err := c.RemoveLog(ctx, logGroup(name))
	if group != "" {
		removed = append(removed, group)
	}
	return removed, err
}

// deleteFunction deletes the function and waits until it is gone.
func (c *Client) deleteFunction(ctx context.Context, name string) error {
	_, err := c.lambda.DeleteFunction(ctx, &lambda.DeleteFunctionInput{FunctionName: &name})
	if err != nil && !account.IsMissing(err) {
		return c.explain(err, "function "+name)
	}
	for {
		_, err := c.lambda.GetFunctionConfiguration(ctx, &lambda.GetFunctionConfigurationInput{FunctionName: &name})
		switch {
		case account.IsMissing(err):
			return nil
		case err != nil:
			return c.explain(err, "function "+name)
		case !account.Sleep(ctx, c.Poll):
			return stopped(name)
		}
	}
}
