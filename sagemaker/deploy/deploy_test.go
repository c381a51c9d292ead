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
		Name: "chat", Image: "123456789012.dkr.ecr.eu-west-1.amazonaws.com/millrace:1.0",
		Role: "arn:aws:iam::123456789012:role/sagemaker", Model: "s3://models/llama/",
		InstanceType: "ml.c7i.2xlarge", Instances: 1, StartupTimeout: 10 * time.Minute,
	}
}

// created are the calls that a first deployment takes.
var created = []string{"CreateModel chat-#", "CreateEndpointConfig chat-#", "CreateEndpoint chat"}

// deployment is a Deploy against the fake AWS, and what is to come of it.
type deployment struct {
	name    string
	before  func(*fakeAWS, *Spec) // after a first deployment that worked
	fresh   func(*fakeAWS)        // instead of it
	want    []string              // calls
	wantErr string
	wantOut string
}

func (d *deployment) run(t *testing.T) {
	f, s := newFake(t), testSpec()
	c, out := f.dial(false)
	if d.fresh != nil {
		d.fresh(f)
	} else {
		if err := c.Deploy(context.Background(), s, true, nil); err != nil {
			t.Fatal(err)
		}
		f.took()
		out.Reset()
		d.before(f, s)
	}
	err := c.Deploy(context.Background(), s, true, nil)
	if (err == nil) != (d.wantErr == "") || err != nil && !strings.Contains(err.Error(), d.wantErr) {
		t.Errorf("error %v, want %q", err, d.wantErr)
	}
	if got := f.took(); !slices.Equal(got, d.want) {
		t.Errorf("calls %q, want %q", got, d.want)
	}
	if !strings.Contains(out.String(), d.wantOut) {
		t.Errorf("progress %q, want %q in it", out, d.wantOut)
	}
}

// Deploy makes what is missing, and nothing else.
func TestDeploy(t *testing.T) {
	for _, d := range []deployment{
		{
			name: "first", fresh: func(*fakeAWS) {},
			want: created, wantOut: "endpoint chat: in service after",
		},
		{
			name: "once more changes nothing", before: func(*fakeAWS, *Spec) {},
			wantOut: "serves exactly this already",
		},
		{
			name:   "force",
			before: func(f *fakeAWS, s *Spec) { s.Force = true },
			want: []string{
				"CreateModel chat-#", "CreateEndpointConfig chat-#", "UpdateEndpoint chat",
				"DeleteEndpointConfig chat-#", "DeleteModel chat-#",
			},
		},
		{
			name: "a shadow is added and its model kept", before: func(_ *fakeAWS, s *Spec) { s.ShadowImage = s.Image + ".1" },
			want: []string{"CreateModel chat-#", "CreateEndpointConfig chat-#", "UpdateEndpoint chat", "DeleteEndpointConfig chat-#"},
		},
		{
			name: "a shadow is removed with its model",
			before: func(f *fakeAWS, s *Spec) {
				s.ShadowImage = s.Image + ".1"
				c, _ := f.dial(false)
				if err := c.Deploy(context.Background(), s, true, nil); err != nil || len(f.models) != 2 {
					f.t.Fatal(err, len(f.models))
				}
				f.took()
				s.ShadowImage = ""
			},
			want: []string{"CreateEndpointConfig chat-#", "UpdateEndpoint chat", "DeleteEndpointConfig chat-#", "DeleteModel chat-#"},
		},
		{
			name: "goes on where an interrupted run stopped",
			fresh: func(f *fakeAWS) {
				f.faults["CreateEndpoint"] = []string{"ResourceLimitExceeded: The account-level service limit 'ml.c7i.2xlarge for endpoint usage' is 0 Instances"}
			},
			want:    created[:2],
			wantErr: "endpoint chat: a quota of the account is used up",
			wantOut: "what has been created so far is kept for the next try; `millrace sagemaker delete chat` deletes it",
		},
		{
			name: "one that failed is recreated",
			before: func(f *fakeAWS, s *Spec) {
				f.endpoints["chat"].course = []string{"Failed"}
			},
			want:    []string{"DeleteEndpoint chat", "CreateEndpoint chat"},
			wantOut: "failed earlier, recreating it",
		},
		{
			name: "one that failed is recreated with something else",
			before: func(f *fakeAWS, s *Spec) {
				f.endpoints["chat"].course = []string{"Failed"}
				s.Image += ".1"
			},
			want: []string{
				"DeleteEndpoint chat", "CreateModel chat-#", "CreateEndpointConfig chat-#", "CreateEndpoint chat",
				"DeleteEndpointConfig chat-#", "DeleteModel chat-#",
			},
		},
		{
			name: "removes what a run that did not wait has left",
			before: func(f *fakeAWS, s *Spec) {
				s.Instances = 2
				c, _ := f.dial(false)
				if err := c.Deploy(context.Background(), s, false, nil); err != nil {
					f.t.Fatal(err)
				}
				f.endpoints["chat"].course = []string{"InService"}
				f.took()
			},
			want:    []string{"DeleteEndpointConfig chat-#"},
			wantOut: "serves exactly this already",
		},
		{
			name: "somebody else's endpoint",
			before: func(f *fakeAWS, s *Spec) {
				f.tags[fakeARN+"endpoint/chat"] = nil
			},
			wantErr: "endpoint chat exists and was not made by this command: it has no tag millrace:endpoint=chat",
		},
		{
			name: "waits for one that is already changing to the same",
			before: func(f *fakeAWS, s *Spec) {
				f.endpoints["chat"].course = []string{"Updating", "Updating", "Updating", "InService"}
			},
			wantOut: "is already changing to this",
		},
	} {
		t.Run(d.name, d.run)
	}
}

