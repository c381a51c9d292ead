package deploy

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"
)

func testSpec() *Spec {
	return &Spec{
		Name: "small", Image: "123456789012.dkr.ecr.eu-west-1.amazonaws.com/millrace@sha256:abc",
		Role: "arn:aws:iam::123456789012:role/function", Model: "s3://models/llama/",
		MemoryMB: 3008, TmpMB: 512, Timeout: 5 * time.Minute, URL: SignedURL,
	}
}

// Calls that change something.
const (
	create    = "POST functions"
	code      = "PUT functions/small/code"
	configure = "PUT functions/small/configuration"
	publish   = "POST functions/small/versions"
	setAlias  = "POST functions/small/aliases"
	moveAlias = "PUT functions/small/aliases/live"
	makeURL   = "POST functions/small/url:live"
	changeURL = "PUT functions/small/url:live"
	removeURL = "DELETE functions/small/url:live"
	allow     = "POST functions/small/policy:live"
	dropURL   = "DELETE functions/small/policy/MillracePublicURL:live"
	dropCall  = "DELETE functions/small/policy/MillracePublicInvoke:live"
	removeOne = "DELETE functions/small:1"
	remove    = "DELETE functions/small"
	retag     = "POST tags/arn:aws:lambda:eu-west-1:123456789012:function:small"
	madeRole  = "millrace-lambda-eu-west-1-small"
)

var created = []string{create, publish, setAlias, makeURL}

