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
	"sync"
	"testing"
	"time"

	"github.com/aws/smithy-go/encoding/cbor"

	"github.com/millrace-ai/millrace/internal/account"
)

// fakeAWS is SageMaker's control plane, CloudWatch Logs and S3, as far as they
// are asked, and can be made to fail.
type fakeAWS struct {
	t   *testing.T
	url string

	mu         sync.Mutex
	models     map[string]map[string]any
	configs    map[string]map[string]any
	endpoints  map[string]*fakeEndpoint
	tags       map[string][]any  // by ARN
	roles      map[string]string // policy by name
	rolesTag   string            // of every role; "": the endpoint's
	log        []string          // of the newest container; older ones have written "old"
	objects    map[string][]byte
	crcs       map[string]string
	uploads    map[string]map[int][]byte
	headStatus int                 // of every HeadObject; 0: as the object is
	calls      []string            // what changes something: operation and name
	faults     map[string][]string // by operation: errors to answer with before it works, "CODE: message"
	// How the next endpoint that is created or updated goes on: a status for each
	// look, the last one stays; with what reason, and whether it goes back.
	course   []string
	reason   string
	rollback bool
	slow     bool // the endpoint names the new configuration only once it serves it
}

type fakeEndpoint struct {
	config   string
	course   []string
	reason   string
	previous string // configuration to go back to at the end of course
	pending  string // configuration that it will have at the end of course
}

const (
	fakeARN         = "arn:aws:sagemaker:eu-west-1:123456789012:"
	endpointCreated = 1.79e9 // seconds
)

func newFake(t *testing.T) *fakeAWS {
	f := &fakeAWS{
		t: t, models: map[string]map[string]any{}, configs: map[string]map[string]any{}, endpoints: map[string]*fakeEndpoint{},
		tags: map[string][]any{}, roles: map[string]string{}, faults: map[string][]string{}, objects: map[string][]byte{}, crcs: map[string]string{},
		uploads: map[string]map[int][]byte{}, course: []string{"Creating", "InService"},
	}
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

func (f *fakeAWS) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, operation, ok := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
	if r.Header.Get("Content-Type") == "application/x-www-form-urlencoded" {
		f.query(w, r)
		return
	}
	if strings.HasSuffix(r.URL.Path, "/operation/GetMetricData") {
		f.metrics(w)
		return
	}
	if !ok {
		f.s3(w, r)
		return
	}
	if faults := f.faults[operation]; len(faults) > 0 {
		f.faults[operation] = faults[1:]
		f.fail(w, faults[0])
		return
	}
	var in map[string]any
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		f.t.Errorf("%s: %v", operation, err)
	}
	out, err := f.answer(operation, in)
	if err != nil {
		f.fail(w, err.Error())
		return
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	if err := json.NewEncoder(w).Encode(out); err != nil {
		f.t.Error(err)
	}
}

func (f *fakeAWS) fail(w http.ResponseWriter, fault string) {
	code, message, _ := strings.Cut(fault, ": ")
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	w.Header().Set("X-Amzn-ErrorType", code)
	w.WriteHeader(http.StatusBadRequest)
	if err := json.NewEncoder(w).Encode(map[string]string{"__type": code, "message": message}); err != nil {
		f.t.Error(err)
	}
}

// metrics answers as CloudWatch does, in CBOR: two minutes of traffic.
func (f *fakeAWS) metrics(w http.ResponseWriter) {
	w.Header().Set("Smithy-Protocol", "rpc-v2-cbor")
	w.Header().Set("Content-Type", "application/cbor")
	if faults := f.faults["GetMetricData"]; len(faults) > 0 {
		code, message, _ := strings.Cut(faults[0], ": ")
		w.WriteHeader(http.StatusBadRequest)
		_, _ = w.Write(cbor.Encode(cbor.Map{"__type": cbor.String(code), "message": cbor.String(message)}))
		return
	}
	results := cbor.List{}
	for id, values := range map[string][]float64{
		"invocations": {3, 2}, "client": {1, 0}, "server": {}, "sum": {900_000, 600_000}, "samples": {3, 2}, "most": {500_000, 400_000},
	} {
		list := cbor.List{}
		for _, v := range values {
			list = append(list, cbor.Float64(v))
		}
		results = append(results, cbor.Map{"Id": cbor.String(id), "Values": list})
	}
	_, _ = w.Write(cbor.Encode(cbor.Map{"MetricDataResults": results}))
}

func (f *fakeAWS) missing(kind, name string) error {
	return fmt.Errorf("ValidationException: Could not find %s %q", kind, fakeARN+kind+"/"+name)
}

