package source

import (
	"cmp"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/millrace-ai/millrace/engine/adapter"
	"github.com/millrace-ai/millrace/engine/weights"
)

// hubRevision is a model of the hub at one commit.
type hubRevision struct {
	hub    *Hub
	model  HubModel
	commit string
	tree   map[string]treeEntry // all files
	files  []*hubFile           // those that are needed to serve the model
}

// treeEntry describes a file, as huggingface_hub keeps it in the cache.
type treeEntry struct {
	Size   int64  `json:"size"`
	BlobID string `json:"blob_id"`              // git's hash of what is in the repository: of the file, or of a pointer to it
	SHA256 string `json:"lfs_sha256,omitempty"` // of a file that Git LFS keeps
	Length int64  `json:"lfs_size,omitempty"`
	Xet    string `json:"xet_hash,omitempty"`
}

// hubFile is a file of a model at one commit.
type hubFile struct {
	of   *hubRevision
	name string // its path in the repository
	treeEntry

	location  atomic.Pointer[url.URL] // where the hub has it; a CDN's address expires
	searching chan struct{}           // held by the one that asks the hub for it
}

var _ remoteFile = (*hubFile)(nil)

// String implements remoteFile.
func (f *hubFile) String() string { return f.of.model.Repo + "/" + f.name }

func (f *hubFile) length() int64 { return f.Size }

// blob returns what the cache calls the content: the hub's ETag.
func (f *hubFile) blob() string {
	if f.SHA256 != "" {
		return f.SHA256
	}
	return f.BlobID
}

func (f *hubFile) retry(ctx context.Context, err error, tries int) error {
	var answer *hubError
	if errors.As(err, &answer) && answer.elsewhere {
		f.location.Store(nil)
	}
	h := f.of.hub
	return h.retry(ctx, err, tries, h.tune.attempts)
}

func (f *hubFile) explain(err error) error { return f.of.hub.explain(f.of.model, f.String(), err) }

func (f *hubFile) open(ctx context.Context, from, to int64) (io.ReadCloser, error) {
	want := fmt.Sprintf("bytes %d-%d/%d", from, to-1, f.Size)
	all := from == 0 && to == f.Size
	byteRange := ""
	if !all {
		byteRange = fmt.Sprintf("bytes=%d-%d", from, to-1)
	}
	r, err := f.get(ctx, byteRange)
	if err != nil {
		return nil, err
	}
	switch {
	case r.StatusCode == http.StatusPartialContent && r.Header.Get("Content-Range") == want:
	case r.StatusCode == http.StatusOK && all && (r.ContentLength < 0 || r.ContentLength == f.Size):
	default:
		r.Body.Close()
		return nil, fmt.Errorf("%w: %s, found %d %q, %d bytes", errAnswer, want, r.StatusCode, r.Header.Get("Content-Range"), r.ContentLength)
	}
	return r.Body, nil
}