// Deploy makes what is missing, and changes what differs, and nothing else.
func TestDeploy(t *testing.T) {
	for _, tt := range []struct {
		name    string
		before  func(*fakeAWS, *Spec) // after a first deployment that worked
		fresh   func(*fakeAWS, *Spec) // instead of it
		want    []string              // calls
		wantErr string
		wantOut string
		alias   string // "": on version 1
	}{
		{name: "first", fresh: func(*fakeAWS, *Spec) {}, want: created, wantOut: "function small: version 1 serves after"},
		{name: "once more changes nothing", before: func(*fakeAWS, *Spec) {}, want: []string{publish}, wantOut: "serves exactly this already"},
		{
			name: "another image", before: func(_ *fakeAWS, s *Spec) { s.Image += "d" },
			want: []string{code, publish, moveAlias, removeOne}, wantOut: "version 1 removed", alias: "2",
		},
		{
			name: "another processor", before: func(_ *fakeAWS, s *Spec) { s.Arm = true },
			want: []string{code, publish, moveAlias, removeOne}, alias: "2",
		},
		{
			name: "force", before: func(_ *fakeAWS, s *Spec) { s.Force = true },
			want: []string{code, publish, moveAlias, removeOne}, alias: "2",
		},
		{
			name: "another size, and the role stays", before: func(f *fakeAWS, s *Spec) { s.MemoryMB, s.Role = 4096, "" },
			want: []string{configure, publish, moveAlias, removeOne}, alias: "2",
		},
		{
			name: "out of a VPC that somebody has put it in",
			before: func(f *fakeAWS, _ *Spec) {
				f.function["VpcConfig"] = map[string]any{"SubnetIds": []any{"subnet-1"}, "SecurityGroupIds": []any{"sg-1"}}
			},
			want: []string{configure, publish, moveAlias, removeOne}, alias: "2",
		},
		{
			name: "a version that another alias uses stays", before: func(f *fakeAWS, s *Spec) { s.MemoryMB, f.used = 4096, "1" },
			want: []string{configure, publish, moveAlias, removeOne}, wantOut: "version 1 stays", alias: "2",
		},
		{
			name: "goes on where an interrupted run stopped",
			before: func(f *fakeAWS, s *Spec) {
				s.MemoryMB = 4096
				f.faults[publish] = []string{"400 InvalidParameterValueException: no"}
				c, _ := f.dial(false)
				if _, err := c.Deploy(context.Background(), s); err == nil {
					f.t.Error("no error")
				}
				f.took()
			},
			want: []string{publish, moveAlias, removeOne}, alias: "2",
		},
		{
			name: "waits for what is under way",
			before: func(f *fakeAWS, _ *Spec) {
				f.states = []string{"Pending", "Pending", "Active"}
			},
			want: []string{publish}, wantOut: "is being changed, waiting for that to end",
		},
		{
			name: "one that failed is recreated", before: func(f *fakeAWS, _ *Spec) { f.states = []string{"Failed", "Active"} },
			want: append([]string{remove}, created...), wantOut: "failed earlier, recreating it", alias: "2",
		},
		{
			name: "a version that does not start serves nobody",
			before: func(f *fakeAWS, s *Spec) {
				s.SnapStart, f.failed = true, "2"
				f.reason = [2]string{"FunctionError", "Runtime.ModelNotLoaded"}
				f.log = []string{"loading", "the model does not fit into 3008 MB"}
			},
			want:    []string{configure, publish, "DELETE functions/small:2"},
			wantErr: "version 2 of function small does not start, and what served before goes on: the model did not load: the log says why (Lambda: FunctionError Runtime.ModelNotLoaded)",
			wantOut: "  the model does not fit into 3008 MB\n",
		},
		{
			name: "one that cannot be created",
			fresh: func(f *fakeAWS, _ *Spec) {
				f.states, f.reason = []string{"Failed"}, [2]string{"InvalidImage", "exec format error"}
			},
			want: []string{create}, wantErr: "cannot be created: the image is built for a different processor",
		},
		{
			name: "an image with an index",
			fresh: func(f *fakeAWS, _ *Spec) {
				f.faults[create] = []string{"400 InvalidParameterValueException: The image manifest, config or layer media type for the source image x is not supported."}
			},
			want: []string{create}, wantErr: "function small: Lambda takes one image of one platform, without an index around it: build it with --provenance=false",
		},
		{
			name: "a role that is not known yet", fresh: func(f *fakeAWS, s *Spec) {
				s.Role, s.CreateRole = "", true
				f.faults[create] = []string{"400 InvalidParameterValueException: The role defined for the function cannot be assumed by Lambda."}
			},
			want:    append([]string{"CreateRole " + madeRole, "PutRolePolicy " + madeRole, create}, created...),
			wantOut: "Lambda cannot use the role yet, which may be new; try 2 of 6",
		},
		{
			name: "a role that Lambda may not assume",
			fresh: func(f *fakeAWS, _ *Spec) {
				f.faults[create] = []string{"400 InvalidParameterValueException: The role defined for the function cannot be assumed by Lambda."}
			},
			want: []string{create}, wantErr: "the role must trust lambda.amazonaws.com",
		},
		{name: "no role", fresh: func(_ *fakeAWS, s *Spec) { s.Role = "" }, wantErr: "--role is missing"},
		{
			name: "somebody else's function", before: func(f *fakeAWS, _ *Spec) { f.tags = nil },
			wantErr: "function small exists and was not made by this command: it has no tag millrace:function=small",
		},
		{
			name: "tags that cannot be read", before: func(f *fakeAWS, _ *Spec) { f.secret = true },
			wantErr: "cannot be read: not authorized; that takes lambda:ListTags",
		},
		{
			name: "after an update that failed", before: func(f *fakeAWS, _ *Spec) { f.broken = true },
			want: []string{code, configure, publish, moveAlias, removeOne}, alias: "2",
		},
		{
			name: "one of an archive", before: func(f *fakeAWS, _ *Spec) { f.function["PackageType"] = "Zip" },
			wantErr: "is not made of an image",
		},
		{
			name: "tags", before: func(_ *fakeAWS, s *Spec) { s.Tags = map[string]string{"team": "search"} },
			want: []string{publish, retag},
		},
		{
			name: "a URL for everybody", fresh: func(_ *fakeAWS, s *Spec) { s.URL = PublicURL },
			want: append(slices.Clone(created), allow, allow),
		},
		{
			name: "a URL for everybody no more",
			before: func(f *fakeAWS, s *Spec) {
				s.URL = PublicURL
				c, _ := f.dial(false)
				if _, err := c.Deploy(context.Background(), s); err != nil || len(f.policy) != 2 {
					f.t.Error(err, f.policy)
				}
				f.took()
				s.URL = SignedURL
			},
			want: []string{publish, dropURL, dropCall, changeURL},
		},
		{
			name: "a URL that does not stream", before: func(_ *fakeAWS, s *Spec) { s.Buffered = true },
			want: []string{configure, publish, moveAlias, changeURL, removeOne}, alias: "2",
		},
		{
			name: "no URL any more", before: func(_ *fakeAWS, s *Spec) { s.URL = NoURL },
			want: []string{configure, publish, moveAlias, removeURL, removeOne}, alias: "2",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, s := newFake(t), testSpec()
			c, out := f.dial(false)
			if tt.fresh != nil {
				tt.fresh(f, s)
			} else {
				if _, err := c.Deploy(context.Background(), s); err != nil {
					t.Fatal(err)
				}
				f.took()
				out.Reset()
				tt.before(f, s)
			}
			url, err := c.Deploy(context.Background(), s)
			if (err == nil) != (tt.wantErr == "") || err != nil && !strings.Contains(err.Error(), tt.wantErr) {
				t.Errorf("error %v, want %q", err, tt.wantErr)
			}
			if got := f.took(); !slices.Equal(got, tt.want) {
				t.Errorf("calls %q, want %q", got, tt.want)
			}
			if !strings.Contains(out.String(), tt.wantOut) {
				t.Errorf("progress %q, want %q in it", out, tt.wantOut)
			}
			if err == nil && (url == "") != (s.URL == NoURL) {
				t.Errorf("URL %q", url)
			}
			alias := tt.alias
			if alias == "" {
				alias = "1"
			}
			if f.alias != "" && f.alias != alias {
				t.Errorf("the alias is on version %q, want %q", f.alias, alias)
			}
		})
	}
}