// An update brings the new configuration into service before the old one is removed;
// when that fails, both are kept.
func TestDeployUpdates(t *testing.T) {
	for _, d := range []deployment{
		{
			name:   "an update removes what it replaces",
			before: func(f *fakeAWS, s *Spec) { s.Env = map[string]string{"MAX_INPUT_TOKENS": "100"} },
			want: []string{
				"CreateModel chat-#", "CreateEndpointConfig chat-#", "UpdateEndpoint chat",
				"DeleteEndpointConfig chat-#", "DeleteModel chat-#",
			},
			wantOut: "endpoint chat: is being updated from chat-",
		},
		{
			name: "a change of machines keeps the model, and the role is found",
			before: func(f *fakeAWS, s *Spec) {
				s.Instances, s.Role = 3, ""
			},
			want: []string{"CreateEndpointConfig chat-#", "UpdateEndpoint chat", "DeleteEndpointConfig chat-#"},
		},
		{
			name: "an update that is rolled back keeps both",
			before: func(f *fakeAWS, s *Spec) {
				s.Instances = 2
				f.course, f.rollback = []string{"Updating", "Updating", "InService"}, true
				f.reason = "The primary container for production variant main did not pass the ping health check."
			},
			want:    []string{"CreateEndpointConfig chat-#", "UpdateEndpoint chat"},
			wantErr: "the update failed and was rolled back: the container did not answer /ping",
		},
		{
			name: "one that serves a mix is not deleted",
			before: func(f *fakeAWS, s *Spec) {
				f.endpoints["chat"].course = []string{"UpdateRollbackFailed"}
			},
			want: []string{"UpdateEndpoint chat"},
		},
		{
			name: "an update that cannot be rolled back",
			before: func(f *fakeAWS, s *Spec) {
				s.Instances = 2
				f.course = []string{"Updating", "UpdateRollbackFailed"}
			},
			want:    []string{"CreateEndpointConfig chat-#", "UpdateEndpoint chat"},
			wantErr: "the update failed, and so did the rollback: some instances serve the old configuration, some the new one",
		},
		{
			name: "one that is being updated to something else is waited for, and updated back",
			before: func(f *fakeAWS, s *Spec) {
				other := *s
				other.Instances = 2
				c, _ := f.dial(false)
				f.course, f.slow = []string{"Updating", "Updating", "InService"}, true
				if err := c.Deploy(context.Background(), &other, false, nil); err != nil {
					f.t.Fatal(err)
				}
				f.took()
			},
			want:    []string{"UpdateEndpoint chat", "DeleteEndpointConfig chat-#"},
			wantOut: "endpoint chat: Updating, waiting for that to end",
		},
		{
			name: "an update for whose second fleet there is no quota",
			before: func(f *fakeAWS, s *Spec) {
				s.Instances = 2
				f.faults["UpdateEndpoint"] = []string{"ResourceLimitExceeded: The account-level service limit 'ml.c7i.2xlarge for endpoint usage' is 2 Instances"}
			},
			want:    []string{"CreateEndpointConfig chat-#"},
			wantErr: "is 2 Instances); an update starts the new instances while the old ones still run: --update-strategy rolling needs only half as many more",
		},
	} {
		t.Run(d.name, d.run)
	}
}

