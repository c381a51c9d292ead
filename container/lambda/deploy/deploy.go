package deploy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"

	"github.com/millrace-ai/millrace/internal/account"
)

// Alias is what callers call.
const Alias = "live"

const latest = "$LATEST" // the function as it is last configured

// Client speaks with Lambda and what belongs to it in an account. Make one with
// Dial. Like an Account, it must not be put into an interface.
type Client struct {
	*account.Account
	lambda *lambda.Client
}

// Dial returns a Client of an account, as account.Dial does.
func Dial(ctx context.Context, access account.Access, dry bool, out io.Writer) (*Client, error) {
	a, err := account.Dial(ctx, access, dry, out)
	if err != nil {
		return nil, err
	}
	a.Poll = 2 * time.Second
	return &Client{a, lambda.NewFromConfig(a.Config)}, nil
}

// Deploy creates the function that s describes, or changes an existing one, and
// waits until the alias is on a version that can be called. Called again after a
// failure or an interruption, it goes on where it stopped. It returns the
// function's URL, "" for none. s has passed Check.
func (c *Client) Deploy(ctx context.Context, s *Spec) (url string, err error) {
	began := time.Now()
	present, err := c.settled(ctx, s.Name)
	if err != nil {
		return "", err
	}
	role := s.Role
	if role == "" && present != nil {
		role = aws.ToString(present.Configuration.Role)
	}
	if s.CreateRole {
		if role, err = c.ensureRole(ctx, s); err != nil {
			return "", err
		}
	}
	if role == "" {
		return "", errors.New("--role is missing: the ARN of a role that lambda.amazonaws.com may assume; --print-policy prints what it needs, and --create-role makes it")
	}
	changed := true
	if present == nil {
		err = c.create(ctx, s, role)
	} else {
		changed, err = c.change(ctx, s, role, present)
	}
	if err != nil {
		return "", err
	}
	version, moved, err := c.publish(ctx, s, changed, began)
	if err != nil {
		return "", err
	}
	if url, err = c.ensureURL(ctx, s); err != nil {
		return "", err
	}
	if err := c.removeVersions(ctx, s.Name, version); err != nil {
		return "", fmt.Errorf("function %s serves version %s, but earlier ones could not be removed: %w", s.Name, version, err)
	}
	if present != nil {
		if err := c.retag(ctx, s, present); err != nil {
			return "", err
		}
	}
	if !moved {
		c.Say("function %s: serves exactly this already (if the image was pushed again under the same tag: deploy it by digest, or with --force)", s.Name)
	} else {
		c.Say("function %s: version %s serves after %d s; try: millrace lambda invoke %s 'Hello'", s.Name, version, int(time.Since(began).Seconds()), s.Name)
	}
	return url, nil
}

// describe describes the function called name, nil if there is none; one that was
// not made here is an error.
func (c *Client) describe(ctx context.Context, name string) (*lambda.GetFunctionOutput, error) {
	f, err := c.lambda.GetFunction(ctx, &lambda.GetFunctionInput{FunctionName: &name})
	switch {
	case account.IsMissing(err):
		return nil, nil
	case err != nil:
		return nil, c.explain(err, "function "+name)
	case f.TagsError != nil:
		return nil, fmt.Errorf("the tags of function %s, which say whether this command made it, cannot be read: %s; that takes lambda:ListTags", name, aws.ToString(f.TagsError.Message))
	case f.Tags[tagKey] != name:
		return nil, fmt.Errorf("function %s exists and was not made by this command: it has no tag %s=%s; choose another name, or add that tag to let this command manage it", name, tagKey, name)
	}
	return f, nil
}

