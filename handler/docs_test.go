package handler

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// Swagger UI as its reader meets it, in a browser, below the prefix of a proxy
// and with an API key: what it offers for each operation can be sent.
func TestDocs(t *testing.T) {
	b := openBrowser(t)
	s := newChatServer(t, plainTemplate, &fake{}, func(o *Options) { o.APIKey = "k" })
	proxy := httptest.NewServer(http.StripPrefix("/a/prefix", s))
	defer proxy.Close()
	b.must("Page.navigate", object{"url": proxy.URL + "/a/prefix/docs"}, nil)
	b.until("document.querySelector('.opblock')")

	b.eval("document.querySelector('.btn.authorize').click()")
	b.until("document.querySelector('.auth-container input')")
	b.write(".auth-container input", "k")
	b.eval("document.querySelector('.modal-btn.authorize').click()")
	b.until("document.querySelector('.auth-container h6')") // "Authorized"
	b.eval("document.querySelector('.btn-done').click()")

	operations := strings.Fields(b.eval("[...document.querySelectorAll('.opblock')].map(o => o.id).join(' ')"))
	if len(operations) < 14 {
		t.Errorf("operations: %q", operations)
	}
	for _, id := range operations {
		t.Run(id, func(t *testing.T) {
			part := func(selector string) string { return "document.querySelector(" + quoted("#"+id+" "+selector) + ")" }
			b.eval(part(".opblock-summary-control") + ".click()")
			// The page takes a moment to resolve what it shows and to fill in the body.
			method, path := b.eval(part(".opblock-summary-method")+".textContent.toLowerCase()"), b.eval(part(".opblock-summary-path")+".dataset.path")
			b.until("ui.specSelectors.specResolvedSubtree(['paths', " + quoted(path) + ", " + quoted(method) + "])")
			b.until(part(".execute") + " && (" + quoted(method) + " == 'get' || " + part("textarea") + ".value)")
			b.eval(part(".execute") + ".click()")
			b.until(part(".live-responses-table tbody .response-col_status"))
			status := b.eval(part(".live-responses-table tbody .response-col_status") + ".textContent")
			if !strings.HasPrefix(status, "2") {
				t.Errorf("%s: %s", status, b.eval(part(".live-responses-table")+".innerText"))
			}
			b.eval(part(".opblock-summary-control") + ".click()") // or the page grows slow
		})
	}

	b.checkVisit(proxy.URL)
}