// What AWS refuses is put into one line that says what to do.
func TestDeployFailures(t *testing.T) {
	for _, d := range []deployment{
		{
			name: "the log of a container that failed is shown",
			fresh: func(f *fakeAWS) {
				f.course = []string{"Creating", "Failed"}
				f.reason = "The primary container for production variant main did not pass the ping health check."
				f.log = []string{"loading", "exec /millrace: exec format error"}
			},
			want: created,
			wantErr: "endpoint chat: failed: the image is built for a different processor than that of ml.c7i.2xlarge: build it for linux/amd64, or linux/arm64 for Graviton " +
				"(SageMaker: The primary container for production variant main did not pass the ping health check.); deploying again recreates it, `millrace sagemaker delete chat` deletes it",
			wantOut: "  exec /millrace: exec format error\n",
		},
		{
			name: "a role that is not known everywhere yet",
			fresh: func(f *fakeAWS) {
				f.faults["CreateModel"] = []string{"ValidationException: Could not assume role arn:aws:iam::123456789012:role/sagemaker."}
			},
			want: created, wantOut: "SageMaker cannot use the role yet, which may be new; try 2 of 6",
		},
		{
			name: "throttled",
			fresh: func(f *fakeAWS) {
				f.faults["DescribeEndpoint"] = []string{"ThrottlingException: Rate exceeded", "ThrottlingException: Rate exceeded"}
			},
			want: created,
		},
		{
			name: "a permission is missing",
			fresh: func(f *fakeAWS) {
				f.faults["CreateModel"] = []string{"AccessDeniedException: User: arn:aws:iam::1:user/u is not authorized to perform: iam:PassRole on resource: arn:aws:iam::123456789012:role/sagemaker because no identity-based policy allows the iam:PassRole action"}
			},
			wantErr: "access denied: iam:PassRole on arn:aws:iam::123456789012:role/sagemaker is missing",
		},
		{
			name: "a permission is denied",
			fresh: func(f *fakeAWS) {
				f.faults["CreateModel"] = []string{"AccessDeniedException: User: u is not authorized to perform: sagemaker:CreateModel on resource: r with an explicit deny in a service control policy"}
			},
			wantErr: "access denied: sagemaker:CreateModel on r is forbidden by a policy",
		},
		{
			name: "another account's role",
			fresh: func(f *fakeAWS) {
				f.faults["CreateModel"] = []string{"AccessDeniedException: Cross-account pass role is not allowed."}
			},
			wantErr: "--role is of another account than the credentials",
		},
		{
			name: "an image that is not there",
			fresh: func(f *fakeAWS) {
				f.faults["CreateModel"] = []string{"ValidationException: Requested image 123456789012.dkr.ecr.eu-west-1.amazonaws.com/millrace:1.0 not found."}
			},
			wantErr: "the image was not found: check its repository and tag in ECR in eu-west-1",
		},
		{
			name: "an instance type that is not there",
			fresh: func(f *fakeAWS) {
				f.faults["CreateEndpointConfig"] = []string{"ValidationException: 1 validation error detected: Value 'ml.c9.huge' at 'productionVariants.1.member.instanceType' failed to satisfy constraint: Member must satisfy enum value set: [ml.r7i.48xlarge]"}
			},
			want:    created[:1],
			wantErr: "SageMaker has no instance type ml.c9.huge in eu-west-1",
			wantOut: "what has been created so far is kept for the next try",
		},
		{
			name: "a model that the role may not read",
			fresh: func(f *fakeAWS) {
				refused := `ValidationException: Could not access model data at s3://models/llama/. Please ensure that the role "r" exists and that its trust relationship policy allows the action "sts:AssumeRole".`
				f.faults["CreateModel"] = []string{refused, refused, refused, refused, refused, refused}
			},
			wantErr: "the role cannot read the model: sagemaker.amazonaws.com must be trusted to assume it, it needs s3:GetObject and s3:ListBucket there",
			wantOut: "try 6 of 6",
		},
	} {
		t.Run(d.name, d.run)
	}
}