// settled describes the function once nothing is under way in it. One that could
// not be created is deleted, so that there is none.
func (c *Client) settled(ctx context.Context, name string) (*lambda.GetFunctionOutput, error) {
	for said := false; ; said = true {
		f, err := c.describe(ctx, name)
		if err != nil || f == nil {
			return nil, err
		}
		config := f.Configuration
		switch {
		case config.State == types.StateFailed:
			c.Say("function %s: failed earlier, recreating it", name)
			_, err := c.lambda.DeleteFunction(ctx, &lambda.DeleteFunctionInput{FunctionName: &name})
			return nil, c.explain(err, "function "+name)
		case !underWay(config) || c.Dry():
			return f, nil
		case !said:
			c.Say("function %s: is being changed, waiting for that to end", name)
		}
		if !account.Sleep(ctx, c.Poll) {
			return nil, stopped(name)
		}
	}
}

func underWay(f *types.FunctionConfiguration) bool {
	return f.State == types.StatePending || f.State == types.StateDeleting || f.LastUpdateStatus == types.LastUpdateStatusInProgress
}

func stopped(name string) error {
	return fmt.Errorf("stopped waiting for function %s; the same deploy goes on from there, `millrace lambda delete %s` deletes it", name, name)
}

// create creates the function, and waits until it is there.
func (c *Client) create(ctx context.Context, s *Spec, role string) error {
	in := &lambda.CreateFunctionInput{
		FunctionName: &s.Name, Role: &role, PackageType: types.PackageTypeImage, Code: &types.FunctionCode{ImageUri: &s.Image},
		Architectures: []types.Architecture{s.architecture()}, MemorySize: &s.MemoryMB, Timeout: s.seconds(),
		EphemeralStorage: &types.EphemeralStorage{Size: &s.TmpMB}, Environment: &types.Environment{Variables: s.variables()},
		SnapStart: &types.SnapStart{ApplyOn: s.snapStart()}, LoggingConfig: &types.LoggingConfig{LogFormat: types.LogFormatJson}, Tags: s.tags(),
	}
	const most = 6 // tries: a new role takes some seconds to be known everywhere
	what := "function " + s.Name
	for try := 1; ; try++ {
		_, err := c.lambda.CreateFunction(ctx, in)
		if err == nil {
			break
		}
		if !s.CreateRole || !isYoungRole(err) || try == most || !account.Sleep(ctx, c.Poll) {
			return c.explain(err, what)
		}
		c.Say("%s: Lambda cannot use the role yet, which may be new; try %d of %d", what, try+1, most)
	}
	c.Say("%s: is being created in %s", what, c.Region())
	return c.await(ctx, s.Name)
}

// change gives the function the image and the configuration of s, as far as it
// does not have them, and reports whether it did not.
func (c *Client) change(ctx context.Context, s *Spec, role string, present *lambda.GetFunctionOutput) (changed bool, err error) {
	what := "function " + s.Name
	now := present.Configuration
	if now.PackageType != types.PackageTypeImage {
		return false, fmt.Errorf("%s is not made of an image, which cannot be changed: delete it first", what)
	}
	// What a failed update was to set is described as if it were set.
	redo := s.Force || now.LastUpdateStatus == types.LastUpdateStatusFailed
	sameArchitecture := len(now.Architectures) == 0 && !s.Arm || len(now.Architectures) == 1 && now.Architectures[0] == s.architecture()
	if redo || !sameArchitecture || present.Code == nil || aws.ToString(present.Code.ImageUri) != s.Image {
		changed = true
		_, err := c.lambda.UpdateFunctionCode(ctx, &lambda.UpdateFunctionCodeInput{
			FunctionName: &s.Name, ImageUri: &s.Image, Architectures: []types.Architecture{s.architecture()},
		})
		if err != nil {
			return false, c.explain(err, what)
		}
		c.Say("%s: its image is being changed", what)
		if err := c.await(ctx, s.Name); err != nil {
			return false, err
		}
	}
	if now.LastUpdateStatus != types.LastUpdateStatusFailed && s.configures(now, role) {
		return changed, nil
	}
	_, err = c.lambda.UpdateFunctionConfiguration(ctx, &lambda.UpdateFunctionConfigurationInput{
		FunctionName: &s.Name, Role: &role, MemorySize: &s.MemoryMB, Timeout: s.seconds(),
		EphemeralStorage: &types.EphemeralStorage{Size: &s.TmpMB}, Environment: &types.Environment{Variables: s.variables()},
		SnapStart: &types.SnapStart{ApplyOn: s.snapStart()}, LoggingConfig: &types.LoggingConfig{LogFormat: types.LogFormatJson},
		// What was put into a VPC by hand would not reach S3.
		VpcConfig: &types.VpcConfig{SubnetIds: []string{}, SecurityGroupIds: []string{}},
	})
	if err != nil {
		return false, c.explain(err, what)
	}
	c.Say("%s: its configuration is being changed", what)
	return true, c.await(ctx, s.Name)
}

