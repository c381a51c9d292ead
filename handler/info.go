package handler

import (
	"fmt"
	"net/http"
	"strconv"
)

// health handles GET /health, /ping and /. It never waits for the engine.
func (s *Server) health(x *exchange) error {
	unhealthy := func(format string, args ...any) error {
		return failure(http.StatusServiceUnavailable, "healthcheck", format, args...)
	}
	m := s.model.Load()
	switch {
	case s.draining.Load():
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
	str(`,"model_sha":`, o.ModelSHA)
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
	x.out = append(b, '}')
	writeJSON(x.w, http.StatusOK, x.out)
	return nil
}

// models handles GET /v1/models.
func (s *Server) models(x *exchange) error {
	id := appendString(nil, s.opt.ModelID)
	x.out = fmt.Appendf(x.out[:0], `{"object":"list","data":[{"id":%s,"object":"model","created":0,"owned_by":%s}]}`, id, id)
	writeJSON(x.w, http.StatusOK, x.out)
	return nil
}
