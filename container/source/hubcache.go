package source

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/millrace-ai/millrace/engine/weights"
)

// hubCache is the place of a model at one commit in a cache as huggingface_hub
// lays it out:
//
//	models--ORG--NAME/refs/REVISION          the commit that a branch or tag was
//	models--ORG--NAME/trees/COMMIT.json      all files of a commit
//	models--ORG--NAME/blobs/HASH             the content of a file
//	models--ORG--NAME/snapshots/COMMIT/FILE  a link to it
//	.locks/models--ORG--NAME/HASH.lock       held by the one that writes a blob
type hubCache struct {
	root   string
	model  string // models--ORG--NAME
	commit string
}

func cacheOf(root string, m HubModel, commit string) hubCache {
	return hubCache{root, "models--" + strings.ReplaceAll(m.Repo, "/", "--"), commit}
}

func (r *hubRevision) in(root string) hubCache { return cacheOf(root, r.model, r.commit) }

func (c hubCache) path(parts ...string) string {
	return filepath.Join(append([]string{c.root, c.model}, parts...)...)
}

func (c hubCache) snapshot() string { return c.path("snapshots", c.commit) }

func (c hubCache) file(name string) string {
	return filepath.Join(c.snapshot(), filepath.FromSlash(name))
}

func (c hubCache) blob(hash string) string { return c.path("blobs", hash) }

// complete reports whether all files are there.
func (c hubCache) complete(files []*hubFile) bool {
	return !slices.ContainsFunc(files, func(f *hubFile) bool { return !hasSize(c.file(f.name), f.Size) })
}

// roots returns the caches that may be read.
func (h *Hub) roots() []string {
	return slices.DeleteFunc(slices.Clone(h.caches), func(root string) bool { return root == h.own && !isOwn(filepath.Dir(root)) })
}

// place is what is opened of files of the snapshot: all of it, or its GGUF file.
func (c hubCache) place(names []string) string {
	if models := weights.ModelFiles(names); len(models) > 0 {
		return c.file(models[0])
	}
	return c.snapshot()
}

// cached returns what Snapshot does of the commit that m was when the hub was asked
// last, "" if not all of its files that are needed are in a cache.
func (h *Hub) cached(m HubModel) string {
	for _, root := range h.roots() {
		commit := m.Revision
		if !commitHash.MatchString(commit) {
			text, err := os.ReadFile(cacheOf(root, m, "").path("refs", filepath.FromSlash(m.revision())))
			if commit = strings.TrimSpace(string(text)); err != nil || !commitHash.MatchString(commit) {
				continue
			}
		}
		c := cacheOf(root, m, commit)
		if names := c.completeFiles(m.Variant); names != nil {
			return c.place(names)
		}
	}
	return ""
}

// completeFiles returns the files that serving needs, as far as that is known, if the
// snapshot has them: another tool may have fetched a part of the files.
func (c hubCache) completeFiles(variant string) []string {
	var all []string
	if tree := c.readTree(); tree != nil {
		for name := range tree {
			all = append(all, name)
		}
	} else {
		err := fs.WalkDir(os.DirFS(c.snapshot()), ".", func(name string, e fs.DirEntry, err error) error {
			if err == nil && !e.IsDir() {
				all = append(all, name)
			}
			return err
		})
		if err != nil || !slices.Contains(all, "tokenizer.json") && len(weights.ModelFiles(all)) == 0 {
			return nil
		}
	}
	names, err := neededFiles(all, variant, func(name string) ([]byte, error) { return os.ReadFile(c.file(name)) })
	if err != nil || slices.ContainsFunc(names, func(name string) bool { return !exists(c.file(name)) }) {
		return nil
	}
	return names
}

// treeFile is the form of trees/COMMIT.json.
type treeFile struct {
	Format int                  `json:"format_version"`
	Files  map[string]treeEntry `json:"files"`
}

const treeFormat = 1