// get requests the file, at the address where the hub has it. Of several that
// do so at once, one finds out which that is.
func (f *hubFile) get(ctx context.Context, byteRange string) (*http.Response, error) {
	client := f.of.hub.client
	if u := f.location.Load(); u != nil {
		return client.get(ctx, u, byteRange, nil)
	}
	select {
	case f.searching <- struct{}{}:
		defer func() { <-f.searching }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if u := f.location.Load(); u != nil {
		return client.get(ctx, u, byteRange, nil)
	}
	segments := append(repoPath(f.of.model.Repo), "resolve", f.of.commit)
	for part := range strings.SplitSeq(f.name, "/") {
		segments = append(segments, url.PathEscape(part))
	}
	r, err := client.get(ctx, client.path(segments...), byteRange, f.verifyHeader)
	if err == nil {
		f.location.Store(r.Request.URL)
	}
	return r, err
}

// verifyHeader refuses an answer of the hub about another version of the file.
func (f *hubFile) verifyHeader(h http.Header) error {
	etag := strings.Trim(strings.TrimPrefix(h.Get("X-Linked-Etag"), "W/"), `"`)
	if commit := h.Get("X-Repo-Commit"); commit != "" && commit != f.of.commit || etag != "" && etag != f.blob() {
		return errChanged
	}
	return nil
}

// download describes the file on its way to a path.
func (f *hubFile) download(path, partial string) *download {
	return &download{file: f, version: f.blob(), path: path, partial: partial,
		verifier: func(context.Context) verifier { return f.verifier() }}
}

// verifier compares the content with its SHA-256, or with git's hash.
func (f *hubFile) verifier() verifier {
	if f.SHA256 != "" {
		return &digest{sha256.New(), "SHA-256", f.SHA256}
	}
	h := sha1.New() //nolint:gosec // git's choice
	fmt.Fprintf(h, "blob %d\x00", f.Size)
	return &digest{h, "git hash", f.BlobID}
}

// digest compares a file with a hash of all of it.
type digest struct {
	hash.Hash
	name, want string
}

func (d *digest) compares() bool        { return true }
func (d *digest) add(p []byte, _ int64) { d.Write(p) }
func (d *digest) check() error {
	if got := hex.EncodeToString(d.Sum(nil)); got != d.want {
		return fmt.Errorf("damaged in transit: its %s is %s, the bytes that arrived have %s", d.name, d.want, got)
	}
	return nil
}

// repoPath returns the segments of a repository's path.
func repoPath(repo string) []string { return strings.Split(repo, "/") }

// askAttempts bounds how often the API is asked: if it does not answer, what is
// in the cache is good enough.
const askAttempts = 3

// ask reads an answer of the API about m, page by page.
func ask[T any](ctx context.Context, h *Hub, m HubModel, u *url.URL, take func(T)) error {
	for tries := 0; u != nil; {
		var page T
		limited, cancel := context.WithTimeoutCause(ctx, 2*h.tune.idle, errIdle)
		next, err := h.client.json(limited, u, &page)
		if err != nil && ctx.Err() == nil && limited.Err() != nil {
			err = errIdle
		}
		cancel()
		if err == nil {
			take(page)
			u, tries = next, 0
			continue
		}
		tries++
		if err := h.retry(ctx, err, tries, askAttempts); err != nil {
			return h.explain(m, m.String(), err)
		}
	}
	return nil
}

// find finds out which commit m is, and which of its files are needed.
func (h *Hub) find(ctx context.Context, m HubModel) (*hubRevision, error) {
	r := &hubRevision{hub: h, model: m, commit: m.Revision}
	if !commitHash.MatchString(r.commit) {
		var info struct{ SHA string }
		u := h.client.path(append(append([]string{"api", "models"}, repoPath(m.Repo)...), "revision", url.PathEscape(m.revision()))...)
		if err := ask(ctx, h, m, u, func(page struct{ SHA string }) { info = page }); err != nil {
			return nil, err
		}
		if r.commit = info.SHA; !commitHash.MatchString(r.commit) {
			return nil, &Error{fmt.Sprintf("%s: %s did not say which commit that is: is it a Hugging Face hub?", m, h.Endpoint), errAnswer}
		}
	}
	r.tree = h.cachedTree(m, r.commit)
	if r.tree == nil {
		if err := r.list(ctx); err != nil {
			return nil, err
		}
	}
	names, err := neededFiles(slices.Sorted(maps.Keys(r.tree)), m.Variant, func(name string) ([]byte, error) {
		if data := r.cachedText(name); data != nil {
			return data, nil
		}
		return r.file(name).readAll(ctx)
	})
	if err != nil {
		var said *Error
		if errors.As(err, &said) {
			return nil, err
		}
		return nil, &Error{fmt.Sprintf("%s: %s", m, err), err}
	}
	for _, name := range names {
		r.files = append(r.files, r.file(name))
	}
	return r, nil
}

// place is what is opened of the files in cache c: the snapshot, or the GGUF file
// in it.
func (r *hubRevision) place(c hubCache) string {
	var names []string
	for _, f := range r.files {
		names = append(names, f.name)
	}
	return c.place(names)
}

func (r *hubRevision) file(name string) *hubFile {
	return &hubFile{of: r, name: name, treeEntry: r.tree[name], searching: make(chan struct{}, 1)}
}

// list asks the hub for all files.
func (r *hubRevision) list(ctx context.Context) error {
	type entry struct {
		Type, OID, Path, XetHash string
		Size                     int64
		LFS                      *struct {
			OID  string
			Size int64
		}
	}
	h := r.hub
	u := h.client.path(append(append([]string{"api", "models"}, repoPath(r.model.Repo)...), "tree", r.commit)...)
	u.RawQuery = "recursive=true&expand=false"
	r.tree = map[string]treeEntry{}
	err := ask(ctx, h, r.model, u, func(page []entry) {
		for _, e := range page {
			if e.Type != "file" {
				continue
			}
			t := treeEntry{Size: e.Size, BlobID: e.OID, Xet: e.XetHash}
			if e.LFS != nil {
				t.SHA256, t.Length = e.LFS.OID, e.LFS.Size
				t.Size = e.LFS.Size
			}
			if fs.ValidPath(e.Path) && !strings.Contains(e.Path, "\\") && t.valid() && len(r.tree) < mostObjects {
				r.tree[e.Path] = t
			}
		}
	})
	return err
}

// valid reports whether the hashes are such, as they become names of files.
func (t treeEntry) valid() bool {
	isHash := func(s string, length int) bool {
		return len(s) == length && strings.Trim(s, "0123456789abcdef") == ""
	}
	return t.Size >= 0 && isHash(t.BlobID, 40) && (t.SHA256 == "" || isHash(t.SHA256, 64))
}

// readAll reads a text file into memory.
func (f *hubFile) readAll(ctx context.Context) ([]byte, error) {
	if f.Size > maxText {
		return nil, &Error{fmt.Sprintf("%s: %d MB, the limit is %d MB", f, f.Size>>20, maxText>>20), errors.ErrUnsupported}
	}
	data := make([]byte, f.Size)
	if err := readRange(ctx, f, f.of.hub.tune.idle, data, 0); err != nil {
		return nil, err
	}
	v := f.verifier()
	v.add(data, 0)
	if err := v.check(); err != nil {
		return nil, &Error{f.String() + ": " + err.Error(), err}
	}
	return data, nil
}

// neededFiles chooses from the names of all files of a model those that are
// needed to serve it, or of an adapter: texts and, in one form of several, the weights.
// Where there are no safetensors, or variant names one, it is a GGUF file. read
// reads a text.
func neededFiles(all []string, variant string, read func(name string) ([]byte, error)) (names []string, err error) {
	has := func(name string) bool { return slices.Contains(all, name) }
	if models := weights.ModelFiles(all); variant != "" || len(models) > 0 && !has("model"+weightsEnd) && !has(indexName) {
		model, err := chooseVariant(models, variant)
		if err != nil {
			return nil, err
		}
		dir, base := path.Split(model)
		names, err = weights.Splits(base)
		for i := range names {
			if names[i] = dir + names[i]; !has(names[i]) {
				return nil, fmt.Errorf("%s is missing, though %s is there", names[i], model)
			}
		}
		return names, err
	}
	for _, name := range all {
		if isModelText(name) {
			names = append(names, name)
		}
	}
	if has(adapter.ConfigFile) && has(adapter.WeightsFile) && !has("model"+weightsEnd) && !has(indexName) {
		return append(names, adapter.WeightsFile), nil
	}
	if !has(configName) {
		return nil, errors.New("the repository has no config.json, so it is not a model that can be served")
	}
	single := "model" + weightsEnd
	switch {
	case has(single):
		return append(names, single), nil
	case !has(indexName):
		return nil, errors.New("the repository has no model.safetensors" + insteadOfWeights(all))
	}
	text, err := read(indexName)
	if err != nil {
		return nil, err
	}
	var index struct {
		WeightMap map[string]string `json:"weight_map"`
	}
	if err := json.Unmarshal(text, &index); err != nil || len(index.WeightMap) == 0 {
		return nil, fmt.Errorf("%s does not say which files hold the weights", indexName)
	}
	shards := slices.Compact(slices.Sorted(maps.Values(index.WeightMap)))
	for _, s := range shards {
		if !has(s) {
			return nil, fmt.Errorf("%s is missing, though %s names it", s, indexName)
		}
	}
	return append(names, shards...), nil
}

// usualVariant is taken where several are there and none is named: it is what most
// people choose.
const usualVariant = "Q4_K_M"

// partSuffix ends the name of the first of several files.
var partSuffix = regexp.MustCompile(`-\d{5}-of-\d{5}$`)

// chooseVariant returns the one of several GGUF models that is meant: its path, or
// what its name ends in.
func chooseVariant(models []string, variant string) (string, error) {
	if len(models) == 1 && variant == "" {
		return models[0], nil
	}
	var found []string
	for _, name := range models {
		stem := partSuffix.ReplaceAllString(strings.TrimSuffix(name, ".gguf"), "")
		wanted := strings.ToLower(cmp.Or(variant, usualVariant))
		lower := strings.ToLower(stem)
		switch {
		case weights.IsGGUF(variant):
			if name == variant {
				found = append(found, name)
			}
		case strings.HasSuffix(lower, wanted) && !isWordByte(strings.TrimSuffix(lower, wanted)):
			found = append(found, name)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(models) == 0:
		return "", errors.New("the repository has no GGUF file")
	case len(found) == 0 && variant != "":
		return "", fmt.Errorf("no GGUF file is %s, but %s", variant, strings.Join(models[:min(12, len(models))], ", "))
	case len(found) == 0:
		found = models
	}
	return "", fmt.Errorf("several GGUF files: %s; name one, as ORG/NAME:%s or ORG/NAME/FILE.gguf", strings.Join(found[:min(12, len(found))], ", "), usualVariant)
}

// isWordByte reports whether a name goes on where it was cut: with a letter or a
// digit.
func isWordByte(before string) bool {
	return before != "" && strings.Trim(before[len(before)-1:], "abcdefghijklmnopqrstuvwxyz0123456789") == ""
}

// isModelText reports whether a file may be one of the configuration, of the
// tokenizer, or of the chat templates.
func isModelText(name string) bool {
	if dir, file := path.Split(name); dir != "" {
		return dir == "additional_chat_templates/" && path.Ext(file) == ".jinja"
	}
	switch path.Ext(name) {
	case ".json":
		return name == indexName || !strings.HasSuffix(name, ".index.json") // of weights in another form
	case ".jinja", ".model":
		return true
	}
	return name == "merges.txt" || name == "vocab.txt"
}

// insteadOfWeights says what a repository has instead of safetensors.
func insteadOfWeights(all []string) string {
	for _, alien := range []struct{ end, advice string }{
		{"adapter_model.safetensors", "it is an adapter, not a model"},
		{".bin", "choose a repository with safetensors, or convert it"},
		{".pth", "choose a repository with safetensors, or convert it"},
		{".pt", "choose a repository with safetensors, or convert it"},
	} {
		for _, name := range all {
			if strings.HasSuffix(name, alien.end) {
				return fmt.Sprintf(", but %s: %s", name, alien.advice)
			}
		}
	}
	return ""
}
