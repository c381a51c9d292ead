package deploy

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"

	"github.com/millrace-ai/millrace/internal/account"
)

// Status is how a function is.
type Status struct {
	Name     string   `json:"name"`
	Region   string   `json:"region"`
	Status   string   `json:"status"`                 // of the function as it is last configured
	Failure  string   `json:"last_failure,omitempty"` // of its creation, its last change or its version
	Changed  string   `json:"changed"`                // in ISO 8601
	Version  string   `json:"version,omitempty"`      // that callers reach by the alias
	Serving  string   `json:"version_status,omitempty"`
	Snapshot string   `json:"snapshot,omitempty"` // On or Off, where SnapStart is asked for
	Image    string   `json:"image,omitempty"`
	Model    string   `json:"model,omitempty"` // MODEL_ID; "": the image's own
	MemoryMB int32    `json:"memory_mb"`
	Timeout  int32    `json:"timeout_seconds"`
	URL      string   `json:"url,omitempty"`
	URLAuth  string   `json:"url_auth,omitempty"`
	URLMode  string   `json:"url_mode,omitempty"`
	Notes    []string `json:"notes,omitempty"`  // what could not be found out, and why
	Errors   []string `json:"errors,omitempty"` // lines of the log about failures in the last hour
	Log      []string `json:"log,omitempty"`
}

// failures matches the lines of the server and of Lambda itself that tell of a
// failure, in the log's JSON.
const failures = `{ $.level = "ERROR" || $.record.status = "error" || $.record.status = "timeout" }`

// mostErrors is how many of the latest failures are shown.
const mostErrors = 5

// Status finds out how the function called name is, whoever made it, with the
// last logLines lines of its log. What the caller has no permission for becomes
// a note.
func (c *Client) Status(ctx context.Context, name string, logLines int) (*Status, error) {
	f, err := c.lambda.GetFunction(ctx, &lambda.GetFunctionInput{FunctionName: &name})
	if account.IsMissing(err) {
		return nil, fmt.Errorf("there is no function %s in %s; another region: --region", name, c.Region())
	}
	if err != nil {
		return nil, c.explain(err, "function "+name)
	}
	config := f.Configuration
	s := &Status{
		Name: name, Region: c.Region(), Status: stateOf(config.State, config.LastUpdateStatus), Changed: aws.ToString(config.LastModified),
		MemoryMB: aws.ToInt32(config.MemorySize), Timeout: aws.ToInt32(config.Timeout), Failure: failureOf(config),
	}
	if f.Code != nil {
		s.Image = aws.ToString(f.Code.ImageUri)
	}
	if config.Environment != nil {
		s.Model = config.Environment.Variables["MODEL_ID"]
	}
	note := func(err error) {
		if err != nil {
			s.Notes = append(s.Notes, err.Error())
		}
	}
	note(c.statusOfVersion(ctx, s))
	note(c.statusOfURL(ctx, s))
	group := logGroup(name)
	if l := config.LoggingConfig; l != nil && aws.ToString(l.LogGroup) != "" {
		group = *l.LogGroup
	}
	s.Errors, err = c.MatchingLines(ctx, group, failures, mostErrors, time.Now().Add(-time.Hour))
	note(err)
	if logLines > 0 {
		s.Log, err = c.LastLines(ctx, group, logLines, time.Time{})
		note(err)
	}
	return s, nil
}

// statusOfVersion fills in what the alias is on.
func (c *Client) statusOfVersion(ctx context.Context, s *Status) error {
	alias, err := c.lambda.GetAlias(ctx, &lambda.GetAliasInput{FunctionName: &s.Name, Name: aws.String(Alias)})
	if account.IsMissing(err) {
		return fmt.Errorf("there is no alias %s, which callers use: no version was published", Alias)
	}
	if err != nil {
		return c.explain(err, "alias "+Alias)
	}
	s.Version = aws.ToString(alias.FunctionVersion)
	v, err := c.lambda.GetFunctionConfiguration(ctx, &lambda.GetFunctionConfigurationInput{FunctionName: &s.Name, Qualifier: alias.FunctionVersion})
	if err != nil {
		return c.explain(err, "version "+s.Version)
	}
	s.Serving = stateOf(v.State, "")
	if s.Failure == "" {
		s.Failure = failureOf(&types.FunctionConfiguration{State: v.State, StateReason: v.StateReason, StateReasonCode: v.StateReasonCode})
	}
	if snap := v.SnapStart; snap != nil && snap.ApplyOn == types.SnapStartApplyOnPublishedVersions {
		s.Snapshot = string(snap.OptimizationStatus)
	}
	return nil
}

// statusOfURL fills in the alias's URL, if it has one.
func (c *Client) statusOfURL(ctx context.Context, s *Status) error {
	url, err := c.lambda.GetFunctionUrlConfig(ctx, &lambda.GetFunctionUrlConfigInput{FunctionName: &s.Name, Qualifier: aws.String(Alias)})
	if account.IsMissing(err) {
		return nil
	}
	if err != nil {
		return c.explain(err, "the URL of function "+s.Name)
	}
	s.URL, s.URLAuth, s.URLMode = aws.ToString(url.FunctionUrl), string(url.AuthType), string(url.InvokeMode)
	return nil
}

// stateOf is a state with a change that is under way or has failed, if there is one.
func stateOf(state types.State, update types.LastUpdateStatus) string {
	if update == types.LastUpdateStatusInProgress || update == types.LastUpdateStatusFailed {
		return string(state) + ", last change " + string(update)
	}
	return string(state)
}

// failureOf is why a function has failed or does not run, with the probable cause.
func failureOf(f *types.FunctionConfiguration) string {
	code, reason := string(f.StateReasonCode), aws.ToString(f.StateReason)
	if f.LastUpdateStatus == types.LastUpdateStatusFailed {
		code, reason = string(f.LastUpdateStatusReasonCode), aws.ToString(f.LastUpdateStatusReason)
	} else if f.State != types.StateFailed && f.State != types.StateInactive {
		return ""
	}
	if cause := probableCause(code + " " + reason); cause != "" {
		return fmt.Sprintf("%s (Lambda: %s %s)", cause, code, reason)
	}
	return code + " " + reason
}

// Write writes the status as a table, then notes, failures and log.
func (s *Status) Write(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(name, text string) {
		if text != "" {
			fmt.Fprintf(w, "%s\t%s\n", name, text)
		}
	}
	row("function", s.Name+" in "+s.Region)
	row("status", s.Status)
	row("last failure", s.Failure)
	row("changed", s.Changed)
	if s.Version != "" {
		row("serving", "version "+s.Version+", "+s.Serving)
	}
	row("snapshot", s.Snapshot)
	row("image", s.Image)
	row("model", s.Model)
	row("size", fmt.Sprintf("%d MB, %d s", s.MemoryMB, s.Timeout))
	if s.URL != "" {
		row("url", fmt.Sprintf("%s (%s, %s)", s.URL, s.URLAuth, s.URLMode))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, note := range s.Notes {
		fmt.Fprintln(out, "#", note)
	}
	if len(s.Errors) > 0 {
		fmt.Fprintln(out, "# failures in the last hour:")
	}
	for _, line := range s.Errors {
		fmt.Fprintln(out, line)
	}
	if len(s.Log) > 0 {
		fmt.Fprintln(out, "# log:")
	}
	for _, line := range s.Log {
		if _, err := fmt.Fprintln(out, line); err != nil {
			return err
		}
	}
	return nil
}
