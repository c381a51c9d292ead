// Package hubtest is a stand-in for the Hugging Face hub in tests: the parts of
// its API that a download uses, with commits, branches, pages, gated and private
// models, redirects and errors as the hub has them, and a second server that
// stands for the CDN, at addresses that carry a signature and expire.
//
// huggingface_hub, which knows the real hub, downloads from it, too.
package hubtest

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Server is a hub with any number of models. Safe for concurrent use.
type Server struct {
	URL string // for HF_ENDPOINT
	CDN string // where large files are

	mu        sync.Mutex
	repos     map[string]*repo
	signature int // of the CDN's addresses, counted up when they expire
	page      int // entries in one answer about files
	cdn       string
	intercept func(w http.ResponseWriter, r *http.Request) bool
	requests  []string
	leaks     []string
}

type repo struct {
	gated, private bool
	refs           map[string]string           // branch or tag → commit
	commits        map[string]map[string]*blob // commit → files
}

type blob struct {
	data   []byte
	oid    string // git's hash of the file, or of the pointer to it
	sha256 string // "" for a file that git keeps itself
}

// Tokens of two accounts: the second one has access to gated models.
const (
	Token  = "hf_stranger"
	Member = "hf_member"
)

// lfsSize is the size from which on a file is one of Git LFS, as *.safetensors
// always are.
const lfsSize = 10 << 20

// New starts a hub, until Close.
func New() (s *Server, closeAll func()) {
	s = &Server{repos: map[string]*repo{}, page: 1000}
	hub := httptest.NewServer(http.HandlerFunc(s.serveHub))
	cdn := httptest.NewServer(http.HandlerFunc(s.serveCDN))
	s.URL, s.CDN, s.cdn = hub.URL, cdn.URL, cdn.URL
	return s, func() {
		for _, h := range []*httptest.Server{hub, cdn} {
			h.CloseClientConnections()
			h.Close()
		}
	}
}

// NewServer starts a hub that is closed with the test, which fails if a token
// was sent to the CDN.
func NewServer(tb testing.TB) *Server {
	s, closeAll := New()
	tb.Cleanup(func() {
		closeAll()
		s.mu.Lock()
		defer s.mu.Unlock()
		if len(s.leaks) > 0 {
			tb.Errorf("a token was sent to the CDN: %q", s.leaks)
		}
	})
	return s
}

// PageOf makes answers about files have n entries at a time.
func (s *Server) PageOf(n int) { s.page = n }

// RedirectTo makes the hub redirect to another server in front of the CDN.
func (s *Server) RedirectTo(cdn string) { s.cdn = cdn }

// Intercept has f see each request to the hub first; true means that f has
// answered it.
func (s *Server) Intercept(f func(w http.ResponseWriter, r *http.Request) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.intercept = f
}

// Commit makes a commit of the files on a branch of a model, which it creates
// if need be, and returns its hash.
func (s *Server) Commit(name, branch string, files map[string][]byte) string {
	h := sha1.New()
	fmt.Fprint(h, name, branch)
	commit := map[string]*blob{}
	for _, file := range slices.Sorted(maps.Keys(files)) {
		b := newBlob(file, files[file])
		commit[file] = b
		fmt.Fprint(h, file, b.oid)
	}
	hash := hex.EncodeToString(h.Sum(nil))
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.repos[name]
	if r == nil {
		r = &repo{refs: map[string]string{}, commits: map[string]map[string]*blob{}}
		s.repos[name] = r
	}
	r.refs[branch], r.commits[hash] = hash, commit
	return hash
}

// Gate makes a model ask for conditions to be accepted.
func (s *Server) Gate(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.repos[name].gated = true
}

// Hide makes a model private.
func (s *Server) Hide(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.repos[name].private = true
}

// Expire makes all addresses of the CDN invalid that have been given out.
func (s *Server) Expire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.signature++
}

// Requests returns what was requested so far, such as "GET /api/models/…".
func (s *Server) Requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

func newBlob(name string, data []byte) *blob {
	b := &blob{data: data}
	kept := data
	if len(data) >= lfsSize || strings.HasSuffix(name, ".safetensors") {
		sum := sha256.Sum256(data)
		b.sha256 = hex.EncodeToString(sum[:])
		kept = fmt.Appendf(nil, "version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize %d\n", b.sha256, len(data))
	}
	h := sha1.New()
	fmt.Fprintf(h, "blob %d\x00%s", len(kept), kept)
	b.oid = hex.EncodeToString(h.Sum(nil))
	return b
}

