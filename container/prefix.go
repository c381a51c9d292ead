package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/millrace-ai/millrace/container/config"
	"github.com/millrace-ai/millrace/container/source"
	"github.com/millrace-ai/millrace/engine"
	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/plan"
)

// weighed is a backend that notes which weights it is given: the sum depends on
// every byte of them, and neither on their order nor on how they are cut.
type weighed struct {
	device.Backend
	sum uint64
}

// NewTensor implements device.Backend.
func (w *weighed) NewTensor(name string, format plan.Format, shape []int) (device.Handle, error) {
	h, err := w.Backend.NewTensor(name, format, shape)
	w.add(h, -1, fmt.Appendf(nil, "%s %v %v", name, format, shape))
	return h, err
}

// WriteTensor implements device.Backend.
func (w *weighed) WriteTensor(h device.Handle, first, n int, src []byte) error {
	w.addRows(h, first, n, src)
	return w.Backend.WriteTensor(h, first, n, src)
}

func (w *weighed) addRows(h device.Handle, first, n int, src []byte) {
	for i := range n {
		w.add(h, first+i, src[i*len(src)/n:(i+1)*len(src)/n])
	}
}

// Converts implements device.Converter.
func (w *weighed) Converts(from, to plan.Format) bool { return device.Converts(w.Backend, from, to) }

// ConvertTensor implements device.Converter.
func (w *weighed) ConvertTensor(h device.Handle, first, n int, src []byte, from plan.Format) error {
	w.addRows(h, first, n, src)
	return device.ConvertTensor(w.Backend, h, first, n, src, from)
}

