package local

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
)

// operation is one of the runtime API's calls.
type operation int

const (
	opInvoke operation = iota
	opStream
	opAsync
	opOpenAI
	opDuplex
)

// call is one request of a caller, checked as the platform checks it.
type call struct {
	op        operation
	component string
	header    http.Header // what the container gets
	session   string      // "", newSession or an id
	id        string      // inference id, "" if the caller gives none
	prefixID  string      // tells prefixes of applications apart, "" if the caller gives none
	body      []byte
}

const (
	amzn       = "X-Amzn-Sagemaker-"
	newSession = "NEW_SESSION"

	headerAttributes = amzn + "Custom-Attributes"
	headerInference  = amzn + "Inference-Id"
	headerSession    = amzn + "Session-Id"
	headerNewSession = amzn + "New-Session-Id"
	headerClosed     = amzn + "Closed-Session-Id"
	headerComponent  = amzn + "Inference-Component"
	headerModel      = amzn + "Target-Model"
	headerVariant    = amzn + "Target-Variant"
	headerHostname   = amzn + "Target-Container-Hostname"
	headerExplain    = amzn + "Enable-Explanations"
	headerPrefix     = amzn + "Prefix-Aware-Id"
	headerAccept     = amzn + "Accept"
	headerType       = amzn + "Content-Type"
	headerPath       = amzn + "Model-Invocation-Path"
	headerQuery      = amzn + "Model-Query-String"
	headerAdapter    = amzn + "Adapter-Identifier"
	headerAlias      = amzn + "Adapter-Alias"
	headerInvoked    = "X-Amzn-Invoked-Production-Variant"
)

var (
	asciiPattern = regexp.MustCompile(`^[\t -~]*$`)
	namePattern  = regexp.MustCompile(`^[a-zA-Z0-9](-*[a-zA-Z0-9])*$`)
	printPattern = regexp.MustCompile(`^\S[ -~]*$`)
	pathPattern  = regexp.MustCompile(`^[A-Za-z0-9\-._]+(?:/[A-Za-z0-9\-._]+)*$`)
	queryPattern = regexp.MustCompile(`^[a-zA-Z0-9][A-Za-z0-9_-]*=(?:[A-Za-z0-9._~\-]|%[0-9A-Fa-f]{2})+(?:&[a-zA-Z0-9][A-Za-z0-9_-]*=(?:[A-Za-z0-9._~\-]|%[0-9A-Fa-f]{2})+)*$`)
	anySession   = regexp.MustCompile(`^(NEW_SESSION|[a-zA-Z0-9](-*[a-zA-Z0-9])*)$`)
)

// field is a header of the API model with its constraints.
type field struct {
	member, header string
	max            int
	pattern        *regexp.Regexp
}

var commonFields = []field{
	{"contentType", "Content-Type", 1024, asciiPattern},
	{"accept", "Accept", 1024, asciiPattern},
	{"customAttributes", headerAttributes, 1024, asciiPattern},
	{"inferenceId", headerInference, 64, printPattern},
}

var routedFields = []field{
	{"inferenceComponentName", headerComponent, 63, namePattern},
	{"targetVariant", headerVariant, 63, namePattern},
	{"targetContainerHostname", headerHostname, 63, namePattern},
	{"prefixAwareId", headerPrefix, 64, printPattern},
}

var fields = map[operation][]field{
	opInvoke: append([]field{
		{"sessionId", headerSession, 256, anySession},
		{"targetModel", headerModel, 1024, printPattern},
		{"enableExplanations", headerExplain, 64, printPattern},
	}, routedFields...),
	opStream: append([]field{
		{"sessionId", headerSession, 256, namePattern},
		{"accept", headerAccept, 1024, asciiPattern},
	}, routedFields...),
	opAsync: {
		{"contentType", headerType, 1024, asciiPattern},
		{"accept", headerAccept, 1024, asciiPattern},
	},
	opOpenAI: {{"sessionId", headerSession, 256, namePattern}},
	opDuplex: {
		{"targetVariant", headerVariant, 63, namePattern},
		{"modelInvocationPath", headerPath, 100, pathPattern},
		{"modelQueryString", headerQuery, 2048, queryPattern},
	},
}

