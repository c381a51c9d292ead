// Package playground is the page to try a server at: its files, which need no
// build step and no other host, and their handler.
package playground

import (
	"embed"
	"net/http"
)

//go:embed index.html style.css app.js answer.js fields.js snippets.js
var files embed.FS

// policy lets the page load its own files and talk to its own server, and
// nothing else: what a model writes can neither run nor call out.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// Handler serves the page at / of its own; strip what comes before.
func Handler() http.Handler {
	serve := http.FileServerFS(files)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-cache")
		serve.ServeHTTP(w, r)
	})
}