func TestDeployGoesOnAfterAFailure(t *testing.T) {
	f, s := newFake(t), testSpec()
	c, _ := f.dial(false)
	f.faults["CreateEndpoint"] = []string{"ResourceLimitExceeded: none left"}
	if err := c.Deploy(context.Background(), s, true, nil); err == nil {
		t.Fatal("no error")
	}
	f.took()
	if err := c.Deploy(context.Background(), s, true, nil); err != nil {
		t.Fatal(err)
	}
	if got := f.took(); !slices.Equal(got, created[2:]) {
		t.Errorf("calls %q, want %q", got, created[2:])
	}
}

type writerFunc func([]byte) (int, error)

func (w writerFunc) Write(p []byte) (int, error) { return w(p) }

func TestDeployStopsWaiting(t *testing.T) {
	f, s := newFake(t), testSpec()
	f.course = []string{"Creating"}
	c, _ := f.dial(false)
	ctx, cancel := context.WithCancel(context.Background())
	c.Poll = time.Minute
	c.Out = writerFunc(func(line []byte) (int, error) {
		if strings.Contains(string(line), "endpoint chat: Creating") {
			cancel()
		}
		return len(line), nil
	})
	err := c.Deploy(ctx, s, true, nil)
	for _, want := range []string{"stopped waiting", "millrace sagemaker status chat", "millrace sagemaker delete chat"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q in it", err, want)
		}
	}
}

func TestDeployWithoutRole(t *testing.T) {
	f, s := newFake(t), testSpec()
	c, _ := f.dial(false)
	s.Role = ""
	if err := c.Deploy(context.Background(), s, true, nil); err == nil || !strings.Contains(err.Error(), "--role is missing") {
		t.Errorf("error %v", err)
	}
	if got := f.took(); got != nil {
		t.Errorf("calls %q, want none", got)
	}
}

func TestDelete(t *testing.T) {
	ctx := context.Background()
	for _, tt := range []struct {
		name    string
		before  func(*fakeAWS)
		removal Removal
		want    []string
		wantErr string
	}{
		{name: "all", before: func(*fakeAWS) {}, want: []string{"DeleteEndpoint chat", "DeleteEndpointConfig chat-#", "DeleteModel chat-#"}},
		{
			name: "the log too", before: func(*fakeAWS) {}, removal: Removal{KeepModel: true, Logs: true},
			want: []string{"DeleteEndpoint chat", "DeleteEndpointConfig chat-#", "DeleteLogGroup /aws/sagemaker/Endpoints/chat"},
		},
		{
			name: "what an earlier run has left", before: func(f *fakeAWS) { delete(f.endpoints, "chat") },
			want: []string{"DeleteEndpointConfig chat-#", "DeleteModel chat-#"},
		},
		{
			name: "others' parts stay", before: func(f *fakeAWS) {
				f.models["chat-0123456789"] = map[string]any{}
				f.configs["chat-bot-0123456789"] = map[string]any{}
				f.tags[fakeARN+"endpoint-config/chat-bot-0123456789"] = []any{map[string]any{"Key": tagKey, "Value": "chat-bot"}}
			},
			want: []string{"DeleteEndpoint chat", "DeleteEndpointConfig chat-#", "DeleteModel chat-#"},
		},
		{
			name: "one that is being created is waited for", before: func(f *fakeAWS) { f.endpoints["chat"].course = []string{"Creating", "Creating"} },
			want: []string{"DeleteEndpoint chat", "DeleteEndpoint chat", "DeleteEndpointConfig chat-#", "DeleteModel chat-#"},
		},
		{
			name: "somebody else's", before: func(f *fakeAWS) { f.tags[fakeARN+"endpoint/chat"] = nil },
			wantErr: "was not made by this command",
		},
		{
			name: "nothing there", before: func(f *fakeAWS) { clear(f.endpoints); clear(f.models); clear(f.configs) },
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFake(t)
			c, _ := f.dial(false)
			if err := c.Deploy(ctx, testSpec(), true, nil); err != nil {
				t.Fatal(err)
			}
			f.took()
			tt.before(f)
			_, err := c.Delete(ctx, "chat", tt.removal)
			if (err == nil) != (tt.wantErr == "") || err != nil && !strings.Contains(err.Error(), tt.wantErr) {
				t.Errorf("error %v, want %q", err, tt.wantErr)
			}
			if got := f.took(); !slices.Equal(got, tt.want) {
				t.Errorf("calls %q, want %q", got, tt.want)
			}
		})
	}
}