// parse checks the request r for op and reads its body. The caller's names of
// endpoint and component come from the path, or the component from a header.
func (e *Endpoint) parse(r *http.Request, op operation) (*call, *fault) {
	if f := e.checkName(r.PathValue("endpoint")); f != nil {
		return nil, f
	}
	for _, f := range slices.Concat(fields[op], commonFields) {
		v := r.Header.Get(f.header)
		switch {
		case v == "":
		case len(v) > f.max:
			return nil, constraint(v, f.member, fmt.Sprintf("Member must have length less than or equal to %d", f.max))
		case !f.pattern.MatchString(v):
			return nil, constraint(v, f.member, "Member must satisfy regular expression pattern: "+f.pattern.String())
		}
	}
	c := &call{op: op, header: http.Header{}, session: r.Header.Get(headerSession), id: r.Header.Get(headerInference), prefixID: r.Header.Get(headerPrefix)}
	if c.component = r.PathValue("component"); c.component == "" {
		c.component = r.Header.Get(headerComponent)
	}
	if f := e.checkTargets(r.Header, c); f != nil {
		return nil, f
	}
	if op == opDuplex { // its body is the caller's half of the stream, and no header reaches the container
		return c, nil
	}
	c.passHeaders(r.Header)

	limit := e.cfg.Limits.Body
	if op == opAsync {
		limit = e.cfg.Limits.InlineBody
	}
	var f *fault
	c.body, f = readBody(r, limit)
	return c, f
}

// checkName knows one endpoint, and that only while it is in service: the
// runtime gives the same answer for names that never existed.
func (e *Endpoint) checkName(name string) *fault {
	if len(name) > 63 {
		return constraint(name, "endpointName", "Member must have length less than or equal to 63")
	}
	if !namePattern.MatchString(name) {
		return constraint(name, "endpointName", "Member must satisfy regular expression pattern: "+namePattern.String())
	}
	if name != e.cfg.Name || !e.fleet.inService() {
		return e.cfg.notFound(name)
	}
	return nil
}

func (c *Config) notFound(name string) *fault {
	return invalid("Endpoint %s of account %s not found.", name, c.Account)
}

// checkTargets refuses what addresses something this endpoint does not have.
func (e *Endpoint) checkTargets(h http.Header, c *call) *fault {
	if v := h.Get(headerVariant); v != "" && v != e.cfg.Variant {
		return invalid("Variant %s not found for endpoint %s.", v, e.cfg.Name)
	}
	if h.Get(headerModel) != "" {
		return invalid("Endpoint %s hosts a single model: TargetModel is for multi-model endpoints.", e.cfg.Name)
	}
	if h.Get(headerHostname) != "" {
		return invalid("Endpoint %s hosts a single container: TargetContainerHostname is for multi-container endpoints.", e.cfg.Name)
	}
	if h.Get(headerExplain) != "" {
		return invalid("Endpoint %s has no explainer: EnableExplanations needs one.", e.cfg.Name)
	}
	return e.checkComponent(c.component)
}

// checkComponent refuses a call for an inference component that the endpoint
// does not have, or that could not be created.
func (e *Endpoint) checkComponent(name string) *fault {
	_, adapter := e.cfg.Adapters[name]
	switch {
	case name == "" && e.cfg.Component != "":
		f := invalid("Inference Component Name header is required for endpoints to which you plan to deploy inference components. " +
			"Please include Inference Component Name header or consider using SageMaker models.")
		f.code = "INFERENCE_COMPONENT_NAME_MISSING"
		return f
	case name == "" || name == e.cfg.Component:
		return nil
	case adapter:
		if why := e.fleet.refusal(name); why != "" {
			return invalid("Inference Component %s is not in service. Its creation failed: %s", name, why)
		}
		return nil
	case e.cfg.Component == "" && len(e.cfg.Adapters) == 0:
		return invalid("Endpoint %s does not host inference components. Please remove the Inference Component Name header and try again.", e.cfg.Name)
	}
	return invalid("Inference Component %s of account %s not found.", name, e.cfg.Account)
}

// who is the name of the container in messages to the caller.
func (c *call) who() string {
	if c.component != "" {
		return c.component
	}
	return "primary"
}

// passHeaders copies the headers that reach the container: those AWS documents
// for containers, and no others.
func (c *call) passHeaders(h http.Header) {
	for _, name := range []string{"Content-Type", "Accept", headerAttributes, headerInference, headerSession} {
		if v := h.Get(name); v != "" {
			c.header.Set(name, v)
		}
	}
	if c.op == opStream || c.op == opAsync {
		c.rename(h, headerAccept, "Accept")
	}
	if c.op == opAsync {
		c.rename(h, headerType, "Content-Type")
	}
}

// rename passes the header from as to, in place of one the client library sent
// about its own conversation with the API.
func (c *call) rename(h http.Header, from, to string) {
	c.header.Del(to)
	if v := h.Get(from); v != "" {
		c.header.Set(to, v)
	}
}

func readBody(r *http.Request, limit int64) ([]byte, *fault) {
	tooLarge := func(n int64) *fault {
		return invalid("Request of %d bytes is too large: the payload may have at most %d bytes.", n, limit)
	}
	if r.ContentLength > limit {
		return nil, tooLarge(r.ContentLength)
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, limit+1))
	switch {
	case int64(len(body)) > limit:
		return nil, tooLarge(int64(len(body)))
	case errors.Is(err, io.ErrUnexpectedEOF):
		return nil, invalid("The request body ended after %d bytes.", len(body))
	case err != nil:
		return nil, invalid("The request body could not be read: %v.", err)
	}
	return body, nil
}
