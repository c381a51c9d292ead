package release

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// tarball is a release's, whose program is a script.
func tarball(t *testing.T, name string) []byte {
	t.Helper()
	var out bytes.Buffer
	zip := gzip.NewWriter(&out)
	files := tar.NewWriter(zip)
	for file, text := range map[string]string{
		"millrace":                  "#!/bin/sh\necho millrace 9.9.9\n",
		"millrace.1":                "man page",
		"completions/millrace.bash": "bash",
		"completions/millrace.zsh":  "zsh",
		"completions/millrace.fish": "fish",
	} {
		if err := files.WriteHeader(&tar.Header{Name: name + "/" + file, Mode: 0o755, Size: int64(len(text))}); err != nil {
			t.Fatal(err)
		}
		if _, err := files.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := files.Close(); err != nil {
		t.Fatal(err)
	}
	if err := zip.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// install.sh downloads the tarball for this machine, checks it, and installs
// what it holds; what is wrong it says in one line, and installs nothing.
func TestInstall(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("there are releases for Linux only")
	}
	name := "millrace_9.9.9_linux_" + runtime.GOARCH
	good := tarball(t, name)
	sums := fmt.Sprintf("%x  %s.tar.gz\n%x  other.txt\n", sha256.Sum256(good), name, sha256.Sum256(nil))
	for _, tt := range []struct {
		name, version, folder, sums string
		data                        []byte
		want                        string // of what it prints
		fails                       bool
	}{
		{name: "latest", folder: "/latest/download/", sums: sums, data: good, want: "Installed millrace 9.9.9"},
		{name: "a version", version: "v9.9.9", folder: "/download/v9.9.9/", sums: sums, data: good, want: "Installed millrace 9.9.9"},
		{name: "damaged", folder: "/latest/download/", sums: sums, data: good[:len(good)-1], want: "is damaged", fails: true},
		{name: "not for this machine", folder: "/latest/download/", sums: "00  millrace_9.9.9_linux_vax.tar.gz\n", data: good, want: "has no binary for " + runtime.GOARCH, fails: true},
		{name: "no such version", version: "1.0.0", folder: "/latest/download/", sums: sums, data: good, want: "v1.0.0/SHA256SUMS cannot be downloaded", fails: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			releases := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				switch r.URL.Path {
				case tt.folder + "SHA256SUMS":
					fmt.Fprint(w, tt.sums)
				case tt.folder + name + ".tar.gz":
					w.Write(tt.data) //nolint:errcheck // the script fails then
				default:
					http.NotFound(w, r)
				}
			}))
			defer releases.Close()
			prefix := t.TempDir()
			cmd := exec.CommandContext(t.Context(), "sh", "install.sh")
			cmd.Env = append(os.Environ(), "MILLRACE_RELEASES="+releases.URL, "MILLRACE_PREFIX="+prefix, "MILLRACE_VERSION="+tt.version, "no_proxy=127.0.0.1")
			out, err := cmd.CombinedOutput()
			if (err != nil) != tt.fails || !strings.Contains(string(out), tt.want) {
				t.Fatalf("%v, %s; want %q", err, out, tt.want)
			}
			for _, file := range []string{
				"bin/millrace", "share/man/man1/millrace.1", "share/bash-completion/completions/millrace",
				"share/zsh/site-functions/_millrace", "share/fish/vendor_completions.d/millrace.fish",
			} {
				if _, err := os.Stat(filepath.Join(prefix, file)); os.IsNotExist(err) != tt.fails {
					t.Errorf("%s: %v", file, err)
				}
			}
		})
	}
}
