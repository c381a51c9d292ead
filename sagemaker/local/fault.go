package local

import (
	"encoding/json"
	"fmt"
	"net/http"
	"unicode/utf8"
)

// messageLimit is the longest message of an error, in bytes.
const messageLimit = 2048

// fault is an error answer of the runtime API: an error type that the SDKs
// know, a status, and the members of the JSON body.
type fault struct {
	kind    string
	status  int
	code    string // member ErrorCode; "": none
	message string

	model    bool // a ModelError, with the members below
	original int  // status of the container, 0: none came
	text     string
	logs     string
}

func (f *fault) Error() string { return f.kind + ": " + f.message }

func invalid(format string, args ...any) *fault {
	return &fault{kind: "ValidationError", status: http.StatusBadRequest, message: fmt.Sprintf(format, args...)}
}

// constraint is an invalid parameter in the words all AWS services use.
func constraint(value, member, rule string) *fault {
	return invalid("1 validation error detected: Value '%s' at '%s' failed to satisfy constraint: %s", cut(value, 256), member, rule)
}

func unavailable(format string, args ...any) *fault {
	return &fault{kind: "ServiceUnavailable", status: http.StatusServiceUnavailable, message: fmt.Sprintf(format, args...)}
}

func internal(format string, args ...any) *fault {
	return &fault{kind: "InternalFailure", status: http.StatusInternalServerError, message: fmt.Sprintf(format, args...)}
}

// ofHTTP2 is the fault as the runtime's HTTP/2 API names it.
func (f *fault) ofHTTP2() *fault {
	named := *f
	switch f.kind {
	case "ValidationError":
		named.kind = "InputValidationError"
	case "InternalFailure":
		named.kind = "InternalServerError"
	case "ServiceUnavailable":
		named.kind = "ServiceUnavailableError"
	}
	return &named
}

// write sends the fault as REST-JSON services do: the type in a header, the
// members as JSON.
func (f *fault) write(w http.ResponseWriter) {
	members := map[string]any{"Message": cut(f.message, messageLimit)}
	if f.code != "" {
		members["ErrorCode"] = f.code
	}
	if f.model {
		members["OriginalStatusCode"] = f.original
		members["OriginalMessage"] = cut(f.text, messageLimit)
		members["LogStreamArn"] = f.logs
	}
	body, err := json.Marshal(members)
	if err != nil { // strings and a number marshal always
		panic(err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Amzn-ErrorType", f.kind)
	w.WriteHeader(f.status)
	_, _ = w.Write(body) // a caller that has left needs no error
}

// modelError is what the caller sees of a container's answer that is not 2xx,
// or of none at all (status 0). who is the container's name.
func (c *Config) modelError(who string, status int, text string) *fault {
	side, code := "server", "INTERNAL_FAILURE_FROM_MODEL"
	if status >= 300 && status < 500 {
		side, code = "client", "CLIENT_ERROR_FROM_MODEL"
	}
	group := "/aws/sagemaker/Endpoints/" + c.Name
	see := fmt.Sprintf("See https://%[1]s.console.aws.amazon.com/cloudwatch/home?region=%[1]s#logEventViewer:group=%[2]s in account %[3]s for more information.",
		c.Region, group, c.Account)
	head := fmt.Sprintf("Received %s error (%d) from %s with message \"", side, status, who)
	room := max(0, messageLimit-len(head)-len(see)-len("\". "))
	return &fault{
		kind:     "ModelError",
		status:   http.StatusFailedDependency,
		code:     code,
		message:  head + cut(text, room) + "\". " + see,
		model:    true,
		original: status,
		text:     text,
		logs:     fmt.Sprintf("arn:aws:logs:%s:%s:log-group:%s", c.Region, c.Account, group),
	}
}

// timedOut is the ModelError of a container that takes too long. The status
// that clients know it by is 0.
func (c *Config) timedOut(who string) *fault {
	return c.modelError(who, 0, fmt.Sprintf("Your invocation timed out while waiting for a response from container %s. "+
		"Review the latency metrics for each container in Amazon CloudWatch, resolve the issue, and try again.", who))
}

// crashed is the ModelError of a container that closes the connection without
// an answer.
func (c *Config) crashed(who string, err error) *fault {
	return c.modelError(who, 0, fmt.Sprintf("An error occurred while handling request as the model process exited. (%v)", err))
}

// cut returns the first limit bytes of s, less a character that would be cut
// in two, with invalid UTF-8 replaced.
func cut(s string, limit int) string {
	if len(s) > limit {
		for limit > 0 && !utf8.RuneStart(s[limit]) {
			limit--
		}
		s = s[:limit]
	}
	return toValid(s)
}

func toValid(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	return string([]rune(s))
}
