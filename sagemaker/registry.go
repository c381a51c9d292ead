package sagemaker

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/millrace-ai/millrace/handler"
	"github.com/millrace-ai/millrace/handler/body"
	"github.com/millrace-ai/millrace/internal/web"
)

// The platform may load models (multi-model endpoints) and adapters (their own
// inference components) into a running container. Adapters are the API's; of models
// there is one, and the routes exist so that the platform and its users read why, in
// the form that they expect. What is not loaded can be deleted, so that a deployment
// that failed can be taken down.

const oneModel = "this container serves one model; deploy each model as an endpoint or an inference component of its own"

// addRegistry adds the routes of models and adapters.
func (h *Hosting) addRegistry() {
	routes := func(m handler.Methods) http.Handler { return h.api.Route(m) }
	h.routes["/models"] = routes(handler.Methods{
		http.MethodGet:  answerJSON(`{"models":[]}`),
		http.MethodPost: refuseModel,
	})
	h.routes["/adapters"] = routes(handler.Methods{
		http.MethodGet:  h.listAdapters,
		http.MethodPost: func(w http.ResponseWriter, r *http.Request) error { return h.addAdapter(w, r, "") },
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
		return h.removeAdapter(w, name)
	case collection == "adapters" && rest == "" && r.Method == http.MethodGet:
		return h.showAdapter(w, name)
	case collection == "adapters" && rest == "update" && r.Method == http.MethodPost:
		return h.addAdapter(w, r, name)
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

func answerJSON(body string) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, _ *http.Request) error {
		web.WriteJSON(w, http.StatusOK, []byte(body))
		return nil
	}
}
