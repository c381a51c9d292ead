package source

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"

	"github.com/millrace-ai/millrace/engine/weights"
)

// HubModel names a model of the Hugging Face hub.
type HubModel struct {
	Repo     string // ORG/NAME; some of the oldest have a NAME alone
	Variant  string // of several GGUF files: a type such as Q4_K_M, or the name of a file; "" names none
	Revision string // a branch, a tag or a commit; "" is main
	Bare     bool   // given without a scheme, so a folder may have been meant
}

// String returns the name as it is given on the command line.
func (m HubModel) String() string {
	name := m.Repo
	switch {
	case weights.IsGGUF(m.Variant):
		name += "/" + m.Variant
	case m.Variant != "":
		name += ":" + m.Variant
	}
	if m.Revision != "" {
		name += "@" + m.Revision
	}
	return name
}

func (m HubModel) revision() string { return cmp.Or(m.Revision, "main") }

// hubName is what the hub allows as ORG/NAME, or as one of the two.
var hubName = regexp.MustCompile(`^(?:[A-Za-z0-9_][A-Za-z0-9._-]*/)?[A-Za-z0-9_][A-Za-z0-9._-]*$`)

// hubSites are hosts whose pages are models of the hub. HF_ENDPOINT is another.
var hubSites = []string{"https://huggingface.co/", "https://hf.co/"}

// IsHub reports whether a model id names a model of the hub: ORG/NAME with an
// optional @REVISION, hf://ORG/NAME, hf:ORG/NAME, or the address of its page; a GGUF
// file of it with :TYPE or /FILE.gguf after the name. A file or folder of that name
// wins, as in TGI.
func IsHub(location string) bool {
	_, ok, _ := parseHub(location, os.Getenv("HF_ENDPOINT"))
	return ok
}

// parseHub reads the name of a model of the hub. It is not ok if location is
// something else; err says what is wrong with a name that is meant for the hub.
func parseHub(location, endpoint string) (m HubModel, ok bool, err error) {
	name, scheme := location, ""
	sites := hubSites
	if endpoint != "" {
		sites = append([]string{strings.TrimRight(endpoint, "/") + "/"}, hubSites...)
	}
	for _, prefix := range append([]string{"hf://", "hf:"}, sites...) {
		if rest, found := strings.CutPrefix(location, prefix); found {
			name, scheme = rest, prefix
			break
		}
	}
	if scheme != "" {
		name = strings.TrimPrefix(name, "models/")
		name = strings.TrimSuffix(name, "/")
	}
	if strings.HasPrefix(scheme, "http") { // a page: ORG/NAME/tree/REVISION
		name, _, _ = strings.Cut(name, "?")
		if repo, revision, found := strings.Cut(name, "/tree/"); found {
			name = repo + "@" + revision
		}
		if repo, file, found := strings.Cut(name, "/blob/"); found {
			revision, file, _ := strings.Cut(file, "/")
			name = repo + "/" + file + "@" + revision
		}
	}
	name, revision, given := strings.Cut(name, "@")
	name, variant := cutVariant(name)
	m = HubModel{Repo: name, Variant: variant, Revision: revision, Bare: scheme == ""}
	if m.Bare {
		if strings.Count(name, "/") != 1 || !hubName.MatchString(name) || IsArchive(name) || exists(location) {
			return HubModel{}, false, nil
		}
	}
	switch {
	case !hubName.MatchString(name), len(name) > 96, strings.Contains(name, ".."), strings.Contains(name, "--"):
		return m, true, fmt.Errorf("%s: not the name of a model of the Hugging Face hub: expected ORG/NAME or ORG/NAME@REVISION", location)
	case variant != "" && (!fs.ValidPath(variant) || strings.ContainsAny(variant, "\\:?#")):
		return m, true, fmt.Errorf("%s: %q is neither a type of GGUF nor the name of a file", location, variant)
	case given && !validRevision(revision):
		return m, true, fmt.Errorf("%s: %q is not a revision: expected a branch, a tag or a commit after the @", location, revision)
	}
	return m, true, nil
}