// AdoptTensor implements device.Backend.
func (w *weighed) AdoptTensor(h device.Handle, packed []byte, release func()) error {
	w.add(h, -2, packed)
	return w.Backend.AdoptTensor(h, packed, release)
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// add counts in a row of a tensor. What is summed up is mixed as SplitMix64 does.
func (w *weighed) add(h device.Handle, row int, data []byte) {
	x := uint64(crc32.Checksum(data, castagnoli)) ^ uint64(row)<<32 ^ uint64(h)*0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	w.sum += x ^ x>>31
}

// prefixOrigin is what pages of this server come from.
func (s *server) prefixOrigin(l *loadedModel) engine.PrefixOrigin {
	digest := sha256.Sum256([]byte(s.model.plan.String()))
	return engine.PrefixOrigin{
		Build:      strings.TrimPrefix(versionLine(), "millrace "),
		Backend:    strings.Join([]string{l.caps.Name, l.caps.Detail, runtime.GOARCH}, " "),
		Weights:    fmt.Sprintf("%016x", l.weights),
		Plan:       hex.EncodeToString(digest[:]),
		Cache:      s.cfg.KVCacheDtype,
		PageBytes:  l.info.PageBytes,
		StateBytes: l.info.StateBytes,
	}
}

// prefixFile is a prefix file that is opened.
type prefixFile struct {
	place string
	io.Reader
	close func() error
	err   error // why it cannot be read
}

// prefixPatience is how long a server that could serve waits for prefix files.
var prefixPatience = 30 * time.Second

// openPrefixes opens the files of --prefix-cache-file and returns a function that
// waits for them. What arrives from S3 does so while the weights do.
func (s *server) openPrefixes(ctx context.Context) (opened func() []*prefixFile) {
	ctx, cancel := context.WithCancelCause(ctx)
	var files []chan *prefixFile
	for place := range strings.SplitSeq(s.cfg.PrefixCacheFile, ",") {
		if place = strings.TrimSpace(place); place == "" {
			continue
		}
		file := make(chan *prefixFile, 1)
		files = append(files, file)
		go func() {
			f := &prefixFile{place: place, close: func() error { return nil }}
			if in, err := source.OpenFile(ctx, place, s.log); err != nil {
				f.err = err
			} else {
				buffered := bufio.NewReader(in)
				_, f.err = buffered.Peek(1) // from S3 this asks for more
				if errors.Is(f.err, io.EOF) {
					f.err = nil // ReadPrefix says what is wrong
				}
				f.Reader, f.close = buffered, in.Close
			}
			file <- f
		}()
	}
	return func() (all []*prefixFile) {
		time.AfterFunc(prefixPatience, func() { cancel(fmt.Errorf("it has not arrived within %v", prefixPatience)) })
		for _, file := range files {
			all = append(all, <-file)
		}
		return all
	}
}

// restorePrefixes puts prefix files into the cache. One that cannot be used is a
// warning: without it prompts are computed, as they would be.
func (s *server) restorePrefixes(l *loadedModel, files []*prefixFile) {
	if len(files) == 0 {
		return
	}
	origin := s.prefixOrigin(l)
	for _, f := range files {
		start, tokens, err := time.Now(), 0, f.err
		if err == nil {
			tokens, err = l.readPrefix(f, origin)
		}
		_ = f.close() // it was read
		if err != nil {
			s.log.Warn("a prefix file is not used", "file", config.HideSecrets(f.place), "err", err)
			continue
		}
		s.log.Info("prefix restored", "file", config.HideSecrets(f.place), "tokens", tokens, "seconds", time.Since(start).Seconds())
	}
	s.phases.mark("prefix")
}

// prefixCommand is the command that writes a prefix file.
type prefixCommand struct {
	Model  string   `arg:"" help:"The model, as for serve; an empty argument is the one that serve would take without."`
	Prompt string   `arg:"" help:"How prompts begin: a text, or the JSON body of a chat request, of which all is kept that comes before the last user message. @FILE reads it from a file, - from standard input."`
	File   string   `arg:"" help:"The file to write, for serve --prefix-cache-file."`
	Args   []string `arg:"" optional:"" help:"After --: the flags that serve will have, as far as they change the model or its cache."`
}

// Run writes the file.
func (c *prefixCommand) Run(ctx context.Context) error {
	prompt, err := readArgument(c.Prompt)
	if err != nil {
		return usageError{fmt.Errorf("prefix: %w", err)}
	}
	bodies, route, err := prefixBodies(prompt)
	if err != nil {
		return usageError{fmt.Errorf("prefix: %w", err)}
	}
	args := append([]string{"--log-level=error", "--no-json-output"}, c.Args...)
	if c.Model != "" {
		args = append([]string{c.Model}, args...)
	}
	cfg, settings, _, err := parseServe(args, os.Environ())
	if err != nil {
		return usageError{fmt.Errorf("prefix: %w", err)}
	}
	cfg.LoraAdapters, cfg.PrefixCacheFile, cfg.Replicas = "", "", 1
	reportFaults()
	s, err := newServer(cfg, settings, nil, nil)
	if err != nil {
		return usageError{err}
	}
	defer s.tracing.stop()
	s.weigh = true
	l, err := s.load(ctx)
	if err != nil {
		return usageError{err}
	}
	defer l.close()
	tokens, err := s.computePrefix(ctx, l, route, bodies)
	if err != nil {
		return fmt.Errorf("prefix: %w", err)
	}
	bytes, err := s.writePrefix(l, tokens, c.File)
	if err != nil {
		return fmt.Errorf("prefix: %w", err)
	}
	_, err = fmt.Fprintf(os.Stderr, "%d tokens, %s in %s\n", len(tokens), size(bytes), c.File)
	return err
}

// readArgument returns a text that is given, or named by @FILE or -.
func readArgument(text string) (string, error) {
	name, named := strings.CutPrefix(text, "@")
	switch {
	case text == "-":
		data, err := io.ReadAll(os.Stdin)
		return string(data), err
	case named:
		data, err := os.ReadFile(name)
		return string(data), err
	}
	return text, nil
}

// endings are what may follow a beginning: what they make of the tokens before
// them is not part of it.
var endings = []string{"a", " B", "1", "\n\n-"}

// prefixBodies are requests that begin as prompt says and go on differently, and
// the route that makes tokens of them.
func prefixBodies(prompt string) (bodies [][]byte, route string, err error) {
	var chat map[string]json.RawMessage
	if !strings.HasPrefix(strings.TrimSpace(prompt), "{") || json.Unmarshal([]byte(prompt), &chat) != nil || chat["messages"] == nil {
		for _, ending := range endings {
			body, err := json.Marshal(map[string]string{"inputs": prompt + ending})
			if err != nil {
				return nil, "", err
			}
			bodies = append(bodies, body)
		}
		return bodies, "/tokenize", nil
	}
	for _, field := range []string{"cache_salt", "adapter_id"} {
		if chat[field] != nil && string(chat[field]) != "null" {
			return nil, "", fmt.Errorf("`%s` is not supported: what such a request has in the cache is not written to files", field)
		}
	}
	delete(chat, "model") // whatever its name is there
	var messages []json.RawMessage
	if err := json.Unmarshal(chat["messages"], &messages); err != nil {
		return nil, "", fmt.Errorf("`messages`: %w", err)
	}
	if n := len(messages); n > 0 {
		var last struct{ Role string }
		if json.Unmarshal(messages[n-1], &last) == nil && last.Role == "user" {
			messages = messages[:n-1]
		}
	}
	for _, ending := range endings {
		user, err := json.Marshal(map[string]string{"role": "user", "content": ending})
		if err != nil {
			return nil, "", err
		}
		if chat["messages"], err = json.Marshal(append(messages[:len(messages):len(messages)], user)); err != nil {
			return nil, "", err
		}
		body, err := json.Marshal(chat)
		if err != nil {
			return nil, "", err
		}
		bodies = append(bodies, body)
	}
	return bodies, "/chat_tokenize", nil
}

// computePrefix runs the model over the tokens that the prompts of all bodies have
// in common, and returns those that the cache has then.
func (s *server) computePrefix(ctx context.Context, l *loadedModel, route string, bodies [][]byte) (tokens []int32, err error) {
	running := make(chan error, 1)
	go func() { running <- l.engine.Run(ctx) }()
	defer func() {
		drained := l.engine.Drain(context.Background())
		s.api.Drain()
		err = errors.Join(err, drained, <-running)
		l.compiler.close()
	}()
	s.api.SetReady(s.ready(l, nil))
	for i, body := range bodies {
		ids, err := s.tokenize(ctx, route, body)
		if err != nil {
			return nil, err
		}
		if i == 0 {
			tokens = ids
		}
		n := 0
		for n < min(len(tokens), len(ids)) && tokens[n] == ids[n] {
			n++
		}
		tokens = tokens[:n]
	}
	return l.replicas[0].engine.ComputePrefix(ctx, tokens)
}

// tokenize asks the API for the tokens of a request.
func (s *server) tokenize(ctx context.Context, route string, body []byte) (ids []int32, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, route, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+s.cfg.APIKey)
	answer := &memoryAnswer{header: http.Header{}}
	s.api.ServeHTTP(answer, req)
	if answer.status != http.StatusOK {
		var said struct{ Error string }
		if err := json.Unmarshal(answer.body.Bytes(), &said); err != nil {
			return nil, err
		}
		return nil, errors.New(said.Error)
	}
	var list []struct{ ID int32 }
	if route == "/chat_tokenize" {
		var chat struct {
			Response json.RawMessage `json:"tokenize_response"`
		}
		if err := json.Unmarshal(answer.body.Bytes(), &chat); err != nil {
			return nil, err
		}
		err = json.Unmarshal(chat.Response, &list)
	} else {
		err = json.Unmarshal(answer.body.Bytes(), &list)
	}
	for _, token := range list {
		ids = append(ids, token.ID)
	}
	return ids, err
}

// memoryAnswer is an answer of the API to this process itself.
type memoryAnswer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

// Header implements http.ResponseWriter.
func (a *memoryAnswer) Header() http.Header { return a.header }

// WriteHeader implements http.ResponseWriter.
func (a *memoryAnswer) WriteHeader(status int) { a.status = cmp.Or(a.status, status) }

// Write implements http.ResponseWriter.
func (a *memoryAnswer) Write(p []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	return a.body.Write(p)
}

// writePrefix writes the file, which is there whole or not at all.
func (s *server) writePrefix(l *loadedModel, tokens []int32, name string) (bytes int64, err error) {
	f, err := os.CreateTemp(filepath.Dir(name), filepath.Base(name)+".*")
	if err != nil {
		return 0, err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	out := bufio.NewWriterSize(f, 1<<20)
	err = errors.Join(l.replicas[0].engine.WritePrefix(out, tokens, s.prefixOrigin(l)), out.Flush(), f.Chmod(0o644))
	info, statErr := f.Stat()
	if err = errors.Join(err, statErr, f.Close()); err != nil {
		return 0, err
	}
	return info.Size(), os.Rename(f.Name(), name)
}
