package config

import (
	"net"
	"regexp"
	"strings"
	"time"
)

// Hosting is how the server behaves as a container of SageMaker, whose
// platform sets some of these variables itself.
type Hosting struct {
	RequestDeadline    int    `name:"request-deadline" also:"SAGEMAKER_REQUEST_DEADLINE" min:"0" placeholder:"SECONDS" help:"Seconds after which an answer in one piece is cut and sent as it is; 0: never. Default: 58 on SageMaker, which waits 60, and never elsewhere or in a transform job."`
	StreamDeadline     int    `name:"stream-deadline" also:"SAGEMAKER_STREAM_DEADLINE" min:"0" placeholder:"SECONDS" help:"Seconds after which a stream is cut; 0: never. Default: 470 on SageMaker, which waits 480, and never elsewhere or in a transform job."`
	BatchTransform     bool   `name:"batch-transform" also:"SAGEMAKER_BATCH" help:"Serve a transform job: bodies of several JSON lines, whatever their content type, and no deadlines. SageMaker sets it."`
	StatefulSessions   bool   `name:"stateful-sessions" also:"SAGEMAKER_ENABLE_STATEFUL_SESSIONS" help:"Let clients open sessions, whose requests SageMaker sends to one instance."`
	SessionsExpiration int    `name:"sessions-expiration" also:"SAGEMAKER_SESSIONS_EXPIRATION" default:"1200" min:"1" max:"604800" help:"Seconds that a session lives."`
	SageMakerUsage     bool   `name:"sagemaker-usage" help:"Answer with token counts and times in X-Amzn-SageMaker-Custom-Attributes, the only one of our headers that SageMaker passes on."`
	ComputeType        string `name:"compute-type" placeholder:"NAME" help:"What answers call this machine in x-compute-type. Default: 1-cpu, by the device."`
	LambdaInvokeMode   string `name:"lambda-invoke-mode" default:"auto" enum:"auto,buffered,stream" placeholder:"auto|buffered|stream" help:"How answers leave a Lambda function: auto streams to direct calls that ask for a stream; stream also to function URLs and REST APIs, which must be set to stream; buffered never streams."`
	AnyModel           bool   `kong:"-"` // a request may call the model as it likes
	OnSageMaker        bool   `kong:"-"` // SageMaker has started the process
	QueueOutput        string `name:"queue-output" placeholder:"S3" help:"Where a Lambda function puts its answers to the messages of an SQS queue: s3://BUCKET/PREFIX/. Without it, it refuses them."`
	EMFNamespace       string `name:"emf-namespace" placeholder:"NAME" help:"Make CloudWatch metrics of each request's line in the log, in this namespace. Implies --json-output."`
}

// What is left out is settled by where the server runs.
const (
	sageMakerPayload = 25 << 20  // what SageMaker sends at most to a real-time endpoint
	transformPayload = 100 << 20 // and in a transform job
	lambdaPayload    = 6 << 20   // the longest event that Lambda has

	sageMakerAnswer = 58 // seconds; SageMaker gives up after 60
	sageMakerStream = 470
)

// queueOutput is a prefix in S3.
var queueOutput = regexp.MustCompile(`^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^?]*)?$`)

// emfNames are the namespaces that CloudWatch takes.
var emfNames = regexp.MustCompile(`^[0-9A-Za-z.\-_/#: ]{1,255}$`)

