package handler

import (
	"cmp"
	"net/http"
	"strconv"
	"strings"

	"github.com/millrace-ai/millrace/handler/body"
	"github.com/millrace-ai/millrace/internal/web"
)

// health handles GET /health and /ping. It never waits for the engine.
func (s *Server) health(x *exchange) error {
	unhealthy := func(format string, args ...any) error {
		return failure(http.StatusServiceUnavailable, "healthcheck", format, args...)
	}
	m := s.model.Load()
	switch {
	case s.draining.Load(), s.leaving.Load():
		return unhealthy("unhealthy: shutting down")
	case m == nil:
		return unhealthy("unhealthy: %s", *s.pending.Load())
	}
	if d := m.gen.Stalled(); d > s.opt.StallTimeout {
		return unhealthy("unhealthy: the device has been silent for %d s", int(d.Seconds()))
	}
	x.w.Header()["Content-Length"] = []string{"0"}
	x.w.WriteHeader(http.StatusOK)
	return nil
}

// root handles GET /, which is health's for programs. Browsers, the clients
// that ask for HTML, get the playground.
func (s *Server) root(x *exchange) error {
	x.w.Header().Add("Vary", "accept")
	if strings.Contains(x.r.Header.Get("Accept"), "text/html") {
		return redirectTo("playground/")(x)
	}
	return s.health(x)
}

// info handles GET /info.
func (s *Server) info(x *exchange) error {
	m, err := s.ready()
	if err != nil {
		return err
	}
	o := &s.opt
	b := x.out[:0]
	str := func(name, v string) {
		b = append(b, name...)
		if v == "" {
			b = append(b, "null"...)
			return
		}
		b = appendString(b, v)
	}
	num := func(name string, v int) {
		b = append(b, name...)
		b = strconv.AppendInt(b, int64(v), 10)
	}
	str(`{"model_id":`, o.ModelID)
	str(`,"model_sha":`, m.revision)
	str(`,"model_pipeline_tag":`, o.PipelineTag)
	num(`,"max_concurrent_requests":`, o.MaxConcurrentRequests)
	num(`,"max_best_of":`, o.MaxBestOf)
	num(`,"max_stop_sequences":`, o.MaxStopSequences)
	num(`,"max_input_tokens":`, m.limits.MaxInput)
	num(`,"max_total_tokens":`, m.limits.MaxTotal)
	num(`,"validation_workers":`, o.ValidationWorkers)
	num(`,"max_client_batch_size":`, o.MaxClientBatchSize)
	str(`,"router":`, "text-generation-router")
	str(`,"version":`, o.Version)
	str(`,"sha":`, o.SHA)
	str(`,"docker_label":`, o.DockerLabel)
	if m.sampling != (SamplingDefaults{}) {
		b = m.sampling.appendJSON(append(b, `,"sampling_defaults":`...))
	}
	if m.hardware != "" {
		str(`,"hardware":`, m.hardware)
	}
	if m.vision != nil {
		num(`,"max_images":`, o.MaxImages)
	}
	if names := m.adapters.Names(); len(names) > 0 {
		b = append(b, `,"adapters":[`...)
		for i, name := range names {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendString(b, name)
		}
		b = append(b, ']')
	}
	x.out = append(b, '}')
	web.WriteJSON(x.w, http.StatusOK, x.out)
	return nil
}

// models handles GET /v1/models.
func (s *Server) models(x *exchange) error {
	x.out = append(x.out[:0], `{"object":"list","data":[`...)
	x.out = s.appendModel(x.out, "")
	if m := s.model.Load(); m != nil {
		for _, name := range m.adapters.Names() {
			x.out = s.appendModel(append(x.out, ','), name)
		}
	}
	x.out = append(x.out, "]}"...)
	web.WriteJSON(x.w, http.StatusOK, x.out)
	return nil
}

const modelsPath = "/v1/models/"

// modelOf handles GET /v1/models/NAME, of which NAME may have slashes.
func (s *Server) modelOf(x *exchange) error {
	name := strings.TrimPrefix(x.r.URL.Path, modelsPath)
	if m := s.model.Load(); m != nil && !s.isBaseModel(name) {
		if _, ok := m.adapters.Get(name); ok {
			x.out = s.appendModel(x.out[:0], name)
			web.WriteJSON(x.w, http.StatusOK, x.out)
			return nil
		}
	}
	if name == "" || !s.isBaseModel(name) {
		e := failure(http.StatusNotFound, "not_found", "There is no model %q: this server has %q", body.Cut(name), s.opt.ModelID)
		e.param, e.code = "model", "model_not_found"
		return e
	}
	x.out = s.appendModel(x.out[:0], "")
	web.WriteJSON(x.w, http.StatusOK, x.out)
	return nil
}

// appendModel appends the object of the model, or of one of its adapters, with the
// length of the context once that is known, and an adapter's parent, as vLLM has them.
func (s *Server) appendModel(dst []byte, adapter string) []byte {
	dst = append(dst, `{"id":`...)
	dst = appendString(dst, cmp.Or(adapter, s.opt.ModelID))
	dst = append(dst, `,"object":"model","created":0,"owned_by":`...)
	dst = appendString(dst, s.opt.ModelID)
	if adapter != "" {
		dst = append(dst, `,"parent":`...)
		dst = appendString(dst, s.opt.ModelID)
	}
	if m := s.model.Load(); m != nil {
		dst = append(dst, `,"max_model_len":`...)
		dst = strconv.AppendInt(dst, int64(m.limits.MaxTotal), 10)
	}
	return append(dst, '}')
}
