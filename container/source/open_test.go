package source

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/millrace-ai/millrace/container/source/s3test"
)

// TestWarnsOfSettings: a config file that is not read is not passed over in
// silence.
func TestWarnsOfSettings(t *testing.T) {
	files := randomModel(7, 1, 2, 500)
	files["millrace.yaml"] = []byte("max-total-tokens: 100\n")
	server := s3test.NewServer(t)
	put(server, "models", "llama/", files)
	server.Put("models", "m.tar.gz", pack(t, files, ".gz", nil))
	for _, location := range []string{"s3://models/llama", "s3://models/m.tar.gz"} {
		var log bytes.Buffer
		b := testBucket(t, server.URL, location, quick)
		b.log = slog.New(slog.NewTextHandler(&log, nil))
		if _, _, err := read(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(log.String(), "config file without effect") || !strings.Contains(log.String(), "file=millrace.yaml") {
			t.Errorf("%s: log %q, want a warning", location, log.String())
		}
	}
}