func (f *fakeAWS) answer(operation string, in map[string]any) (any, error) {
	text := func(key string) string { s, _ := in[key].(string); return s }
	if !strings.HasPrefix(operation, "Describe") && !strings.HasPrefix(operation, "List") && operation != "GetLogEvents" {
		name := text("EndpointName")
		for _, key := range []string{"ModelName", "logGroupName", "ResourceArn"} {
			name += text(key)
		}
		if strings.HasSuffix(operation, "EndpointConfig") {
			name = text("EndpointConfigName")
		}
		f.calls = append(f.calls, operation+" "+name)
	}
	part := func(kind, key string, all map[string]map[string]any) (map[string]any, error) {
		if got, ok := all[text(key)]; ok {
			return got, nil
		}
		return nil, f.missing(kind, text(key))
	}
	create := func(kind, key string, all map[string]map[string]any) (any, error) {
		if _, ok := all[text(key)]; ok {
			return nil, fmt.Errorf("ValidationException: Cannot create already existing %s", kind)
		}
		arn := fakeARN + kind + "/" + text(key)
		all[text(key)], f.tags[arn] = in, in["Tags"].([]any)
		return map[string]any{}, nil
	}
	list := func(kind, key string, all map[string]map[string]any) any {
		rows := []any{}
		for name := range all {
			if strings.Contains(name, text("NameContains")) {
				rows = append(rows, map[string]any{key + "Name": name, key + "Arn": fakeARN + kind + "/" + name})
			}
		}
		return map[string]any{key + "s": rows}
	}
	switch operation {
	case "CreateModel":
		return create("model", "ModelName", f.models)
	case "DescribeModel":
		return part("model", "ModelName", f.models)
	case "ListModels":
		return list("model", "Model", f.models), nil
	case "DeleteModel":
		_, err := part("model", "ModelName", f.models)
		delete(f.models, text("ModelName"))
		return map[string]any{}, err
	case "CreateEndpointConfig":
		return create("endpoint-config", "EndpointConfigName", f.configs)
	case "DescribeEndpointConfig":
		return part("endpoint-config", "EndpointConfigName", f.configs)
	case "ListEndpointConfigs":
		return list("endpoint-config", "EndpointConfig", f.configs), nil
	case "DeleteEndpointConfig":
		_, err := part("endpoint-config", "EndpointConfigName", f.configs)
		delete(f.configs, text("EndpointConfigName"))
		return map[string]any{}, err
	case "ListTags":
		return map[string]any{"Tags": f.tags[text("ResourceArn")]}, nil
	case "AddTags":
		return map[string]any{}, nil
	case "DescribeLogStreams":
		if f.log == nil {
			return nil, fmt.Errorf("ResourceNotFoundException: The specified log group does not exist")
		}
		stream := func(name string, created float64) any {
			return map[string]any{"logStreamName": name, "creationTime": int64(created * 1000)}
		}
		return map[string]any{"logStreams": []any{stream("main/before", endpointCreated-1), stream("main/old", endpointCreated+1), stream("main/new", endpointCreated+2)}}, nil
	case "GetLogEvents":
		rows, lines := []any{}, f.log
		if text("logStreamName") != "main/new" {
			lines = []string{"old"}
		}
		for _, line := range lines {
			rows = append(rows, map[string]any{"message": line + "\n"})
		}
		return map[string]any{"events": rows}, nil
	case "DeleteLogGroup":
		return map[string]any{}, nil
	}
	return f.endpoint(operation, text("EndpointName"), in)
}

func (f *fakeAWS) endpoint(operation, name string, in map[string]any) (any, error) {
	e := f.endpoints[name]
	arn := fakeARN + "endpoint/" + name
	switch {
	case operation == "CreateEndpoint":
		f.tags[arn], _ = in["Tags"].([]any)
		f.endpoints[name] = &fakeEndpoint{config: in["EndpointConfigName"].(string), course: f.course, reason: f.reason}
		return map[string]any{"EndpointArn": arn}, nil
	case e == nil:
		return nil, f.missing("endpoint", name)
	case operation == "UpdateEndpoint":
		previous := ""
		if f.rollback {
			previous = e.config
		}
		next := &fakeEndpoint{config: in["EndpointConfigName"].(string), course: f.course, reason: f.reason, previous: previous}
		if f.slow {
			next.config, next.pending = e.config, next.config
		}
		f.endpoints[name] = next
		return map[string]any{"EndpointArn": arn}, nil
	case operation == "DeleteEndpoint":
		if status := e.course[0]; status == "Creating" || status == "Updating" {
			e.course = append(e.course[1:], "Failed")
			return nil, fmt.Errorf("ValidationException: Cannot update in-progress endpoint %q", arn)
		}
		e.course = []string{"Deleting", ""}
		return map[string]any{}, nil
	case operation == "DescribeEndpoint":
		status := e.course[0]
		if len(e.course) > 1 {
			e.course = e.course[1:]
		} else if e.previous != "" {
			e.config = e.previous
		} else if e.pending != "" {
			e.config, e.pending = e.pending, ""
		}
		if status == "" {
			delete(f.endpoints, name)
			return nil, f.missing("endpoint", name)
		}
		out := map[string]any{
			"EndpointName": name, "EndpointArn": arn, "EndpointConfigName": e.config, "EndpointStatus": status,
			"CreationTime": endpointCreated, "LastModifiedTime": endpointCreated + 60,
			"ProductionVariants": []any{map[string]any{"VariantName": variant, "CurrentInstanceCount": 1, "DesiredInstanceCount": 2}},
		}
		if e.pending != "" {
			out["PendingDeploymentSummary"] = map[string]any{"EndpointConfigName": e.pending}
		}
		if status == "Failed" || status == "InService" && e.previous != "" {
			out["FailureReason"] = e.reason
		}
		return out, nil
	}
	return nil, fmt.Errorf("UnknownOperationException: %s", operation)
}

