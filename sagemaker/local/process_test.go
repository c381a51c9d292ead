package local

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// script writes an executable shell script.
func script(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// log is an io.Writer that a test reads while others write.
type log struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestProcesses(t *testing.T) {
	for _, tt := range []struct {
		name   string
		script string
		end    func(Container)
		status int
	}{
		{"ends at SIGTERM", `trap 'echo ending; exit 3' TERM; echo up; while :; do sleep 0.01; done`, Container.Terminate, 3},
		{"is killed", `trap '' TERM; echo up; while :; do sleep 0.01; done`, Container.Kill, 137},
		{"dies of a signal", `echo up; while :; do sleep 0.01; done`, Container.Terminate, 143},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out := &log{}
			p := &Processes{
				Path: script(t, `printf 'args %s %s, port %s\n' "$1" "$2" "$SAGEMAKER_BIND_TO_PORT"; `+tt.script),
				Args: []string{"serve", "--x"}, Env: []string{"PATH=" + os.Getenv("PATH")}, Log: out,
			}
			c, err := p.Launch(context.Background(), 2)
			if err != nil {
				t.Fatal(err)
			}
			eventually(t, "it is up", func() bool { return strings.Contains(out.String(), "[2] up\n") })
			tt.end(c)
			<-c.Exited()
			if c.ExitStatus() != tt.status {
				t.Errorf("exit status %d, want %d", c.ExitStatus(), tt.status)
			}
			_, port, _ := strings.Cut(c.Address(), ":")
			if want := "[2] args serve --x, port " + port + "\n"; !strings.HasPrefix(out.String(), want) {
				t.Errorf("log %q, want %q first", out.String(), want)
			}
		})
	}
}

func TestAProgramThatCannotBeStarted(t *testing.T) {
	if _, err := (&Processes{Path: "/no/such/program"}).Launch(context.Background(), 1); err == nil {
		t.Error("no error")
	}
}

// A docker that notes its command lines, and whose run ends when its kill says so.
const fakeDocker = `
dir=$(dirname "$0")
[ "$1" = inspect ] && [ ! -e "$dir/running" ] && exit 1
echo "$@" >> "$dir/calls"
case "$1" in
run) touch "$dir/running"; while [ ! -e "$dir/TERM" ]; do sleep 0.01; done; exit 5 ;;
kill) touch "$dir/$3" ;;
inspect) case "$3" in *IPAddress*) echo 172.30.0.7 ;; *) echo /no/such/namespace ;; esac ;;
image) exit 1 ;;
esac
`

func TestDockerRunsAnImageAsSageMakerDoes(t *testing.T) {
	for _, tt := range []struct {
		name        string
		docker      *Docker
		wantRun     []string // groups of words of the command line, in order
		wantAddress string   // "": a port of this machine
		wantCalls   []string // first words of the other calls
	}{
		{
			name: "with a network",
			docker: &Docker{
				Image: "img", Args: []string{"--quantize", "int8"}, Env: []string{"A=b", "AWS_REGION"},
				Mounts: map[string]string{"/m": "/opt/ml/model"}, Memory: "8g", CPUs: "4",
			},
			wantRun: []string{"--read-only", "--tmpfs /tmp", "--shm-size 64m", "--publish 127.0.0.1:", "--memory 8g", "--cpus 4",
				"--volume /m:/opt/ml/model:ro", "--env A=b", "--env AWS_REGION", "img serve --quantize int8"},
			wantCalls: []string{"image inspect", "pull img", "run", "kill --signal TERM"},
		}, {
			name:        "isolated",
			docker:      &Docker{Image: "img", Isolated: true},
			wantRun:     []string{"--read-only", "--network none", "img serve"},
			wantAddress: "127.0.0.1:8080",
			wantCalls:   []string{"image inspect", "pull img", "run", "inspect", "kill --signal TERM"},
		}, {
			name:        "isolated, unprivileged",
			docker:      &Docker{Image: "img", Isolated: true, Unprivileged: true},
			wantRun:     []string{"--read-only", "--network millrace-local-", "img serve"},
			wantAddress: "172.30.0.7:8080",
			wantCalls:   []string{"image inspect", "pull img", "network create --internal millrace-local-", "run", "inspect", "kill --signal TERM", "network rm millrace-local-"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx := context.Background()
			d := tt.docker
			d.Command = script(t, fakeDocker)
			if err := d.Open(ctx); err != nil {
				t.Fatal(err)
			}
			c, err := d.Launch(ctx, 1)
			if err != nil {
				t.Fatal(err)
			}
			if tt.wantAddress == "" && !strings.HasPrefix(c.Address(), "127.0.0.1:") || tt.wantAddress != "" && c.Address() != tt.wantAddress {
				t.Errorf("address %s, want %q", c.Address(), tt.wantAddress)
			}
			eventually(t, "the container runs", func() bool {
				_, err := os.Stat(filepath.Join(filepath.Dir(d.Command), "running"))
				return err == nil
			})
			c.Terminate()
			<-c.Exited()
			if c.ExitStatus() != 5 {
				t.Errorf("exit status %d, want the container's, 5", c.ExitStatus())
			}
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			b, err := os.ReadFile(filepath.Join(filepath.Dir(d.Command), "calls"))
			if err != nil {
				t.Fatal(err)
			}
			calls := strings.Split(strings.TrimSpace(string(b)), "\n")
			at := slices.IndexFunc(calls, func(c string) bool { return strings.HasPrefix(c, "run ") })
			rest := calls[at]
			for _, words := range tt.wantRun {
				_, after, found := strings.Cut(rest, " "+words)
				if !found {
					t.Fatalf("%s: missing %q, or not in order", calls[at], words)
				}
				rest = after
			}
			if strings.Contains(calls[at], "--publish") == d.Isolated {
				t.Errorf("%s: published: %v", calls[at], !d.Isolated)
			}
			for i, c := range calls {
				if len(calls) != len(tt.wantCalls) || !strings.HasPrefix(c, tt.wantCalls[i]) {
					t.Fatalf("calls:\n%s\nwant\n%s", strings.Join(calls, "\n"), strings.Join(tt.wantCalls, "\n"))
				}
			}
		})
	}
}
