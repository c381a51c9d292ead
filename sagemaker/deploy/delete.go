package deploy

import (
	"context"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/service/sagemaker"
	"github.com/aws/aws-sdk-go-v2/service/sagemaker/types"

	"github.com/millrace-ai/millrace/internal/account"
)

// Removal says what Delete removes besides the endpoint and its
// configurations.
type Removal struct {
	KeepModel bool // leave the models
	Logs      bool // the containers' log too
}

// Delete removes the endpoint called name and what Deploy created for it, and
// waits until it is gone. It returns what it removed, also with an error; what
// does not exist is not an error. Files in S3 stay.
func (c *Client) Delete(ctx context.Context, name string, r Removal) (removed []string, err error) {
	present, err := c.mine(ctx, name)
	if err != nil {
		return nil, err
	}
	madeRole, err := c.hasMadeRole(ctx, name)
	if err != nil {
		return nil, err
	}
	if present != nil {
		if err := c.deleteEndpoint(ctx, name); err != nil {
			return nil, err
		}
		removed = append(removed, "endpoint "+name)
	}
	parts, err := c.removeParts(ctx, name, "", func(string) bool { return r.KeepModel })
	removed = append(removed, parts...)
	if err != nil {
		return removed, err
	}
	if madeRole && !r.KeepModel {
		role, err := c.RemoveRole(ctx, roleName(c.Region(), name))
		if err != nil {
			return removed, err
		}
		if role != "" {
			removed = append(removed, role)
		}
	}
	if !r.Logs {
		return removed, nil
	}
	group, err := c.RemoveLog(ctx, logGroup(name))
	if group != "" {
		removed = append(removed, group)
	}
	return removed, err
}

// deleteEndpoint deletes the endpoint, once it is not under way to something,
// and waits until it is gone.
func (c *Client) deleteEndpoint(ctx context.Context, name string) error {
	last := types.EndpointStatus("")
	for asked := false; ; {
		if !asked {
			_, err := c.sm.DeleteEndpoint(ctx, &sagemaker.DeleteEndpointInput{EndpointName: &name})
			switch {
			case err == nil:
				asked = true
			case account.IsMissing(err):
				return nil
			case !isBusy(err):
				return c.explain(err, "endpoint "+name)
			}
		}
		e, err := c.endpoint(ctx, name)
		if err != nil || e == nil {
			return err
		}
		if e.EndpointStatus != last {
			last = e.EndpointStatus
			hint := ""
			if !asked {
				hint = ", can be deleted once that has ended"
			}
			c.Say("endpoint %s: %s%s", name, last, hint)
		}
		if !account.Sleep(ctx, c.Poll) {
			return fmt.Errorf("endpoint %s: stopped waiting while it was %s; the same command goes on from there", name, last)
		}
	}
}