// s3 keeps objects under BUCKET/KEY.
func (f *fakeAWS) s3(w http.ResponseWriter, r *http.Request) {
	key, query := strings.TrimPrefix(r.URL.Path, "/"), r.URL.Query()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		f.t.Error(err)
	}
	if strings.HasPrefix(r.Header.Get("X-Amz-Content-Sha256"), "STREAMING-") {
		f.t.Errorf("%s %s: a body in chunks, which the fake does not read", r.Method, key)
	}
	upload, part := query.Get("uploadId"), 0
	switch _, err := fmt.Sscan(query.Get("partNumber"), &part); {
	case r.Method == http.MethodHead && f.headStatus != 0:
		w.WriteHeader(f.headStatus)
	case r.Method == http.MethodHead:
		if _, ok := f.objects[key]; !ok {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(f.objects[key])))
	case r.Method == http.MethodPost && upload == "":
		f.uploads[key] = map[int][]byte{}
		fmt.Fprintf(w, "<InitiateMultipartUploadResult><UploadId>%s</UploadId></InitiateMultipartUploadResult>", "u1")
	case r.Method == http.MethodPut && err == nil:
		if faults := f.faults["UploadPart"]; len(faults) > 0 {
			f.faults["UploadPart"] = faults[1:]
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		f.uploads[key][part] = body
		w.Header().Set("ETag", fmt.Sprintf(`"%d"`, part))
	case r.Method == http.MethodPost:
		var whole []byte
		for n := 1; n <= len(f.uploads[key]); n++ {
			whole = append(whole, f.uploads[key][n]...)
		}
		f.objects[key], f.crcs[key] = whole, r.Header.Get("X-Amz-Checksum-Crc64nvme")
		f.calls = append(f.calls, "parts "+key)
		fmt.Fprint(w, `<CompleteMultipartUploadResult><ETag>"e"</ETag></CompleteMultipartUploadResult>`)
	case r.Method == http.MethodPut:
		f.objects[key], f.crcs[key] = body, r.Header.Get("X-Amz-Checksum-Crc64nvme")
		f.calls = append(f.calls, "put "+key)
	default:
		f.t.Errorf("%s %s: not expected", r.Method, r.URL)
	}
}

// took returns the calls that changed something since it was last asked, with
// digests in names replaced by #.
func (f *fakeAWS) took() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	calls := f.calls
	f.calls = nil
	for i, call := range calls {
		if m := partName.FindStringSubmatch(call); m != nil {
			calls[i] = m[1] + "-#"
		}
	}
	return slices.Clone(calls)
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
	case "CreateRole":
		f.roles[name] = ""
		f.rolesTag = r.Form.Get("Tags.member.1.Value")
	case "PutRolePolicy":
		f.roles[name] = r.Form.Get("PolicyDocument")
	default:
		if !there {
			w.WriteHeader(http.StatusNotFound)
			io.WriteString(w, "<ErrorResponse><Error><Type>Sender</Type><Code>NoSuchEntity</Code><Message>The role cannot be found.</Message></Error></ErrorResponse>")
			return
		}
		switch operation {
		case "GetRole":
			result = "<Role><RoleName>" + name + "</RoleName><Tags><member><Key>" + tagKey + "</Key><Value>" + f.rolesTag + "</Value></member></Tags></Role>"
		case "DeleteRole":
			delete(f.roles, name)
		}
	}
	fmt.Fprintf(w, "<%[1]sResponse><%[1]sResult>%[2]s</%[1]sResult></%[1]sResponse>", operation, result)
}