// readTree returns the files of the commit, nil if the cache does not know them.
func (c hubCache) readTree() map[string]treeEntry {
	var t treeFile
	text, err := os.ReadFile(c.path("trees", c.commit+".json"))
	if err != nil || json.Unmarshal(text, &t) != nil || t.Format != treeFormat {
		return nil
	}
	for name, e := range t.Files {
		if !fs.ValidPath(name) || !e.valid() {
			return nil
		}
	}
	return t.Files
}

func (h *Hub) cachedTree(m HubModel, commit string) map[string]treeEntry {
	for _, root := range h.roots() {
		if tree := cacheOf(root, m, commit).readTree(); tree != nil {
			return tree
		}
	}
	return nil
}

// cachedText returns a text of the commit from a cache, nil if it is in none.
func (r *hubRevision) cachedText(name string) []byte {
	for _, root := range r.hub.roots() {
		if text, err := os.ReadFile(r.in(root).file(name)); err == nil {
			return text
		}
	}
	return nil
}

// replaceFile writes a small file at once, so that nobody reads half of it.
func replaceFile(path string, text []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), "*.tmp")
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Chmod(0o644), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

// writeRef notes which commit the revision is.
func (c hubCache) writeRef(m HubModel) error {
	if m.Revision == c.commit {
		return nil
	}
	path := c.path("refs", filepath.FromSlash(m.revision()))
	if text, err := os.ReadFile(path); err == nil && string(text) == c.commit {
		return nil
	}
	return replaceFile(path, []byte(c.commit))
}

// writable returns the first cache that can be written to.
func (h *Hub) writable() (string, error) {
	var first error
	for _, root := range h.caches {
		err := tryWrite(root, root == h.own)
		if err == nil {
			if first != nil {
				h.Log.Info("models are cached in the folder for temporary files; HF_HOME names another", "folder", root, "because", first.Error())
			}
			return root, nil
		}
		first = errors.Join(first, err)
	}
	return "", fmt.Errorf("the cache for models of the hub cannot be written, set HF_HOME to a folder that can: %w", first)
}