func (b *blob) etag() string {
	if b.sha256 != "" {
		return b.sha256
	}
	return b.oid
}

// fail answers as the hub does.
func fail(w http.ResponseWriter, status int, code, message string) {
	if code != "" {
		w.Header().Set("X-Error-Code", code)
	}
	w.Header().Set("X-Error-Message", message)
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"error": message})
}

func (s *Server) serveHub(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.requests = append(s.requests, r.Method+" "+r.URL.Path)
	intercept := s.intercept
	s.mu.Unlock()
	if intercept != nil && intercept(w, r) {
		return
	}
	parts := strings.Split(strings.Trim(r.URL.EscapedPath(), "/"), "/")
	unescaped := func(i int) string { text, _ := url.PathUnescape(parts[i]); return text }
	switch {
	case len(parts) == 6 && path.Join(parts[:2]...) == "api/models" && parts[4] == "revision":
		if found, commit := s.find(w, r, path.Join(parts[2:4]...), unescaped(5)); found != nil {
			s.serveInfo(w, path.Join(parts[2:4]...), found, commit)
		}
	case len(parts) == 4 && path.Join(parts[:2]...) == "api/models":
		if found, commit := s.find(w, r, path.Join(parts[2:4]...), "main"); found != nil {
			s.serveInfo(w, path.Join(parts[2:4]...), found, commit)
		}
	case len(parts) == 6 && path.Join(parts[:2]...) == "api/models" && parts[4] == "tree":
		if found, commit := s.find(w, r, path.Join(parts[2:4]...), unescaped(5)); found != nil {
			s.serveTree(w, r, found.commits[commit])
		}
	case len(parts) >= 7 && path.Join(parts[:3]...) == "api/resolve-cache/models":
		if found, commit := s.find(w, r, path.Join(parts[3:5]...), parts[5]); found != nil {
			name, _ := url.PathUnescape(path.Join(parts[6:]...))
			s.serveSmall(w, r, commit, found.commits[commit][name])
		}
	case len(parts) >= 5 && parts[2] == "resolve":
		if found, commit := s.find(w, r, path.Join(parts[:2]...), unescaped(3)); found != nil {
			name, _ := url.PathUnescape(path.Join(parts[4:]...))
			s.serveFile(w, r, path.Join(parts[:2]...), commit, name, found.commits[commit][name])
		}
	default:
		fail(w, http.StatusNotFound, "", "Sorry, we can't find the page you are looking for.")
	}
}

// find returns a model and the commit that a revision is, if the caller may read
// them, else nil after it has answered.
func (s *Server) find(w http.ResponseWriter, r *http.Request, name, revision string) (*repo, string) {
	token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	s.mu.Lock()
	defer s.mu.Unlock()
	found := s.repos[name]
	switch {
	case token != "" && token != Token && token != Member:
		fail(w, http.StatusUnauthorized, "", "Invalid credentials in Authorization header")
	case found == nil && token == "", found != nil && found.private && token == "":
		fail(w, http.StatusUnauthorized, "RepoNotFound", "Invalid username or password.")
	case found == nil, found.private && token != Member:
		fail(w, http.StatusNotFound, "RepoNotFound", "Repository not found")
	case found.gated && token == "":
		fail(w, http.StatusUnauthorized, "GatedRepo", fmt.Sprintf("Access to model %s is restricted. You must have access to it and be authenticated to access it. Please log in.", name))
	case found.gated && token != Member:
		fail(w, http.StatusForbidden, "GatedRepo", fmt.Sprintf("Access to model %s is restricted and you are not in the authorized list. Visit %s/%s to ask for access.", name, s.URL, name))
	default:
		commit := found.refs[revision]
		if _, ok := found.commits[revision]; ok {
			commit = revision
		}
		if commit == "" {
			fail(w, http.StatusNotFound, "RevisionNotFound", "Invalid rev id: "+revision)
			return nil, ""
		}
		return found, commit
	}
	return nil, ""
}

