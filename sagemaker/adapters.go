package sagemaker

import (
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/millrace-ai/millrace/handler"
	"github.com/millrace-ai/millrace/handler/body"
	"github.com/millrace-ai/millrace/internal/web"
)

// adapterEntry is an adapter as the platform and LMI's clients write it.
type adapterEntry struct {
	Name string `json:"name"`
	Src  string `json:"src"`
	Pin  bool   `json:"pin"`
}

// adapterFields are what registers an adapter. LMI's clients put them into the query,
// the platform into the body.
type adapterFields struct {
	Name, Src    string
	Preload, Pin *flag
}

// flag is a boolean, which some clients write as text.
type flag bool

// UnmarshalJSON implements json.Unmarshaler.
func (f *flag) UnmarshalJSON(data []byte) error {
	b, err := strconv.ParseBool(strings.Trim(string(data), `"`))
	*f = flag(b)
	return err
}

// addAdapter handles POST /adapters and, with the name of one that it replaces, POST
// /adapters/{name}/update. The platform repeats what it does not know the end of: an
// adapter that is there already is not an error.
func (h *Hosting) addAdapter(w http.ResponseWriter, r *http.Request, update string) error {
	const most = 64 << 10
	query := r.URL.Query()
	fields := adapterFields{Name: query.Get("name"), Src: query.Get("src")}
	for name, into := range map[string]**flag{"preload": &fields.Preload, "pin": &fields.Pin} {
		if text := query.Get(name); text != "" {
			*into = new(flag)
			if err := (*into).UnmarshalJSON([]byte(text)); err != nil {
				return badRequest("%s: expected true or false, found %q", name, body.Cut(text))
			}
		}
	}
	text, err := io.ReadAll(io.LimitReader(r.Body, most))
	if err != nil {
		return badRequest("Failed to buffer the request body")
	}
	if len(text) > 0 {
		if err := json.Unmarshal(text, &fields); err != nil {
			return badRequest("The body of an adapter: expected a JSON object with name and src: %s", body.Cut(err.Error()))
		}
	}
	status := "registered"
	if update != "" {
		fields.Name, status = update, "updated"
	}
	if fields.Name == "" || fields.Src == "" {
		return badRequest("The body of an adapter: expected name and src, found name %q and src %q", body.Cut(fields.Name), body.Cut(fields.Src))
	}
	a := handler.Adapter{Name: fields.Name, Source: fields.Src, Pinned: fields.Pin != nil && bool(*fields.Pin)}
	load := fields.Preload == nil || bool(*fields.Preload)
	if err := h.api.AddAdapter(r.Context(), a, load, update != ""); err != nil {
		return err
	}
	return answerStatus(w, "Adapter "+fields.Name+" "+status)
}

// listAdapters handles GET /adapters, a page at a time.
func (h *Hosting) listAdapters(w http.ResponseWriter, r *http.Request) error {
	page := struct {
		Adapters []adapterEntry `json:"adapters"`
		Next     string         `json:"next_page_token,omitempty"`
	}{Adapters: []adapterEntry{}}
	limit := 100
	if text := r.URL.Query().Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return badRequest("limit: expected a positive number, found %q", body.Cut(text))
		}
		limit = n
	}
	list := h.api.ListAdapters()
	if after := r.URL.Query().Get("next_page_token"); after != "" { // the last name of the page before
		i, found := slices.BinarySearchFunc(list, after, func(a handler.Adapter, name string) int { return strings.Compare(a.Name, name) })
		if found {
			i++
		}
		list = list[i:]
	}
	for i, a := range list {
		if i == limit {
			page.Next = list[i-1].Name
			break
		}
		page.Adapters = append(page.Adapters, adapterEntry{a.Name, a.Source, a.Pinned})
	}
	return answerValue(w, page)
}

// showAdapter handles GET /adapters/{name}.
func (h *Hosting) showAdapter(w http.ResponseWriter, name string) error {
	for _, a := range h.api.ListAdapters() {
		if a.Name == name {
			return answerValue(w, adapterEntry{a.Name, a.Source, a.Pinned})
		}
	}
	return failure(http.StatusNotFound, "not_found", "The adapter %q is not registered", body.Cut(name))
}

// removeAdapter handles DELETE /adapters/{name}. One that is not there is what was
// wanted.
func (h *Hosting) removeAdapter(w http.ResponseWriter, name string) error {
	known, err := h.api.RemoveAdapter(name)
	if err != nil {
		return err
	}
	if !known {
		return answerStatus(w, "Adapter "+body.Cut(name)+" is not registered")
	}
	return answerStatus(w, "Adapter "+name+" unregistered")
}

func answerStatus(w http.ResponseWriter, status string) error {
	return answerValue(w, struct {
		Status string `json:"status"`
	}{status})
}

func answerValue(w http.ResponseWriter, value any) error {
	data, err := json.Marshal(value)
	if err == nil {
		web.WriteJSON(w, http.StatusOK, data)
	}
	return err
}

// forAdapter makes a request for the adapter that the platform says it is for, and
// refuses one for another model than the one that is served.
func forAdapter(r *http.Request) (*http.Request, error) {
	if name := r.Header.Get(headerTargetModel); name != "" {
		return nil, failure(http.StatusUnprocessableEntity, "validation",
			"X-Amzn-SageMaker-Target-Model: there is no model %q: %s", body.Cut(name), oneModel)
	}
	if name := r.Header.Get(headerAdapter); name != "" {
		r = r.WithContext(handler.WithAdapter(r.Context(), name))
	}
	return r, nil
}
