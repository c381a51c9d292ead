package local

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// Transform is a batch transform job: each file of a folder goes to the
// containers, in one piece or line by line, and what they answer into a file of
// the same name with .out after it.
//
// As on SageMaker, a file of which a record fails has no output, the others have,
// and the job has failed.
type Transform struct {
	Input  string // a file, or a folder with all below it
	Output string // a folder

	ContentType string // of the records
	Accept      string
	Split       bool     // each line is a record, else each file
	Assemble    bool     // a line end after each answer
	Strategy    Strategy // "": the container's

	// What a call may be at most and how many there are at once for each instance; 0:
	// as the container says, or else the platform's.
	MaxPayloadMB  int
	MaxConcurrent int

	Timeout time.Duration // of a call
	Retries int           // of a call that fails for another reason than its body
}

// Strategy is how many records a call has.
type Strategy string

// The strategies.
const (
	SingleRecord Strategy = "SingleRecord"
	MultiRecord  Strategy = "MultiRecord" // as many as MaxPayloadMB allows
)

// The platform's defaults and limits of a transform job.
const (
	usualPayloadMB     = 6
	mostPayloadMB      = 100 // of all calls at once, too
	mostCallTime       = time.Hour
	mostRetries        = 3
	executionPath      = "/execution-parameters"
	executionPatience  = 2 * time.Second
	mostExecutionBytes = 64 << 10
)

// Transformed is how a job went.
type Transformed struct {
	Files    int               // with an output
	Calls    int               // that were answered
	Failed   map[string]string // files without, and why
	Settings string            // that were used
	Summary  *Summary          // how the instances ended
}

// Check says what SageMaker would refuse.
func (t *Transform) Check() error {
	switch {
	case t.MaxPayloadMB < 0 || t.MaxPayloadMB > mostPayloadMB:
		return fmt.Errorf("payload of %d MB: expected 1 to %d", t.MaxPayloadMB, mostPayloadMB)
	case t.MaxConcurrent < 0 || t.MaxConcurrent > mostPayloadMB:
		return fmt.Errorf("%d calls at once: expected 1 to %d", t.MaxConcurrent, mostPayloadMB)
	case t.MaxConcurrent*t.MaxPayloadMB > mostPayloadMB:
		return fmt.Errorf("%d calls at once of %d MB: SageMaker takes %d MB in all", t.MaxConcurrent, t.MaxPayloadMB, mostPayloadMB)
	case t.Strategy == MultiRecord && !t.Split:
		return errors.New("MultiRecord needs records that are lines")
	case t.Timeout < time.Second || t.Timeout > mostCallTime:
		return fmt.Errorf("a call's time of %v: expected 1s to %v", t.Timeout, mostCallTime)
	case t.Retries < 0 || t.Retries > mostRetries:
		return fmt.Errorf("%d retries: expected 0 to %d", t.Retries, mostRetries)
	}
	return nil
}

// Run starts the instances of cfg, transforms the input and stops them. The error
// says why the job could not be done at all.
func (t *Transform) Run(ctx context.Context, cfg Config) (*Transformed, error) {
	if err := errors.Join(t.Check(), cfg.check()); err != nil {
		return nil, err
	}
	files, err := inputs(t.Input)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	fl := newFleet(&cfg)
	result := &Transformed{Failed: map[string]string{}}
	var job error
	err = fl.run(ctx, func(ctx context.Context) {
		defer cancel()
		job = t.work(ctx, fl, files, result)
	})
	if err = errors.Join(err, job); err != nil {
		return nil, err
	}
	result.Summary = fl.summary()
	return result, nil
}

// inputs are the files of a job, by their names below the input.
func inputs(place string) (names map[string]string, err error) {
	names = map[string]string{}
	err = filepath.WalkDir(place, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(place, path)
		if name == "." {
			name = filepath.Base(path)
		}
		names[name] = path
		return err
	})
	if err == nil && len(names) == 0 {
		err = fmt.Errorf("%s has no file", place)
	}
	return names, err
}

// work transforms the files, one after the other.
func (t *Transform) work(ctx context.Context, fl *fleet, files map[string]string, result *Transformed) error {
	fl.mu.Lock()
	instances := slices.Clone(fl.instances)
	fl.mu.Unlock()
	settings, err := t.settle(ctx, instances[0])
	if err != nil {
		return err
	}
	result.Settings = fmt.Sprintf("%s, up to %d MB a call, %d calls at once for each instance", settings.Strategy, settings.MaxPayloadMB, settings.MaxConcurrent)
	names := make([]string, 0, len(files))
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := settings.file(ctx, fl, instances, files[name], filepath.Join(t.Output, name+".out"), result); err != nil {
			result.Failed[name] = err.Error()
		}
	}
	return ctx.Err()
}