// tryWrite creates a folder and finds out whether files can be created in it. One
// of this user's own among everybody's temporary files must not be somebody
// else's, who could put a model there.
func tryWrite(dir string, own bool) error {
	if own {
		parent := filepath.Dir(dir)
		if err := os.Mkdir(parent, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if !isOwn(parent) {
			return fmt.Errorf("%s: belongs to another user, or others can write to it", parent)
		}
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".millrace-*")
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

// isOwn reports whether a folder is this user's, and nobody else can write to it.
func isOwn(dir string) bool {
	info, err := os.Lstat(dir)
	if err != nil || !info.IsDir() || info.Mode().Perm()&0o022 != 0 {
		return false
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(stat.Uid) == os.Getuid()
}

// cacheTag marks the folder as a cache for programs that make backups.
// https://bford.info/cachedir/
const cacheTag = "Signature: 8a477f597d28d172789f06886806bc55\n# This folder is a cache of models of the Hugging Face hub.\n"

// download brings the files of r that are missing into the cache.
func (h *Hub) download(ctx context.Context, c hubCache, r *hubRevision) error {
	for _, dir := range []string{c.path("blobs"), c.snapshot()} {
		if err := os.MkdirAll(dir, 0o777); err != nil {
			return err
		}
	}
	tag := filepath.Join(c.root, "CACHEDIR.TAG")
	tree, err := json.MarshalIndent(treeFile{treeFormat, r.tree}, "", " ")
	if err == nil {
		err = errors.Join(c.writeRef(r.model), replaceFile(c.path("trees", c.commit+".json"), tree))
	}
	if err == nil && !exists(tag) {
		err = replaceFile(tag, []byte(cacheTag))
	}
	if err != nil {
		return err
	}

	var missing []*hubFile
	there := int64(0)
	for _, f := range r.files {
		if hasSize(c.file(f.name), f.Size) {
			there += f.Size
		} else {
			missing = append(missing, f)
		}
	}
	unlock, err := h.lock(ctx, c, missing)
	if err != nil {
		return err
	}
	defer unlock()
	p := h.puller(c.blob(c.commit + ".millrace.json"))
	p.progress = func(done, total int64) { h.Progress(there+done, there+total) }
	for _, f := range missing {
		// huggingface_hub takes up what it finds as HASH.incomplete, and appends.
		if path := c.blob(f.blob()); !hasSize(path, f.Size) {
			p.files[f.blob()] = f.download(path, path+".millrace.incomplete")
		} else {
			there += f.Size
		}
	}
	if err := checkDisk(c, p.files); err != nil {
		return &Error{fmt.Sprintf("%s: %s", r.model, err), err}
	}
	if err := p.run(ctx); err != nil {
		return h.explainWrite(r.model, err)
	}
	for _, f := range missing {
		if err := c.link(f); err != nil {
			return err
		}
	}
	if err := os.Remove(p.state); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// explainWrite explains a disk that has no room, which no request could fail with.
func (h *Hub) explainWrite(m HubModel, err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return &Error{fmt.Sprintf("%s: the disk is full: make room, or set HF_HOME to a folder on another disk, and start again: what has arrived is kept (%v)", m, err), err}
	}
	return err
}

// checkDisk refuses a download for which the disk has no room.
func checkDisk(c hubCache, files map[string]*download) error {
	need := int64(0)
	for _, d := range files {
		need += d.file.length()
		var stat syscall.Stat_t
		if syscall.Stat(d.partial, &stat) == nil {
			need -= min(d.file.length(), stat.Blocks*512)
		}
	}
	var disk syscall.Statfs_t
	if err := syscall.Statfs(c.path("blobs"), &disk); err != nil {
		return nil //nolint:nilerr // how much room there is will be seen
	}
	if free := int64(disk.Bavail) * int64(disk.Bsize); free < need { //nolint:unconvert // the types differ between systems
		return fmt.Errorf("not enough room on the disk: %d MB are needed, %s has %d MB left; set HF_HOME to a folder on another disk", need>>20, c.root, free>>20)
	}
	return nil
}

// link gives a blob its name in the snapshot.
func (c hubCache) link(f *hubFile) error {
	path, blob := c.file(f.name), c.blob(f.blob())
	if hasSize(path, f.Size) {
		return nil // by another process
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return err
	}
	target, err := filepath.Rel(filepath.Dir(path), blob)
	if err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	err = os.Symlink(target, path)
	if errors.Is(err, syscall.EPERM) || errors.Is(err, errors.ErrUnsupported) {
		return os.Rename(blob, path) // a file system without links
	}
	return err
}

// lock takes the locks of the blobs that are missing, in the order of their
// names, as huggingface_hub takes one at a time. It waits while another process
// has one.
func (h *Hub) lock(ctx context.Context, c hubCache, files []*hubFile) (unlock func(), err error) {
	var held []*os.File
	unlock = func() {
		for _, f := range held {
			f.Close() // which unlocks it
		}
	}
	defer func() {
		if err != nil {
			unlock()
		}
	}()
	dir := filepath.Join(c.root, ".locks", c.model)
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, err
	}
	var hashes []string
	for _, f := range files {
		hashes = append(hashes, f.blob())
	}
	slices.Sort(hashes)
	for _, hash := range slices.Compact(hashes) {
		f, err := h.flock(ctx, filepath.Join(dir, hash+".lock"))
		if err != nil {
			return nil, err
		}
		held = append(held, f)
	}
	return unlock, nil
}

// flock opens a file and locks it.
func (h *Hub) flock(ctx context.Context, path string) (*os.File, error) {
	for said := false; ; {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o664)
		if err != nil {
			return nil, err
		}
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil && !isAt(f, path) { // its last owner has removed it
			f.Close()
			continue
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return f, nil // locked, or on a file system without locks, where the same bytes may be downloaded twice
		}
		f.Close()
		if !said {
			said = true
			h.Log.Info("waiting for another process that downloads the same file", "lock", path)
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// isAt reports whether an open file is still the one at a path.
func isAt(f *os.File, path string) bool {
	opened, err := f.Stat()
	if err != nil {
		return false
	}
	now, err := os.Stat(path)
	return err == nil && os.SameFile(opened, now)
}