// settlePlace fills in what depends on where the server runs.
func (l *Loader) settlePlace(s *Serve) {
	settle := func(flag string, v *int, n int, why string) {
		if l.from[flag] == "" {
			*v, l.from[flag] = n, why
		}
	}
	payload := int(s.PayloadLimit)
	s.OnSageMaker = l.onSageMaker() && l.env["AWS_LAMBDA_RUNTIME_API"] == ""
	switch {
	case s.BatchTransform:
		settle("payload-limit", &payload, transformPayload, "a transform job's limit")
	case l.onSageMaker():
		settle("payload-limit", &payload, sageMakerPayload, "SageMaker's limit")
		settle("request-deadline", &s.RequestDeadline, sageMakerAnswer, "SageMaker's limit")
		settle("stream-deadline", &s.StreamDeadline, sageMakerStream, "SageMaker's limit")
		// SageMaker's OpenAI route and some clients send the endpoint's name, which
		// no variable tells.
		s.AnyModel = s.ServedModelName == ""
		if l.from["allow-runtime-lora-updating"] == "" {
			s.AllowRuntimeLoraUpdating, l.from["allow-runtime-lora-updating"] = true, "SageMaker"
		}
	case l.env["AWS_LAMBDA_RUNTIME_API"] != "":
		settle("payload-limit", &payload, lambdaPayload, "Lambda's limit")
	}
	s.PayloadLimit = int64(payload)
	if s.EMFNamespace != "" && l.from["json-output"] == "" {
		s.JSONOutput, l.from["json-output"] = true, "--emf-namespace"
	}
	switch {
	case l.from["json-output"] != "":
	case l.env["AWS_LAMBDA_RUNTIME_API"] != "":
		s.JSONOutput, l.from["json-output"] = strings.EqualFold(l.env["AWS_LAMBDA_LOG_FORMAT"], "JSON"), "Lambda's log format"
	case !l.Terminal:
		s.JSONOutput, l.from["json-output"] = true, "not a terminal"
	}
}

// checkHosting checks what needs more than a number's bounds.
func (l *Loader) checkHosting(s *Serve) error {
	if s.QueueOutput != "" && !queueOutput.MatchString(s.QueueOutput) {
		return errorf("%s: expected s3://BUCKET/PREFIX/", Setting{Flag: "queue-output", Value: s.QueueOutput, From: l.from["queue-output"]}.name())
	}
	if s.EMFNamespace == "" {
		return nil
	}
	set := Setting{Flag: "emf-namespace", Value: s.EMFNamespace, From: l.from["emf-namespace"]}
	switch {
	case !emfNames.MatchString(s.EMFNamespace) || strings.TrimSpace(s.EMFNamespace) == "":
		return errorf("%s: expected 1 to 255 letters, digits, blanks or .-_/#:", set.name())
	case strings.HasPrefix(s.EMFNamespace, "AWS/"):
		return errorf("%s: namespaces that begin with AWS/ are CloudWatch's own", set.name())
	case !s.JSONOutput:
		return errorf("%s: CloudWatch reads JSON only; take %s out", set.name(), Setting{Flag: "json-output", Value: "false", From: l.from["json-output"]}.name())
	}
	return nil
}

// notesOfHosting returns a note for each setting that the platform defeats.
func (l *Loader) notesOfHosting(s *Serve) (notes []string) {
	if s.APIKey != "" && l.onSageMaker() {
		set := Setting{Flag: "api-key", Value: "***", From: l.from["api-key"]}
		notes = append(notes, set.name()+" locks every caller out of an endpoint: SageMaker does not pass the header Authorization on, and checks permissions itself")
	}
	if s.APIKey == "" && net.ParseIP(s.Hostname).IsUnspecified() && !l.onSageMaker() && l.env["AWS_LAMBDA_RUNTIME_API"] == "" {
		notes = append(notes, "anyone who can reach this machine may use the model: set API_KEY to require a key, or --hostname=127.0.0.1 to listen on this machine alone")
	}
	return notes
}

// AnswerAfter is when an answer in one piece is cut, 0 for never.
func (h *Hosting) AnswerAfter() time.Duration { return time.Duration(h.RequestDeadline) * time.Second }

// StreamAfter is when a stream is cut, 0 for never.
func (h *Hosting) StreamAfter() time.Duration { return time.Duration(h.StreamDeadline) * time.Second }

// SessionLife is how long a session lives, 0 if there are none.
func (h *Hosting) SessionLife() time.Duration {
	if !h.StatefulSessions {
		return 0
	}
	return time.Duration(h.SessionsExpiration) * time.Second
}
