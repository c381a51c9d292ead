package handler

import (
	"net/http"

	"github.com/swaggest/swgui"
	"github.com/swaggest/swgui/v5emb"

	"github.com/millrace-ai/millrace/handler/openapi"
	"github.com/millrace-ai/millrace/internal/web"
)

// openAPI handles GET /api-doc/openapi.json.
func (s *Server) openAPI(x *exchange) error {
	web.WriteJSON(x.w, http.StatusOK, s.document())
	return nil
}

// docs returns the handler of Swagger UI below /docs/. Its files are in the
// binary, so that a machine without a network shows them, too. The page names
// them, and the document, relative to itself: it may lie below a proxy's prefix.
func (s *Server) docs() handlerFunc {
	ui := v5emb.NewWithConfig(swgui.Config{
		InternalBasePath: "/docs/",
		ShowTopBar:       true,
		SettingsUI:       map[string]string{"tryItOutEnabled": "true"},
	})("Millrace", "../api-doc/openapi.json", ".")
	return func(x *exchange) error {
		ui.ServeHTTP(x.w, x.r)
		return nil
	}
}

// redirectTo sends a browser to the page at another path. A relative path
// holds below the prefix of a proxy, too.
func redirectTo(path string) handlerFunc {
	return func(x *exchange) error {
		x.w.Header().Set("Location", path)
		x.w.Header().Set("Content-Length", "0")
		x.w.WriteHeader(http.StatusSeeOther)
		return nil
	}
}

// serveFiles serves a page whose files lie below prefix.
func serveFiles(prefix string, files http.Handler) handlerFunc {
	files = http.StripPrefix(prefix, files)
	return func(x *exchange) error {
		files.ServeHTTP(x.w, x.r)
		return nil
	}
}

// newDocument returns the OpenAPI document.
func newDocument(o *Options) []byte {
	fields := map[string]map[string]openapi.Object{}
	for name, set := range map[string]*fieldSet{"ChatRequest": &chatFields, "CompletionRequest": &completionFields, "GenerateParameters": &generateParameters} {
		fields[name] = map[string]openapi.Object{}
		for _, f := range set.fields {
			if f.doc != nil {
				fields[name][f.name] = f.doc
			}
		}
	}
	for name, schema := range chatSchemas {
		fields["ChatRequest"][name] = schema
	}
	return openapi.Document(&openapi.Options{
		Version: o.Version, ToolCalls: o.ToolCallObject, Grammars: !o.DisableGrammar, ErrorObject: o.ErrorObject, MaxTokens: defaultMaxNewTokens, Fields: fields,
	})
}