// settle asks a container for its execution parameters, and returns the job with
// what neither it nor the container has said.
func (t *Transform) settle(ctx context.Context, in *instance) (*Transform, error) {
	said := struct {
		MaxConcurrentTransforms int
		BatchStrategy           string
		MaxPayloadInMB          int
	}{}
	ctx, cancel := context.WithTimeout(ctx, executionPatience)
	defer cancel()
	req, err := in.request(ctx, http.MethodGet, executionPath, nil, nil)
	if err != nil {
		return nil, err
	}
	if resp, err := in.transport.RoundTrip(req); err == nil {
		defer resp.Body.Close()
		if resp.StatusCode == http.StatusOK {
			body, err := io.ReadAll(io.LimitReader(resp.Body, mostExecutionBytes))
			if err = errors.Join(err, json.Unmarshal(body, &said)); err != nil {
				return nil, fmt.Errorf("the container's %s: %w", executionPath, err)
			}
		}
	}
	settled := *t
	if settled.Strategy == "" {
		settled.Strategy = SingleRecord
		if said.BatchStrategy == "MULTI_RECORD" && t.Split {
			settled.Strategy = MultiRecord
		}
	}
	for _, f := range []struct {
		value       *int
		said, usual int
	}{
		{&settled.MaxPayloadMB, said.MaxPayloadInMB, usualPayloadMB},
		{&settled.MaxConcurrent, said.MaxConcurrentTransforms, 1},
	} {
		if *f.value == 0 {
			*f.value = f.said
		}
		if *f.value == 0 {
			*f.value = f.usual
		}
	}
	// What the container says of one was for its own value of the other.
	switch {
	case t.MaxConcurrent == 0:
		settled.MaxConcurrent = min(settled.MaxConcurrent, max(1, mostPayloadMB/settled.MaxPayloadMB))
	case t.MaxPayloadMB == 0:
		settled.MaxPayloadMB = min(settled.MaxPayloadMB, mostPayloadMB/settled.MaxConcurrent)
	}
	if err := settled.Check(); err != nil {
		return nil, fmt.Errorf("what the container's %s says: %w", executionPath, err)
	}
	return &settled, nil
}

// file transforms one file.
func (t *Transform) file(ctx context.Context, fl *fleet, instances []*instance, from, to string, result *Transformed) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	calls, err := t.calls(data)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	answers := make([][]byte, len(calls))
	next := make(chan int)
	var workers sync.WaitGroup
	var mu sync.Mutex
	for _, in := range instances {
		for range t.MaxConcurrent {
			workers.Go(func() {
				for i := range next {
					answer, err := t.call(ctx, in, calls[i])
					if err != nil {
						cancel(fmt.Errorf("call %d of %d: %w", i+1, len(calls), err))
						continue
					}
					answers[i] = answer
					mu.Lock()
					result.Calls++
					mu.Unlock()
				}
			})
		}
	}
feeding:
	for i := range calls {
		select {
		case next <- i:
		case <-ctx.Done():
			break feeding
		}
	}
	close(next)
	workers.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var out bytes.Buffer
	for _, answer := range answers {
		out.Write(answer)
		if t.Assemble && !bytes.HasSuffix(answer, []byte("\n")) {
			out.WriteByte('\n')
		}
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o777); err != nil {
		return err
	}
	if err := os.WriteFile(to, out.Bytes(), 0o666); err != nil {
		return err
	}
	result.Files++
	return nil
}

// calls cuts a file into the bodies of calls.
func (t *Transform) calls(data []byte) (bodies [][]byte, err error) {
	most := t.MaxPayloadMB << 20
	records := [][]byte{data}
	if t.Split {
		records = nil
		for line := range bytes.Lines(data) {
			if line = bytes.TrimRight(line, "\r\n"); len(line) > 0 {
				records = append(records, line)
			}
		}
	}
	for i, record := range records {
		if len(record) > most {
			return nil, fmt.Errorf("record %d has %d bytes, a call takes %d MB", i+1, len(record), t.MaxPayloadMB)
		}
		if last := len(bodies) - 1; t.Strategy == MultiRecord && last >= 0 && len(bodies[last])+1+len(record) <= most {
			bodies[last] = append(append(bodies[last], '\n'), record...)
			continue
		}
		bodies = append(bodies, slices.Clip(record))
	}
	return bodies, nil
}

// call sends a body to a container, and again if it fails for a reason that is
// not in the body.
func (t *Transform) call(ctx context.Context, in *instance, body []byte) (answer []byte, err error) {
	for try := 0; ; try++ {
		status := 0
		status, answer, err = t.once(ctx, in, body)
		if err == nil && status/100 == 2 {
			return answer, nil
		}
		if err == nil {
			err = fmt.Errorf("the container answered %d: %s", status, cut(strings.TrimSpace(string(answer)), messageLimit))
		}
		passing := status == 0 || status == http.StatusTooManyRequests || status >= http.StatusInternalServerError
		if !passing || try == t.Retries || ctx.Err() != nil {
			return nil, err
		}
		select {
		case <-time.After(startPoll << try):
		case <-ctx.Done():
		}
	}
}

func (t *Transform) once(ctx context.Context, in *instance, body []byte) (status int, answer []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, t.Timeout)
	defer cancel()
	header := http.Header{"Content-Type": {t.ContentType}}
	if t.Accept != "" {
		header.Set("Accept", t.Accept)
	}
	req, err := in.request(ctx, http.MethodPost, "/invocations", header, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	resp, err := in.transport.RoundTrip(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	answer, err = io.ReadAll(resp.Body)
	if err != nil {
		return 0, nil, err
	}
	return resp.StatusCode, answer, nil
}
