// Package playground is the web page to try a server with: its files, which
// need no build step and no other host, and their handler. The libraries it
// uses are in lib, as lib.sh fetched them.
package playground

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io/fs"
	"net/http"
	"strings"
)

//go:embed *.html *.css *.js lib/*.js lib/*.txt
var files embed.FS

// policy lets the page load its own files and talk to its own server, and
// nothing else: what a model writes can neither run nor call out. HTML is
// parsed by DOMPurify alone.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types dompurify"

// Handler serves the page at / of its own; strip what comes before.
func Handler() http.Handler {
	serve := http.FileServerFS(files)
	tags := etags()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-cache") // ask each time whether it has changed
		if tag := tags[strings.TrimPrefix(r.URL.Path, "/")]; tag != "" {
			h.Set("ETag", tag)
		}
		serve.ServeHTTP(w, r)
	})
}

// etags returns the entity tag of each file, and of the page itself as "".
func etags() map[string]string {
	tags := map[string]string{}
	err := fs.WalkDir(files, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := files.ReadFile(path)
		sum := sha256.Sum256(data)
		tags[path] = `"` + hex.EncodeToString(sum[:8]) + `"`
		return err
	})
	if err != nil {
		panic(err) // only if the binary is broken
	}
	tags[""] = tags["index.html"]
	return tags
}