// cutVariant cuts what follows the name of a model of the hub: :TYPE or /FILE.gguf.
func cutVariant(name string) (repo, variant string) {
	if at := strings.LastIndexByte(name, ':'); at > strings.LastIndexByte(name, '/') {
		return name[:at], name[at+1:]
	}
	if parts := strings.SplitN(name, "/", 3); len(parts) == 3 && weights.IsGGUF(name) {
		return parts[0] + "/" + parts[1], parts[2]
	}
	return name, ""
}

// AtRevision returns the name of a model of the hub at a revision, unless it has
// one. Any other place is returned as it is.
func AtRevision(location, revision string) (string, error) {
	m, ok, err := parseHub(location, os.Getenv("HF_ENDPOINT"))
	if !ok || err != nil || m.Revision != "" {
		return location, err
	}
	if !validRevision(revision) {
		return "", fmt.Errorf("%q is not a revision: expected a branch, a tag or a commit", revision)
	}
	m.Revision = revision
	return "hf:" + m.String(), nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// validRevision reports whether a revision can be one, which also becomes the
// name of a file in the cache.
func validRevision(revision string) bool {
	return revision != "" && filepath.IsLocal(revision) && filepath.Clean(revision) == revision && !strings.ContainsAny(revision, "\\\x00?#@ ")
}

var commitHash = regexp.MustCompile(`^[0-9a-f]{40}$`)

// Hub is the Hugging Face hub, or a server that speaks its API, and the cache on
// this machine that is shared with Hugging Face's own tools.
type Hub struct {
	Endpoint string
	Token    string
	Offline  bool // only the cache is used
	Log      *slog.Logger
	Progress Progress

	caches    []string // to look for models; new ones go into the first that can be written
	own       string   // the last one of caches, if it is in the folder for temporary files
	client    *hubClient
	tune      tuning
	throttles atomic.Int64 // answers that asked for less
}

// NewHub returns the hub that the environment describes, with the variables of
// huggingface_hub. cache is the folder of its cache if it is not "".
func NewHub(getenv func(string) string, cache string, log *slog.Logger) (*Hub, error) {
	h := &Hub{Endpoint: strings.TrimRight(cmp.Or(getenv("HF_ENDPOINT"), "https://huggingface.co"), "/"),
		Offline: isTrue(cmp.Or(getenv("HF_HUB_OFFLINE"), getenv("TRANSFORMERS_OFFLINE"))),
		Log:     log, Progress: func(int64, int64) {}, tune: defaultTuning}
	base, err := url.Parse(h.Endpoint)
	if err != nil || base.Host == "" || base.Scheme != "https" && base.Scheme != "http" {
		return nil, fmt.Errorf("HF_ENDPOINT: expected a URL such as https://huggingface.co")
	}
	home := hubHome(getenv)
	h.caches = cacheFolders(getenv, cache, home)
	if getenv("HF_HUB_CACHE") == "" && getenv("HUGGINGFACE_HUB_CACHE") == "" && getenv("HF_HOME") == "" && cache == "" {
		h.own = h.caches[len(h.caches)-1]
	}
	h.Token = hubToken(getenv, home)
	h.client = newHubClient(base, h.Token)
	return h, nil
}

func isTrue(text string) bool {
	switch strings.ToUpper(text) {
	case "1", "ON", "YES", "TRUE":
		return true
	}
	return false
}

// hubHome returns the folder of all that Hugging Face's tools keep, "" if there
// is none.
func hubHome(getenv func(string) string) string {
	if home := getenv("HF_HOME"); home != "" {
		return expand(home, getenv)
	}
	if cache := getenv("XDG_CACHE_HOME"); cache != "" {
		return filepath.Join(expand(cache, getenv), "huggingface")
	}
	if home := getenv("HOME"); home != "" {
		return filepath.Join(home, ".cache", "huggingface")
	}
	return ""
}

// expand does what Python's expanduser and expandvars do.
func expand(path string, getenv func(string) string) string {
	if path == "~" || strings.HasPrefix(path, "~/") {
		path = getenv("HOME") + path[1:]
	}
	return os.Expand(path, getenv)
}

// cacheFolders returns the folders that may hold the cache, the preferred one
// first. Without any setting the last is a folder of this user's own for
// temporary files: a container often has no home, or one that is read-only.
func cacheFolders(getenv func(string) string, cache, home string) []string {
	if set := cmp.Or(cache, getenv("HF_HUB_CACHE"), getenv("HUGGINGFACE_HUB_CACHE")); set != "" {
		return []string{expand(set, getenv)}
	}
	if getenv("HF_HOME") != "" {
		return []string{filepath.Join(home, "hub")}
	}
	own := filepath.Join(os.TempDir(), fmt.Sprintf("millrace-%d", os.Getuid()), "hub")
	if home == "" {
		return []string{own}
	}
	return []string{filepath.Join(home, "hub"), own}
}

// hubToken returns the token of the user's account, "" if there is none.
func hubToken(getenv func(string) string, home string) string {
	if isTrue(getenv("HF_HUB_DISABLE_IMPLICIT_TOKEN")) {
		return ""
	}
	token := cmp.Or(getenv("HF_TOKEN"), getenv("HUGGING_FACE_HUB_TOKEN"), getenv("HF_API_TOKEN"))
	if token == "" {
		path := filepath.Join(home, "token")
		if set := getenv("HF_TOKEN_PATH"); set != "" {
			path = expand(set, getenv)
		}
		text, _ := os.ReadFile(path) //nolint:errcheck // without it there is no token
		token = string(text)
	}
	return strings.TrimSpace(strings.NewReplacer("\r", "", "\n", "").Replace(token))
}

// ParseHub reads the name of a model of this hub.
func (h *Hub) ParseHub(location string) (HubModel, error) {
	m, ok, err := parseHub(location, h.Endpoint)
	if err == nil && !ok {
		err = fmt.Errorf("%s: not the name of a model of the hub", location)
	}
	return m, err
}

// Snapshot returns a folder with the model's files that are needed to serve it, or
// the path of its GGUF file, after it has downloaded what is not in the cache. If the hub cannot be asked,
// what is in the cache is served, with a warning.
func (h *Hub) Snapshot(ctx context.Context, m HubModel) (dir string, err error) {
	if h.Offline {
		if dir := h.cached(m); dir != "" {
			return dir, nil
		}
		return "", &Error{fmt.Sprintf("%s: not in the cache (%s), and HF_HUB_OFFLINE is set: unset it, or pull the model first", m, strings.Join(h.caches, ", ")), nil}
	}
	r, err := h.find(ctx, m)
	if err != nil {
		var answer *hubError
		missing := errors.As(err, &answer) && answer.code == "RevisionNotFound"
		if dir := h.cached(m); dir != "" && ctx.Err() == nil && !missing {
			h.Log.Warn("serving the model from the cache, as the hub cannot be asked for a newer one", "folder", dir, "err", err)
			return dir, nil
		}
		return "", err
	}
	for _, cache := range h.roots() {
		c := r.in(cache)
		if c.complete(r.files) {
			c.writeRef(m) //nolint:errcheck // the cache may be read-only
			return r.place(c), nil
		}
	}
	cache, err := h.writable()
	if err != nil {
		return "", err
	}
	c := r.in(cache)
	return r.place(c), h.download(ctx, c, r)
}

// PullInto copies the files that are needed to serve the model into a folder.
func (h *Hub) PullInto(ctx context.Context, m HubModel, dir string) error {
	if h.Offline {
		return &Error{m.String() + ": HF_HUB_OFFLINE is set", nil}
	}
	r, err := h.find(ctx, m)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	p := h.puller(filepath.Join(dir, stateName))
	for _, f := range r.files {
		path := filepath.Join(dir, filepath.FromSlash(f.name))
		p.files[f.name] = f.download(path, path+partialEnd)
	}
	return h.explainWrite(m, p.run(ctx))
}

func (h *Hub) puller(state string) *puller {
	return &puller{tune: h.tune, throttles: &h.throttles, state: state, files: map[string]*download{}, progress: h.Progress}
}