// The function has what the flags say.
func TestConfiguration(t *testing.T) {
	f, s := newFake(t), testSpec()
	s.SnapStart, s.Env = true, map[string]string{"A": "1"}
	c, _ := f.dial(false)
	if _, err := c.Deploy(context.Background(), s); err != nil {
		t.Fatal(err)
	}
	env := f.function["Environment"].(map[string]any)["Variables"].(map[string]any)
	if len(env) != 3 || env["A"] != "1" || env["MODEL_ID"] != "s3://models/llama/" || env["LAMBDA_INVOKE_MODE"] != "stream" {
		t.Errorf("variables %v", env)
	}
	if got := f.function["SnapStart"].(map[string]any)["ApplyOn"]; got != "PublishedVersions" {
		t.Errorf("SnapStart %v", got)
	}
	if f.function["MemorySize"] != 3008.0 || f.function["Timeout"] != 300.0 || f.link["InvokeMode"] != "RESPONSE_STREAM" || f.link["AuthType"] != "AWS_IAM" {
		t.Errorf("function %v, URL %v", f.function, f.link)
	}
}

// A dry run asks what is there, and changes nothing.
func TestDryRun(t *testing.T) {
	operations := func(c *Client) (names []string) {
		for _, r := range c.Requests() {
			names = append(names, r.Operation)
		}
		return names
	}
	f, s := newFake(t), testSpec()
	c, _ := f.dial(false)
	if _, err := c.Deploy(context.Background(), s); err != nil {
		t.Fatal(err)
	}
	f.took()
	for _, tt := range []struct {
		memory int32
		want   []string
	}{
		{3008, nil},
		{4096, []string{"UpdateFunctionConfiguration", "PublishVersion", "UpdateAlias", "DeleteFunction"}},
	} {
		dry, _ := f.dial(true)
		s.MemoryMB = tt.memory
		if _, err := dry.Deploy(context.Background(), s); err != nil {
			t.Fatal(err)
		}
		if got := operations(dry); !slices.Equal(got, tt.want) {
			t.Errorf("%d MB: %q, want %q", tt.memory, got, tt.want)
		}
	}
	if calls := f.took(); calls != nil {
		t.Errorf("dry runs called %q", calls)
	}

	t.Setenv("AWS_ACCESS_KEY_ID", "")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "")
	dry, _ := f.dial(true)
	if _, err := dry.Deploy(context.Background(), s); err != nil {
		t.Fatal(err)
	}
	want := []string{"CreateFunction", "PublishVersion", "CreateAlias", "CreateFunctionUrlConfig"}
	if got := operations(dry); !slices.Equal(got, want) || !dry.Offline() {
		t.Errorf("without credentials: %q, want %q", got, want)
	}
	if first := dry.Requests()[0]; first.Service != "lambda" || first.Path != "/2015-03-31/functions" || !strings.Contains(string(first.Body), `"MemorySize":4096`) {
		t.Errorf("the first request is %+v", first)
	}
}

// An interruption ends the waiting, and says how to go on.
func TestDeployStopsWaiting(t *testing.T) {
	f := newFake(t)
	f.states = []string{"Pending"}
	c, _ := f.dial(false)
	c.Poll = time.Minute
	ctx, cancel := context.WithCancel(context.Background())
	c.Out = writerFunc(func(line []byte) (int, error) {
		if strings.Contains(string(line), "is being created") {
			cancel()
		}
		return len(line), nil
	})
	if _, err := c.Deploy(ctx, testSpec()); err == nil || !strings.Contains(err.Error(), "the same deploy goes on from there") {
		t.Errorf("error %v", err)
	}
}

type writerFunc func([]byte) (int, error)

func (w writerFunc) Write(p []byte) (int, error) { return w(p) }

// Delete deletes the function and the role that was made for it, and no other.
func TestDelete(t *testing.T) {
	ctx := context.Background()
	f, s := newFake(t), testSpec()
	c, _ := f.dial(false)
	s.Role, s.CreateRole = "", true
	if _, err := c.Deploy(ctx, s); err != nil {
		t.Fatal(err)
	}
	f.took()
	removed, err := c.Delete(ctx, "small", true)
	if want := []string{"role " + madeRole, "function small", "log group /aws/lambda/small"}; err != nil || !slices.Equal(removed, want) || len(f.roles) > 0 {
		t.Errorf("removed %q, %v; want %q", removed, err, want)
	}
	if removed, err := c.Delete(ctx, "small", false); err != nil || removed != nil {
		t.Errorf("once more: %q, %v", removed, err)
	}

	s.Role, s.CreateRole = "arn:aws:iam::123456789012:role/mine", false
	if _, err := c.Deploy(ctx, s); err != nil {
		t.Fatal(err)
	}
	f.roles["mine"] = "{}"
	if removed, err := c.Delete(ctx, "small", false); err != nil || !slices.Equal(removed, []string{"function small"}) || len(f.roles) != 1 {
		t.Errorf("removed %q, %v", removed, err)
	}
	if _, err := c.Deploy(ctx, s); err != nil {
		t.Fatal(err)
	}
	f.tags = nil
	if _, err := c.Delete(ctx, "small", false); err == nil || f.function == nil {
		t.Errorf("somebody else's function: %v", err)
	}
}
