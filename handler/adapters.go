package handler

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/millrace-ai/millrace/engine"
	"github.com/millrace-ai/millrace/engine/adapter"
	"github.com/millrace-ai/millrace/handler/body"
	"github.com/millrace-ai/millrace/internal/web"
)

const plainText = "text/plain; charset=utf-8"

type adapterKey struct{}

// WithAdapter gives a request's context the name of the adapter that it is for,
// whatever its body leaves out.
func WithAdapter(ctx context.Context, name string) context.Context {
	return context.WithValue(ctx, adapterKey{}, name)
}

// Adapter is an adapter that clients of a Server may ask for.
type Adapter struct {
	Name   string
	Source string // folder, s3://… or name on the hub
	Pinned bool   // once loaded, it stays
}

// updatable returns what keeps the adapters, if clients may change them.
func (s *Server) updatable() (*adapter.Manager, error) {
	if !s.opt.AdapterUpdates {
		return nil, failure(http.StatusForbidden, "forbidden", "Adapters cannot be changed while this server runs: start it with --allow-runtime-lora-updating")
	}
	m, err := s.ready()
	switch {
	case err != nil:
		return nil, err
	case !m.adaptable:
		return nil, failure(http.StatusBadRequest, "bad_request", "Adapters are not supported by the device %s", s.opt.Device)
	}
	return m.adapters, nil
}

// AddAdapter makes an adapter known. With load it is loaded, too, and not known if that
// fails; otherwise the first request for it loads it. With replace, another one of its
// name goes first. To add it again changes nothing. Its errors are answers.
func (s *Server) AddAdapter(ctx context.Context, a Adapter, load, replace bool) error {
	m, err := s.updatable()
	if err != nil {
		return err
	}
	if s.isBaseModel(a.Name) {
		return invalid("the name %q is that of the model", body.Cut(a.Name))
	}
	if replace {
		if err := m.Remove(a.Name); err != nil && !errors.Is(err, adapter.ErrUnknown) {
			return err
		}
	}
	added, err := m.Add(a.Name, a.Source, a.Pinned)
	switch {
	case errors.Is(err, adapter.ErrTaken):
		return failure(http.StatusConflict, "conflict", "%s", err)
	case errors.Is(err, adapter.ErrNoRoom):
		return failure(http.StatusInsufficientStorage, "overloaded", "%s", err)
	case err != nil:
		return invalid("%s", err)
	case !load:
		return nil
	}
	use, err := m.Use(ctx, a.Name)
	use.Release()
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return err
	case added:
		m.Remove(a.Name) //nolint:errcheck // another caller may have removed it
	}
	status, kind := http.StatusFailedDependency, "adapter"
	if errors.Is(err, adapter.ErrNoRoom) {
		status, kind = http.StatusInsufficientStorage, "overloaded"
	}
	e := failure(status, kind, "%s", err)
	e.Err = err
	return e
}

// RemoveAdapter makes an adapter unknown, and says whether it was known. Requests that
// use it go on.
func (s *Server) RemoveAdapter(name string) (bool, error) {
	m, err := s.updatable()
	if err != nil {
		return false, err
	}
	err = m.Remove(name)
	if errors.Is(err, adapter.ErrUnknown) {
		return false, nil
	}
	return err == nil, err
}

// ListAdapters returns all adapters by name.
func (s *Server) ListAdapters() (list []Adapter) {
	m := s.model.Load()
	if m == nil {
		return nil
	}
	for _, name := range m.adapters.Names() {
		if i, ok := m.adapters.Get(name); ok {
			list = append(list, Adapter{i.Name, i.Source, i.Pinned})
		}
	}
	return list
}

// adapterOf returns the name of the adapter that a request asks for, "" for the model
// itself.
func (s *Server) adapterOf(ctx context.Context, m *model, p *parameters) (string, error) {
	name, field := p.model, "model" // OpenAI's routes have no adapter_id, the others no model
	if p.adapterID.set {
		name, field = p.adapterID.v, "adapter_id"
	}
	known := func(name string) bool {
		_, ok := m.adapters.Get(name)
		return ok
	}
	if s.isBaseModel(name) || field == "model" && isFiller(name) && !known(name) {
		name = ""
	}
	if host, _ := ctx.Value(adapterKey{}).(string); host != "" {
		if name != "" && name != host {
			return "", invalid("`%s` %q is not the adapter %q that the request was sent to", field, body.Cut(name), body.Cut(host))
		}
		name, field = host, "adapter"
	}
	if name == "" || known(name) {
		return name, nil
	}
	what, list := "adapter", m.adapters.Names()
	if field == "model" {
		if s.opt.AnyModel && len(list) == 0 {
			return "", nil
		}
		what = "model"
	}
	const most = 10
	others := ""
	if len(list) > 0 {
		others = " and the adapters " + strings.Join(list[:min(len(list), most)], ", ")
		if len(list) > most {
			others += " …"
		}
	}
	e := invalid("there is no %s %q: this server serves %q (\"tgi\" is an alias)%s", what, body.Cut(name), s.opt.ModelID, others)
	e.param, e.code = field, "model_not_found"
	return "", e
}

