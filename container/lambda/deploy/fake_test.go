package deploy

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace-ai/millrace/internal/account"
)

// fakeAWS is Lambda's control plane, IAM, STS and CloudWatch Logs, as far as they
// are asked, with one function, and can be made to fail. The client asks one
// thing at a time, so there is no lock.
type fakeAWS struct {
	t   *testing.T
	url string

	function map[string]any // its configuration; nil: there is none
	tags     map[string]any
	image    string
	changed  bool           // since the last version
	versions []string       // that are published
	states   []string       // of what is looked at next; the last one stays
	reason   [2]string      // code and text of a state Failed
	failed   string         // the version that is Failed
	alias    string         // the version that live is on
	link     map[string]any // the URL's configuration
	policy   []string       // statements of the alias's policy
	used     string         // a version that another alias uses
	broken   bool           // the last update has failed; the next one does not
	secret   bool           // the caller may not read tags
	roles    map[string]string
	log      []string
	failures []string            // what a filter finds in the log
	faults   map[string][]string // by operation: errors to answer with before it works, "STATUS CODE: message"
	calls    []string            // what changes something
	next     int                 // the number of the next version
}

func newFake(t *testing.T) *fakeAWS {
	f := &fakeAWS{t: t, roles: map[string]string{}, faults: map[string][]string{}, states: []string{"Active"}, next: 1}
	server := httptest.NewServer(f)
	t.Cleanup(server.Close)
	f.url = server.URL
	for name, value := range map[string]string{
		"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "eu-west-1",
		"AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null", "AWS_EC2_METADATA_DISABLED": "true", "AWS_PROFILE": "",
	} {
		t.Setenv(name, value)
	}
	return f
}

// dial returns a client of the fake that looks often, and its progress.
func (f *fakeAWS) dial(dry bool) (*Client, *bytes.Buffer) {
	f.t.Helper()
	out := &bytes.Buffer{}
	c, err := Dial(context.Background(), account.Access{Endpoint: f.url}, dry, out)
	if err != nil {
		f.t.Fatal(err)
	}
	c.Poll = time.Millisecond
	return c, out
}

// took returns the calls that changed something since it was last asked.
func (f *fakeAWS) took() []string {
	calls := f.calls
	f.calls = nil
	return calls
}

func (f *fakeAWS) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Content-Type") == "application/x-www-form-urlencoded" {
		f.query(w, r)
		return
	}
	if _, operation, ok := strings.Cut(r.Header.Get("X-Amz-Target"), "."); ok {
		f.logs(w, operation)
		return
	}
	var in map[string]any
	if raw, _ := io.ReadAll(r.Body); len(raw) > 0 {
		if err := json.Unmarshal(raw, &in); err != nil {
			f.t.Errorf("%s %s: %v", r.Method, r.URL, err)
		}
	}
	name, out, err := f.answer(r, in)
	if r.Method != http.MethodGet {
		f.calls = append(f.calls, name)
	}
	w.Header().Set("Content-Type", "application/json")
	if err != nil {
		status, code, message := 0, "", ""
		if n, _ := fmt.Sscanf(err.Error(), "%d %s", &status, &code); n != 2 {
			f.t.Fatal(err)
		}
		_, message, _ = strings.Cut(err.Error(), ": ")
		w.Header().Set("X-Amzn-ErrorType", strings.TrimSuffix(code, ":"))
		w.WriteHeader(status)
		out = map[string]string{"Message": message}
	}
	if err := json.NewEncoder(w).Encode(out); err != nil {
		f.t.Error(err)
	}
}

var errMissing = fmt.Errorf("404 ResourceNotFoundException: Function not found")

// state is the next one in their course.
func (f *fakeAWS) state() string {
	state := f.states[0]
	if len(f.states) > 1 {
		f.states = f.states[1:]
	}
	return state
}

// described is the configuration with its state.
func (f *fakeAWS) described(version string) map[string]any {
	out := map[string]any{"State": f.state(), "LastUpdateStatus": "Successful", "Version": version}
	for key, value := range f.function {
		out[key] = value
	}
	if f.broken {
		out["LastUpdateStatus"] = "Failed"
	}
	if version != "" && version == f.failed {
		out["State"] = "Failed"
	}
	out["StateReasonCode"], out["StateReason"] = f.reason[0], f.reason[1]
	return out
}