// configures reports whether now is what s asks for already.
func (s *Spec) configures(now *types.FunctionConfiguration, role string) bool {
	variables := map[string]string{}
	if now.Environment != nil && now.Environment.Variables != nil {
		variables = now.Environment.Variables
	}
	tmp := int32(leastTmpMB)
	if now.EphemeralStorage != nil {
		tmp = aws.ToInt32(now.EphemeralStorage.Size)
	}
	snaps := now.SnapStart != nil && now.SnapStart.ApplyOn == types.SnapStartApplyOnPublishedVersions
	inVPC := now.VpcConfig != nil && len(now.VpcConfig.SubnetIds) > 0
	return aws.ToString(now.Role) == role && aws.ToInt32(now.MemorySize) == s.MemoryMB && aws.ToInt32(now.Timeout) == *s.seconds() &&
		tmp == s.TmpMB && maps.Equal(variables, s.variables()) && snaps == s.SnapStart && !inVPC &&
		(now.LoggingConfig == nil || now.LoggingConfig.LogFormat == types.LogFormatJson)
}

// await waits until nothing is under way in the function.
func (c *Client) await(ctx context.Context, name string) error {
	began := time.Now()
	for !c.Dry() {
		f, err := c.lambda.GetFunctionConfiguration(ctx, &lambda.GetFunctionConfigurationInput{FunctionName: &name})
		switch {
		case ctx.Err() != nil:
			return stopped(name)
		case err != nil:
			return c.explain(err, "function "+name)
		case f.State == types.StateFailed:
			return c.failed(ctx, name, "function "+name+" cannot be created", string(f.StateReasonCode), aws.ToString(f.StateReason), began)
		case f.LastUpdateStatus == types.LastUpdateStatusFailed:
			return c.failed(ctx, name, "function "+name+" cannot be changed", string(f.LastUpdateStatusReasonCode), aws.ToString(f.LastUpdateStatusReason), began)
		case f.State != types.StatePending && f.LastUpdateStatus != types.LastUpdateStatusInProgress:
			return nil
		}
		if !account.Sleep(ctx, c.Poll) {
			return stopped(name)
		}
	}
	return nil
}

// failed says why Lambda gave up: the last lines of the function's log go to the
// progress, the probable cause into the error.
func (c *Client) failed(ctx context.Context, name, what, code, reason string, began time.Time) error {
	const skew = time.Minute // between Lambda's clock and ours
	lines := c.SayLog(ctx, "the function's", logGroup(name), began.Add(-skew))
	if cause := probableCause(append([]string{code + " " + reason}, lines...)...); cause != "" {
		return fmt.Errorf("%s: %s (Lambda: %s %s)", what, cause, code, reason)
	}
	return fmt.Errorf("%s: %s %s", what, code, reason)
}