// useAdapter makes the adapter that j asks for stay until the exchange ends. It is
// loaded first if it must be.
func (x *exchange) useAdapter(m *model, j *job) error {
	if j.adapter == "" {
		return nil
	}
	use, err := m.adapters.Use(x.r.Context(), j.adapter)
	if err != nil {
		return adapterFailure(err)
	}
	x.adapters = append(x.adapters, use)
	j.req.Adapter = use.ID
	return nil
}

// adapterFailure is an adapter that cannot be used now, or never.
func adapterFailure(err error) error {
	var e *Error
	var g *engine.Error
	switch {
	case errors.Is(err, adapter.ErrUnknown):
		e = invalid("%s", err)
	case errors.Is(err, adapter.ErrNoRoom):
		e = overloaded(err)
		e.Msg = "Model is overloaded: " + err.Error()
	case errors.Is(err, context.Canceled) || errors.As(err, &g):
		return err
	default:
		e = failure(http.StatusFailedDependency, "generation", "Request failed during generation: %s", err)
		e.label, e.Err = "generation", err
	}
	return e
}

// observeAdapters adds what a Manager does to the metrics.
func (s *Server) observeAdapters() {
	stats := func() adapter.Stats {
		if m := s.model.Load(); m != nil {
			return m.adapters.Stats()
		}
		return adapter.Stats{}
	}
	gauge := func(name, help string, value func(adapter.Stats) int64) {
		s.metrics.Gauge(name, help, func() float64 { return float64(value(stats())) })
	}
	total := func(name, help string, value func(adapter.Stats) int64) {
		s.metrics.Total(name, help, func(engine.Stats) int64 { return value(stats()) })
	}
	gauge("millrace_adapters", "LoRA adapters that requests may name", func(a adapter.Stats) int64 { return int64(a.Known) })
	gauge("millrace_adapters_loaded", "LoRA adapters that are loaded", func(a adapter.Stats) int64 { return int64(a.Loaded) })
	gauge("millrace_adapter_memory_bytes", "Memory that loaded LoRA adapters take", func(a adapter.Stats) int64 { return a.Bytes })
	gauge("millrace_adapter_memory_limit_bytes", "Memory that LoRA adapters may take", func(a adapter.Stats) int64 { return a.Memory })
	total("millrace_adapter_loads_total", "LoRA adapters loaded", func(a adapter.Stats) int64 { return a.Loads })
	total("millrace_adapter_load_failures_total", "LoRA adapters that could not be loaded", func(a adapter.Stats) int64 { return a.Failures })
	total("millrace_adapter_evictions_total", "LoRA adapters that made room for others", func(a adapter.Stats) int64 { return a.Evicted })
}

// loadAdapter handles POST /v1/load_lora_adapter, as vLLM has it.
func (s *Server) loadAdapter(x *exchange) error {
	var name, path string
	inPlace := false
	err := s.adapterBody(x, []string{"lora_name", "lora_path", "load_inplace"}, func(field int, r *body.Reader) (err error) {
		switch field {
		case 0:
			name, err = r.String()
		case 1:
			path, err = r.String()
		default:
			inPlace, err = r.Bool()
		}
		return err
	})
	if err != nil {
		return err
	}
	if name == "" || path == "" {
		return invalid("`lora_name` and `lora_path` must be provided")
	}
	if err := s.AddAdapter(x.r.Context(), Adapter{Name: name, Source: path}, true, inPlace); err != nil {
		return err
	}
	web.Write(x.w, http.StatusOK, plainText, []byte("Success: LoRA adapter '"+name+"' added successfully."))
	return nil
}

// unloadAdapter handles POST /v1/unload_lora_adapter, as vLLM has it.
func (s *Server) unloadAdapter(x *exchange) error {
	name := ""
	err := s.adapterBody(x, []string{"lora_name"}, func(_ int, r *body.Reader) (err error) {
		name, err = r.String()
		return err
	})
	if err != nil {
		return err
	}
	switch known, err := s.RemoveAdapter(name); {
	case err != nil:
		return err
	case !known:
		return failure(http.StatusNotFound, "not_found", "There is no adapter %q", body.Cut(name))
	}
	web.Write(x.w, http.StatusOK, plainText, []byte("Success: LoRA adapter '"+name+"' removed successfully."))
	return nil
}

// adapterBody reads the body of a request to load or unload an adapter.
func (s *Server) adapterBody(x *exchange, fields []string, set func(field int, r *body.Reader) error) error {
	if _, err := s.updatable(); err != nil {
		return err
	}
	if err := s.readBody(x); err != nil {
		return err
	}
	r := body.NewReader(x.body)
	err := r.Object("struct LoadLoRAAdapterRequest", fields, func(field int) error { return set(field, r) })
	if err != nil {
		return badBody(err)
	}
	return nil
}