func (f *fakeAWS) answer(r *http.Request, in map[string]any) (name string, out any, err error) {
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")[1:] // after the API's date
	qualifier := r.URL.Query().Get("Qualifier")
	name = r.Method + " " + strings.Join(parts, "/")
	if qualifier != "" {
		name += ":" + qualifier
	}
	if faults := f.faults[name]; len(faults) > 0 {
		f.faults[name] = faults[1:]
		return name, nil, fmt.Errorf("%s", faults[0])
	}
	if parts[0] == "tags" {
		f.tags, _ = in["Tags"].(map[string]any)
		return name, map[string]any{}, nil
	}
	switch path := strings.Join(parts[min(2, len(parts)):], "/"); {
	case name == "POST functions":
		f.tags, _ = in["Tags"].(map[string]any)
		f.image, _ = in["Code"].(map[string]any)["ImageUri"].(string)
		f.function, f.changed = in, true
		delete(in, "Tags")
		delete(in, "Code")
		in["FunctionArn"] = "arn:aws:lambda:eu-west-1:123456789012:function:small"
		return name, in, nil
	case f.function == nil:
		return name, nil, errMissing
	case r.Method == http.MethodGet && path == "" && f.secret:
		return name, map[string]any{"Configuration": f.described(""), "TagsError": map[string]any{"ErrorCode": "AccessDenied", "Message": "not authorized"}}, nil
	case r.Method == http.MethodGet && path == "":
		return name, map[string]any{"Configuration": f.described(""), "Tags": f.tags, "Code": map[string]any{"ImageUri": f.image}}, nil
	case r.Method == http.MethodGet && path == "configuration":
		return name, f.described(qualifier), nil
	case r.Method == http.MethodPut && path == "code":
		f.image, f.changed, f.broken = in["ImageUri"].(string), true, false
		f.function["Architectures"] = in["Architectures"]
		return name, map[string]any{}, nil
	case r.Method == http.MethodPut && path == "configuration":
		f.changed = true
		for key, value := range in {
			f.function[key] = value
		}
		return name, map[string]any{}, nil
	case r.Method == http.MethodPost && path == "versions":
		if f.changed || len(f.versions) == 0 {
			f.versions = append(f.versions, fmt.Sprint(f.next))
			f.next++
		}
		f.changed = false
		return name, map[string]any{"Version": f.versions[len(f.versions)-1]}, nil
	case r.Method == http.MethodGet && path == "versions":
		rows := []any{map[string]any{"Version": "$LATEST"}}
		for _, v := range f.versions {
			rows = append(rows, map[string]any{"Version": v})
		}
		return name, map[string]any{"Versions": rows}, nil
	case r.Method == http.MethodDelete && path == "" && qualifier != "":
		if qualifier == f.used {
			return name, nil, fmt.Errorf("409 ResourceConflictException: an alias uses it")
		}
		f.versions = slices.DeleteFunc(f.versions, func(v string) bool { return v == qualifier })
		return name, map[string]any{}, nil
	case r.Method == http.MethodDelete && path == "":
		f.function, f.versions, f.alias, f.link, f.policy = nil, nil, "", nil, nil
		return name, map[string]any{}, nil
	case path == "policy" && r.Method == http.MethodPost:
		if slices.Contains(f.policy, in["StatementId"].(string)) {
			return name, nil, fmt.Errorf("409 ResourceConflictException: it exists")
		}
		f.policy = append(f.policy, in["StatementId"].(string))
		return name, map[string]any{}, nil
	case strings.HasPrefix(path, "policy/"):
		f.policy = slices.DeleteFunc(f.policy, func(id string) bool { return id == parts[3] })
		return name, map[string]any{}, nil
	case strings.HasPrefix(path, "aliases"):
		return name, map[string]any{"FunctionVersion": f.alias, "Name": Alias}, f.aliases(r.Method, in)
	case path == "url":
		return name, f.link, f.urls(r.Method, in)
	}
	f.t.Errorf("%s: not expected", name)
	return name, nil, errMissing
}

func (f *fakeAWS) aliases(method string, in map[string]any) error {
	if method == http.MethodGet && f.alias == "" {
		return errMissing
	}
	if method != http.MethodGet {
		f.alias = in["FunctionVersion"].(string)
	}
	return nil
}

func (f *fakeAWS) urls(method string, in map[string]any) error {
	switch {
	case method == http.MethodPost:
		in["FunctionUrl"] = "https://small.lambda-url.eu-west-1.on.aws/"
		f.link = in
	case f.link == nil:
		return errMissing
	case method == http.MethodDelete:
		f.link = nil
	case method == http.MethodPut:
		f.link["AuthType"], f.link["InvokeMode"] = in["AuthType"], in["InvokeMode"]
	}
	return nil
}

// logs is CloudWatch Logs.
func (f *fakeAWS) logs(w http.ResponseWriter, operation string) {
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	rows := []any{}
	for _, line := range f.log {
		rows = append(rows, map[string]any{"message": line + "\n"})
	}
	var out any = map[string]any{"events": rows}
	switch operation {
	case "DescribeLogStreams":
		out = map[string]any{"logStreams": []any{map[string]any{"logStreamName": "s", "creationTime": time.Now().UnixMilli()}}}
	case "FilterLogEvents":
		rows = nil
		for _, line := range f.failures {
			rows = append(rows, map[string]any{"message": line + "\n"})
		}
		out = map[string]any{"events": rows}
	case "DeleteLogGroup":
		f.calls = append(f.calls, operation)
	}
	if err := json.NewEncoder(w).Encode(out); err != nil {
		f.t.Error(err)
	}
}

// query is IAM and STS.
func (f *fakeAWS) query(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		f.t.Error(err)
	}
	operation, name := r.Form.Get("Action"), r.Form.Get("RoleName")
	if !strings.HasPrefix(operation, "Get") {
		f.calls = append(f.calls, operation+" "+name)
	}
	_, there := f.roles[name]
	result := ""
	switch operation {
	case "GetCallerIdentity":
		result = "<Account>123456789012</Account>"
	case "CreateRole", "PutRolePolicy":
		f.roles[name] = r.Form.Get("PolicyDocument")
	default:
		if !there {
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, "<ErrorResponse><Error><Type>Sender</Type><Code>NoSuchEntity</Code><Message>none</Message></Error></ErrorResponse>")
			return
		}
		switch operation {
		case "GetRole":
			result = "<Role><RoleName>" + name + "</RoleName><Tags><member><Key>" + tagKey + "</Key><Value>small</Value></member></Tags></Role>"
		case "DeleteRole":
			delete(f.roles, name)
		}
	}
	fmt.Fprintf(w, "<%[1]sResponse><%[1]sResult>%[2]s</%[1]sResult></%[1]sResponse>", operation, result)
}
