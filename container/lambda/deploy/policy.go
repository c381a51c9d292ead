package deploy

import (
	"context"
	"fmt"
	"strings"

	"github.com/millrace-ai/millrace/internal/account"
)

// Account is the account that s is deployed to, as far as s says.
func (s *Spec) Account() string { return account.Guess(s.Role, s.Image) }

// Policy returns the least that the function's role needs in the account called
// id. s has passed Check.
func (s *Spec) Policy(region, id string) account.Policy {
	var all account.Permissions
	all.Allow("Logs", []string{fmt.Sprintf("arn:%s:logs:%s:%s:log-group:%s:*", account.Partition(region), region, id, logGroup(s.Name))},
		"logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents")
	var places []string
	if s.Model != "" {
		places = append(places, s.Model)
	}
	all.AllowReading(region, append(places, account.Reads(s.Env)...))
	if output := s.Env["QUEUE_OUTPUT"]; account.IsPlace(output) {
		all.Allow("Answers", []string{"arn:" + account.Partition(region) + ":s3:::" + strings.TrimPrefix(output, "s3://") + "*"}, "s3:PutObject")
	}
	return account.Policy{
		Trust: account.Document{Version: account.PolicyVersion, Statement: []account.Statement{{
			Sid: "Lambda", Effect: "Allow", Principal: map[string]string{"Service": "lambda.amazonaws.com"}, Action: []string{"sts:AssumeRole"},
		}}},
		Permissions: account.Document{Version: account.PolicyVersion, Statement: all},
	}
}

func logGroup(function string) string { return "/aws/lambda/" + function }

// roleName is what the role that is made for a function is called.
func roleName(region, function string) string {
	return account.RoleName("millrace-lambda", region, function)
}

// ensureRole makes the role of the function, or gives the one that was made
// earlier what it needs now, and returns its ARN.
func (c *Client) ensureRole(ctx context.Context, s *Spec) (string, error) {
	id, err := c.ID(ctx, s.Account())
	if err != nil {
		return "", err
	}
	return c.EnsureRole(ctx, &account.Role{
		Name: roleName(c.Region(), s.Name), Description: "What function " + s.Name + " may do",
		Tag: tagKey, Value: s.Name,
	}, id, s.Policy(c.Region(), id))
}