func (s *Server) serveInfo(w http.ResponseWriter, name string, found *repo, commit string) {
	type sibling struct {
		Name string `json:"rfilename"`
	}
	info := struct {
		ID          string    `json:"id"`
		SHA         string    `json:"sha"`
		PipelineTag string    `json:"pipeline_tag"`
		Private     bool      `json:"private"`
		Gated       any       `json:"gated"`
		Tags        []string  `json:"tags"`
		Siblings    []sibling `json:"siblings"`
	}{ID: name, SHA: commit, PipelineTag: "text-generation", Private: found.private, Gated: false}
	if found.gated {
		info.Gated = "manual"
	}
	for _, file := range slices.Sorted(maps.Keys(found.commits[commit])) {
		info.Siblings = append(info.Siblings, sibling{file})
	}
	writeJSON(w, info)
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	_ = json.NewEncoder(w).Encode(v)
}

func (s *Server) serveTree(w http.ResponseWriter, r *http.Request, files map[string]*blob) {
	type lfs struct {
		OID         string `json:"oid"`
		Size        int    `json:"size"`
		PointerSize int    `json:"pointerSize"`
	}
	type entry struct {
		Type string `json:"type"`
		OID  string `json:"oid"`
		Size int    `json:"size"`
		LFS  *lfs   `json:"lfs,omitempty"`
		Path string `json:"path"`
	}
	names := slices.Sorted(maps.Keys(files))
	from, _ := strconv.Atoi(r.URL.Query().Get("cursor"))
	to := min(len(names), from+s.page)
	if to < len(names) {
		q := r.URL.Query()
		q.Set("cursor", strconv.Itoa(to))
		w.Header().Set("Link", fmt.Sprintf(`<%s%s?%s>; rel="next"`, s.URL, r.URL.EscapedPath(), q.Encode()))
	}
	entries := []entry{}
	for _, name := range names[from:to] {
		b := files[name]
		e := entry{Type: "file", OID: b.oid, Size: len(b.data), Path: name}
		if b.sha256 != "" {
			e.LFS = &lfs{b.sha256, len(b.data), 134}
		}
		if dir := path.Dir(name); dir != "." && !slices.ContainsFunc(entries, func(e entry) bool { return e.Path == dir }) {
			entries = append(entries, entry{Type: "directory", OID: strings.Repeat("0", 40), Path: dir})
		}
		entries = append(entries, e)
	}
	writeJSON(w, entries)
}

// serveFile redirects: to the CDN for a file of Git LFS, else to an address of
// the hub's own.
func (s *Server) serveFile(w http.ResponseWriter, r *http.Request, name, commit, file string, b *blob) {
	w.Header().Set("X-Repo-Commit", commit)
	if b == nil {
		fail(w, http.StatusNotFound, "EntryNotFound", "Entry not found")
		return
	}
	w.Header().Set("Accept-Ranges", "bytes")
	if b.sha256 == "" {
		w.Header().Set("ETag", `"`+b.etag()+`"`)
		w.Header().Set("Location", "/api/resolve-cache/models/"+name+"/"+commit+"/"+file)
		w.WriteHeader(http.StatusTemporaryRedirect)
		return
	}
	s.mu.Lock()
	signature := s.signature
	s.mu.Unlock()
	w.Header().Set("X-Linked-Etag", `"`+b.sha256+`"`)
	w.Header().Set("X-Linked-Size", strconv.Itoa(len(b.data)))
	w.Header().Set("ETag", `"`+b.sha256+`"`)
	w.Header().Set("Location", fmt.Sprintf("%s/%s?X-Amz-Signature=%d", s.cdn, b.sha256, signature))
	w.WriteHeader(http.StatusFound)
}

func (s *Server) serveSmall(w http.ResponseWriter, r *http.Request, commit string, b *blob) {
	w.Header().Set("X-Repo-Commit", commit)
	if b == nil {
		fail(w, http.StatusNotFound, "EntryNotFound", "Entry not found")
		return
	}
	w.Header().Set("ETag", `"`+b.etag()+`"`)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b.data))
}

func (s *Server) serveCDN(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	if r.Header.Get("Authorization") != "" {
		s.leaks = append(s.leaks, r.URL.Path)
	}
	valid := r.URL.Query().Get("X-Amz-Signature") == strconv.Itoa(s.signature)
	var found *blob
	for _, r1 := range s.repos {
		for _, files := range r1.commits {
			for _, b := range files {
				if "/"+b.sha256 == r.URL.Path {
					found = b
				}
			}
		}
	}
	s.mu.Unlock()
	switch {
	case !valid:
		http.Error(w, "<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>", http.StatusForbidden)
	case found == nil:
		http.NotFound(w, r)
	default:
		w.Header().Set("ETag", `"`+strings.Repeat("c", 32)+`"`) // the CDN's own
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(found.data))
	}
}
