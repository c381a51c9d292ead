package deploy

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"

	"github.com/millrace-ai/millrace/internal/account"
)

// The statements of the alias's policy that let everybody use the URL. A caller
// needs both: to use the URL, and to invoke the function by way of it.
const (
	urlStatement    = "MillracePublicURL"
	invokeStatement = "MillracePublicInvoke"
)

// ensureURL gives the alias the URL that s asks for, or none, and returns it.
func (c *Client) ensureURL(ctx context.Context, s *Spec) (string, error) {
	what := "the URL of function " + s.Name
	alias := aws.String(Alias)
	present, err := c.lambda.GetFunctionUrlConfig(ctx, &lambda.GetFunctionUrlConfigInput{FunctionName: &s.Name, Qualifier: alias})
	if err != nil && !account.IsMissing(err) {
		return "", c.explain(err, what)
	}
	there := err == nil
	auth, mode := types.FunctionUrlAuthTypeAwsIam, types.InvokeModeResponseStream
	if s.URL == PublicURL {
		auth = types.FunctionUrlAuthTypeNone
	}
	if s.Buffered {
		mode = types.InvokeModeBuffered
	}
	if there && present.AuthType == types.FunctionUrlAuthTypeNone && s.URL != PublicURL {
		if err := c.closeURL(ctx, s.Name); err != nil {
			return "", err
		}
	}
	url := ""
	switch {
	case s.URL == NoURL && !there:
		return "", nil
	case s.URL == NoURL:
		_, err := c.lambda.DeleteFunctionUrlConfig(ctx, &lambda.DeleteFunctionUrlConfigInput{FunctionName: &s.Name, Qualifier: alias})
		if err != nil && !account.IsMissing(err) {
			return "", c.explain(err, what)
		}
		c.Say("%s: removed", what)
		return "", nil
	case !there:
		made, err := c.lambda.CreateFunctionUrlConfig(ctx, &lambda.CreateFunctionUrlConfigInput{FunctionName: &s.Name, Qualifier: alias, AuthType: auth, InvokeMode: mode})
		if err != nil {
			return "", c.explain(err, what)
		}
		url = aws.ToString(made.FunctionUrl)
	case present.AuthType != auth || present.InvokeMode != mode:
		_, err := c.lambda.UpdateFunctionUrlConfig(ctx, &lambda.UpdateFunctionUrlConfigInput{FunctionName: &s.Name, Qualifier: alias, AuthType: auth, InvokeMode: mode})
		if err != nil {
			return "", c.explain(err, what)
		}
		fallthrough
	default:
		url = aws.ToString(present.FunctionUrl)
	}
	if s.URL == PublicURL {
		return url, c.openURL(ctx, s.Name)
	}
	return url, nil
}

// openURL lets everybody use the URL.
func (c *Client) openURL(ctx context.Context, name string) error {
	for _, in := range []lambda.AddPermissionInput{
		{StatementId: aws.String(urlStatement), Action: aws.String("lambda:InvokeFunctionUrl"), FunctionUrlAuthType: types.FunctionUrlAuthTypeNone},
		{StatementId: aws.String(invokeStatement), Action: aws.String("lambda:InvokeFunction"), InvokedViaFunctionUrl: aws.Bool(true)},
	} {
		in.FunctionName, in.Qualifier, in.Principal = &name, aws.String(Alias), aws.String("*")
		if _, err := c.lambda.AddPermission(ctx, &in); err != nil && !isConflict(err) {
			return c.explain(err, "the policy of function "+name)
		}
	}
	return nil
}

// closeURL takes back what openURL allows.
func (c *Client) closeURL(ctx context.Context, name string) error {
	for _, id := range []string{urlStatement, invokeStatement} {
		_, err := c.lambda.RemovePermission(ctx, &lambda.RemovePermissionInput{FunctionName: &name, Qualifier: aws.String(Alias), StatementId: &id})
		if err != nil && !account.IsMissing(err) {
			return c.explain(err, "the policy of function "+name)
		}
	}
	return nil
}
