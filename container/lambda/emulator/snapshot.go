package emulator

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"time"
)

// Snapshotter is a Sandbox of which copies can be made.
type Snapshotter interface {
	Sandbox
	// Snapshot ends the sandbox and keeps what it was.
	Snapshot() (Snapshot, error)
}

// Snapshot makes copies of a sandbox, one at a time.
type Snapshot interface {
	Restore(log io.Writer) (Sandbox, error)
	Close() // deletes it
}

// restoreLimit is how long a copy of a snapshot may take to ask for its first event.
const restoreLimit = 10 * time.Second

// snapshot is an initialized environment that waits to be restored.
type snapshot struct {
	env    *environment // frozen, if it is not copied: the first restoration uses it up
	images Snapshot     // what is copied; nil: env
	server *http.Server // of the Runtime API, whose address the copies know
	live   *live
}

// live is the Runtime API of the environment that has its address now.
type live struct{ atomic.Pointer[environment] }

// ServeHTTP implements http.Handler.
func (l *live) ServeHTTP(w http.ResponseWriter, r *http.Request) { l.Load().api.ServeHTTP(w, r) }

// Publish initializes the function and takes a snapshot of it, as Lambda does when
// a version is published.
func (m *Emulator) Publish() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if f := m.publish(); f != nil {
		return errors.New(string(f.data()))
	}
	return nil
}

func (m *Emulator) publish() *failure {
	begin := time.Now()
	env, f := start(m.ctx, &m.opt, m.log, max(m.opt.InitTimeout, m.opt.Timeout))
	status := ""
	if f != nil {
		status = "\tStatus: " + f.status()
	}
	m.logf("INIT_REPORT Init Duration: %.2f ms\tPhase: init%s", milliseconds(time.Since(begin)), status)
	if f != nil {
		return f
	}
	copied, ok := env.sandbox.(Snapshotter)
	if !ok {
		env.mu.Lock()
		env.freeze()
		env.mu.Unlock()
		m.snapshot = &snapshot{env: env}
		return nil
	}
	images, err := copied.Snapshot()
	if err != nil {
		env.kill()
		return &failure{Type: "Sandbox.NoSnapshot", Message: fmt.Sprintf("no snapshot can be taken: %v", err)}
	}
	m.snapshot = &snapshot{images: images, server: env.server, live: env.server.Handler.(*live)}
	return nil
}

// restore starts an environment from the snapshot.
func (m *Emulator) restore() (*environment, time.Duration, *failure) {
	if m.snapshot == nil {
		if f := m.publish(); f != nil {
			return nil, 0, f
		}
	}
	begin := time.Now()
	env, f := m.copy()
	if f == nil {
		close(env.restored)
		f = env.await(m.ctx, env.first, m.opt.restore)
	}
	took := time.Since(begin)
	if f != nil {
		m.logf("RESTORE_REPORT Restore Duration: %.2f ms\tStatus: %s", milliseconds(took), f.status())
		return nil, 0, f
	}
	m.logf("RESTORE_REPORT Restore Duration: %.2f ms", milliseconds(took))
	m.env = env
	return env, took, nil
}

// copy returns an environment whose sandbox is a copy of the snapshot, and has not
// been told so.
func (m *Emulator) copy() (*environment, *failure) {
	s := m.snapshot
	if env := s.env; env != nil {
		m.snapshot = nil
		env.mu.Lock()
		env.thaw()
		env.mu.Unlock()
		return env, nil
	}
	env := newEnvironment(&m.opt)
	s.live.Store(env)
	var err error
	if env.sandbox, err = s.images.Restore(m.log); err != nil {
		return nil, &failure{Type: "Sandbox.NotRestored", Message: fmt.Sprintf("the snapshot cannot be restored: %v", err)}
	}
	return env, nil
}

func (s *snapshot) close() {
	if s.env != nil {
		s.env.kill()
	}
	if s.images != nil {
		s.server.Close()
		s.images.Close()
	}
}
