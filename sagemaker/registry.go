package sagemaker

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/millrace-ai/millrace/handler"
	"github.com/millrace-ai/millrace/handler/body"
	"github.com/millrace-ai/millrace/internal/web"
)

// The platform may load models (multi-model endpoints) and adapters (their own
// inference components) into a running container. Neither is possible here:
// the routes exist so that the platform and its users read why, in the form
// that they expect. What is not loaded is listed as nothing and can be deleted,
// so that a deployment that was refused can be taken down.

const (
	oneModel    = "this container serves one model; deploy each model as an endpoint or an inference component of its own"
	adaptersOff = "adapters are not enabled in this build; deploy the model with the adapter merged into its weights"
)

// addRegistry adds the routes of models and adapters.
func (h *Hosting) addRegistry() {
	routes := func(m handler.Methods) http.Handler { return h.api.Route(m) }
	h.routes["/models"] = routes(handler.Methods{
		http.MethodGet:  answerJSON(`{"models":[]}`),
		http.MethodPost: refuseModel,
	})
	h.routes["/adapters"] = routes(handler.Methods{
		http.MethodGet:  answerJSON(`{"adapters":[]}`),
		http.MethodPost: refuseAdapter,
	})
	one := func(w http.ResponseWriter, r *http.Request) error { return h.entry(w, r) }
	entries := routes(handler.Methods{http.MethodGet: one, http.MethodPost: one, http.MethodDelete: one})
	h.routes["/models/"], h.routes["/adapters/"] = entries, entries
}

// entry handles a path below /models/ or /adapters/.
//
//	/models/{model}  GET, DELETE     /adapters/{adapter}  GET, DELETE
//	/models/{model}/invoke  POST     /adapters/{adapter}/update  POST
//	/models/{model}/adapters …       as /adapters …
func (h *Hosting) entry(w http.ResponseWriter, r *http.Request) error {
	parts := strings.Split(strings.TrimPrefix(r.URL.EscapedPath(), "/"), "/")
	for i, p := range parts {
		if name, err := url.PathUnescape(p); err == nil {
			parts[i] = name
		}
	}
	if len(parts) > 2 && parts[0] == "models" && parts[2] == "adapters" {
		parts = parts[2:]
		if len(parts) == 1 {
			h.routes["/adapters"].ServeHTTP(w, r)
			return nil
		}
	}
	if len(parts) == 1 { // the slash between them was escaped
		return noEntry(r)
	}
	collection, name := parts[0], parts[1]
	rest := strings.Join(parts[2:], "/")
	switch {
	case collection == "adapters" && rest == "" && r.Method == http.MethodDelete:
		status, err := json.Marshal("Adapter " + body.Cut(name) + " is not loaded")
		if err != nil {
			return err
		}
		web.WriteJSON(w, http.StatusOK, fmt.Appendf(nil, `{"status":%s}`, status))
		return nil
	case collection == "adapters" && (rest == "" && r.Method == http.MethodGet || rest == "update" && r.Method == http.MethodPost):
		return notLoaded("adapter", name, adaptersOff)
	case collection == "models" && (rest == "" && r.Method != http.MethodPost || rest == "invoke" && r.Method == http.MethodPost):
		return notLoaded("model", name, oneModel)
	}
	return noEntry(r)
}

func noEntry(r *http.Request) error {
	return failure(http.StatusNotFound, "not_found", "There is no route %s %s", r.Method, body.Cut(r.URL.EscapedPath()))
}

func notLoaded(what, name, why string) error {
	return failure(http.StatusNotFound, "not_found", "The %s %q is not loaded: %s", what, body.Cut(name), why)
}

// refuseModel handles POST /models, which loads a model.
func refuseModel(http.ResponseWriter, *http.Request) error {
	return badRequest("Multi-model endpoints are not enabled: %s", oneModel)
}

// refuseAdapter handles POST /adapters, which loads an adapter.
func refuseAdapter(_ http.ResponseWriter, r *http.Request) error {
	const most = 64 << 10
	// LMI's clients put the fields into the query, the platform into the body.
	fields := struct{ Name, Src string }{r.URL.Query().Get("name"), r.URL.Query().Get("src")}
	text, err := io.ReadAll(io.LimitReader(r.Body, most))
	if err != nil {
		return badRequest("Failed to buffer the request body")
	}
	if len(text) > 0 {
		if err := json.Unmarshal(text, &fields); err != nil {
			return badRequest("The body of an adapter: expected a JSON object with name and src: %s", body.Cut(err.Error()))
		}
	}
	if fields.Name == "" || fields.Src == "" {
		return badRequest("The body of an adapter: expected name and src, found name %q and src %q", body.Cut(fields.Name), body.Cut(fields.Src))
	}
	return badRequest("The adapter %q cannot be loaded: %s", body.Cut(fields.Name), adaptersOff)
}

// noAdapters refuses a request for another model than the one that is served.
func noAdapters(header http.Header) error {
	if name := header.Get(headerAdapter); name != "" {
		return failure(http.StatusUnprocessableEntity, "validation",
			"X-Amzn-SageMaker-Adapter-Identifier: there is no adapter %q, none is loaded: %s", body.Cut(name), adaptersOff)
	}
	if name := header.Get(headerTargetModel); name != "" {
		return failure(http.StatusUnprocessableEntity, "validation",
			"X-Amzn-SageMaker-Target-Model: there is no model %q: %s", body.Cut(name), oneModel)
	}
	return nil
}

func answerJSON(body string) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, _ *http.Request) error {
		web.WriteJSON(w, http.StatusOK, []byte(body))
		return nil
	}
}
