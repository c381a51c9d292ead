package account

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"
)

// rolePolicy is the name of the policy in a role that is made here.
const rolePolicy = "millrace"

// Role is a role that is made for one thing that is deployed.
type Role struct {
	Name        string // from RoleName
	Description string
	Tag, Value  string // which tag says that it was made for the thing
}

// RoleName is what the role is called that is made for something of a kind in a
// region, since roles belong to none.
func RoleName(kind, region, name string) string {
	const most = 64
	full := kind + "-" + region + "-" + name
	if len(full) <= most {
		return full
	}
	sum := sha256.Sum256([]byte(full))
	return full[:most-9] + "-" + hex.EncodeToString(sum[:4])
}

// EnsureRole makes the role in the account called id, or gives the one that was
// made earlier what it needs now, and returns its ARN.
func (a *Account) EnsureRole(ctx context.Context, r *Role, id string, policy Policy) (string, error) {
	what := "role " + r.Name
	trust, err := json.Marshal(policy.Trust)
	if err != nil {
		return "", fmt.Errorf("%s: %w", what, err)
	}
	permissions, err := json.Marshal(policy.Permissions)
	if err != nil {
		return "", fmt.Errorf("%s: %w", what, err)
	}
	found, err := a.iam.GetRole(ctx, &iam.GetRoleInput{RoleName: &r.Name})
	switch {
	case IsMissing(err):
		_, err := a.iam.CreateRole(ctx, &iam.CreateRoleInput{
			RoleName: &r.Name, AssumeRolePolicyDocument: aws.String(string(trust)), Description: &r.Description,
			Tags: []types.Tag{{Key: &r.Tag, Value: &r.Value}},
		})
		if err != nil {
			return "", a.Explain(err, what)
		}
		a.Say("%s: created", what)
	case err != nil:
		return "", a.Explain(err, what)
	case !r.isOf(found.Role):
		return "", fmt.Errorf("%s exists and was not made by this command: it has no tag %s=%s; name a role with --role", what, r.Tag, r.Value)
	}
	_, err = a.iam.PutRolePolicy(ctx, &iam.PutRolePolicyInput{RoleName: &r.Name, PolicyName: aws.String(rolePolicy), PolicyDocument: aws.String(string(permissions))})
	if err != nil {
		return "", a.Explain(err, what)
	}
	return fmt.Sprintf("arn:%s:iam::%s:role/%s", Partition(a.Region()), id, r.Name), nil
}

// isOf reports whether a role that AWS describes was made as r.
func (r *Role) isOf(role *types.Role) bool {
	for _, tag := range role.Tags {
		if aws.ToString(tag.Key) == r.Tag && aws.ToString(tag.Value) == r.Value {
			return true
		}
	}
	return false
}

// RemoveRole deletes a role that was made here, and says which.
func (a *Account) RemoveRole(ctx context.Context, name string) (removed string, err error) {
	what := "role " + name
	_, err = a.iam.DeleteRolePolicy(ctx, &iam.DeleteRolePolicyInput{RoleName: &name, PolicyName: aws.String(rolePolicy)})
	if err != nil && !IsMissing(err) {
		return "", a.Explain(err, what)
	}
	_, err = a.iam.DeleteRole(ctx, &iam.DeleteRoleInput{RoleName: &name})
	switch {
	case IsMissing(err):
		return "", nil
	case err != nil:
		return "", a.Explain(err, what)
	}
	return what, nil
}