// publish publishes a version of the function as it is now, waits until it can be
// called, and moves the alias to it. It reports whether the alias was elsewhere.
func (c *Client) publish(ctx context.Context, s *Spec, changed bool, began time.Time) (version string, moved bool, err error) {
	what := "function " + s.Name
	alias, err := c.lambda.GetAlias(ctx, &lambda.GetAliasInput{FunctionName: &s.Name, Name: aws.String(Alias)})
	switch {
	case account.IsMissing(err):
		alias = nil
	case err != nil:
		return "", false, c.explain(err, what)
	case c.Dry() && !changed:
		return aws.ToString(alias.FunctionVersion), false, nil
	}
	published, err := c.lambda.PublishVersion(ctx, &lambda.PublishVersionInput{FunctionName: &s.Name})
	if err != nil {
		return "", false, c.explain(err, what)
	}
	if version = aws.ToString(published.Version); c.Dry() {
		version = "NEW"
	}
	if err := c.awaitVersion(ctx, s, version, began); err != nil {
		return "", false, err
	}
	switch {
	case alias == nil:
		_, err = c.lambda.CreateAlias(ctx, &lambda.CreateAliasInput{FunctionName: &s.Name, Name: aws.String(Alias), FunctionVersion: &version})
	case aws.ToString(alias.FunctionVersion) == version:
		return version, false, nil
	default:
		_, err = c.lambda.UpdateAlias(ctx, &lambda.UpdateAliasInput{FunctionName: &s.Name, Name: aws.String(Alias), FunctionVersion: &version})
	}
	return version, true, c.explain(err, what+", alias "+Alias)
}

// awaitVersion waits until a version can be called. One that cannot is deleted, so
// that the same deploy publishes it again.
func (c *Client) awaitVersion(ctx context.Context, s *Spec, version string, began time.Time) error {
	for said := false; !c.Dry(); said = true {
		f, err := c.lambda.GetFunctionConfiguration(ctx, &lambda.GetFunctionConfigurationInput{FunctionName: &s.Name, Qualifier: &version})
		switch {
		case ctx.Err() != nil:
			return stopped(s.Name)
		case err != nil:
			return c.explain(err, "function "+s.Name+", version "+version)
		case f.State == types.StateFailed:
			fault := c.failed(ctx, s.Name, "version "+version+" of function "+s.Name+" does not start, and what served before goes on", string(f.StateReasonCode), aws.ToString(f.StateReason), began)
			if _, err := c.lambda.DeleteFunction(ctx, &lambda.DeleteFunctionInput{FunctionName: &s.Name, Qualifier: &version}); err != nil {
				c.Say("version %s is left: %v", version, c.explain(err, "version "+version))
			}
			return fault
		case f.State != types.StatePending:
			return nil
		case !said && s.SnapStart:
			c.Say("function %s: version %s loads the model for its snapshot", s.Name, version)
		case !said:
			c.Say("function %s: version %s is being prepared", s.Name, version)
		}
		if !account.Sleep(ctx, c.Poll) {
			return stopped(s.Name)
		}
	}
	return nil
}

// removeVersions deletes the versions but the one named keep; those that another
// alias uses stay.
func (c *Client) removeVersions(ctx context.Context, name, keep string) error {
	in := &lambda.ListVersionsByFunctionInput{FunctionName: &name}
	for {
		out, err := c.lambda.ListVersionsByFunction(ctx, in)
		if account.IsMissing(err) {
			return nil // of a dry run
		}
		if err != nil {
			return c.explain(err, "the versions of function "+name)
		}
		for i := range out.Versions {
			version := aws.ToString(out.Versions[i].Version)
			if version == latest || version == keep {
				continue
			}
			_, err := c.lambda.DeleteFunction(ctx, &lambda.DeleteFunctionInput{FunctionName: &name, Qualifier: &version})
			switch {
			case isConflict(err):
				c.Say("function %s: version %s stays, since another alias uses it", name, version)
			case err != nil && !account.IsMissing(err):
				return c.explain(err, "function "+name+", version "+version)
			default:
				c.Say("function %s: version %s removed", name, version)
			}
		}
		if in.Marker = out.NextMarker; in.Marker == nil {
			return nil
		}
	}
}

// retag gives a function that was there before the tags that are wanted now.
func (c *Client) retag(ctx context.Context, s *Spec, present *lambda.GetFunctionOutput) error {
	for key, value := range s.Tags {
		if present.Tags[key] != value {
			_, err := c.lambda.TagResource(ctx, &lambda.TagResourceInput{Resource: present.Configuration.FunctionArn, Tags: s.tags()})
			return c.explain(err, "the tags of function "+s.Name)
		}
	}
	return nil
}
