package local

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"path"
	"regexp"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
)

const (
	headerInput      = amzn + "Inputlocation"
	headerOutput     = amzn + "Outputlocation"
	headerFailure    = amzn + "Failurelocation"
	headerFilename   = amzn + "Filename"
	headerExtension  = amzn + "S3outputpathextension"
	headerTTL        = amzn + "Requestttlseconds"
	headerInvocation = amzn + "Invocationtimeoutseconds"

	// backlogLimit bounds the queue; SageMaker's has no documented bound.
	backlogLimit = 10_000
)

var (
	filenamePattern  = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_-]*(\.[a-zA-Z0-9_-]*)?$`)
	extensionPattern = regexp.MustCompile(`^[a-zA-Z0-9!_.*'()/-]+$`)
)

// job is an asynchronous request.
type job struct {
	call            *call
	input           string // name in the store, "" if the call has the body
	output, failure string // names in the store
	expires         time.Time
	limit           time.Duration // of the container's work
}

// queue holds asynchronous requests until an instance has room.
type queue struct {
	e       *Endpoint
	store   *store // nil: there is none, and no queue
	jobs    chan *job
	backlog atomic.Int64 // waiting or running
}

func (q *queue) open(e *Endpoint) (err error) {
	q.e = e
	q.jobs = make(chan *job, backlogLimit)
	if e.cfg.Store != "" {
		q.store, err = openStore(e.cfg.Store)
	}
	return err
}

// invokeAsync is InvokeEndpointAsync.
func (e *Endpoint) invokeAsync(w http.ResponseWriter, r *http.Request) {
	c, f := e.parse(r, opAsync)
	if f != nil {
		e.refuse(w, &call{op: opAsync}, f)
		return
	}
	j, f := e.queue.newJob(c, r.Header)
	if f == nil && !e.queue.add(j) {
		f = unavailable("The queue of endpoint %s is full: %d requests.", e.cfg.Name, backlogLimit)
	}
	if f != nil {
		e.refuse(w, c, f)
		return
	}
	body, err := json.Marshal(map[string]string{"InferenceId": c.id})
	if err != nil { // strings marshal always
		panic(err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set(headerOutput, "s3://"+j.output)
	w.Header().Set(headerFailure, "s3://"+j.failure)
	e.logCall(c, http.StatusAccepted, "")
	w.WriteHeader(http.StatusAccepted)
	_, _ = w.Write(body)
}

// newJob reads what only asynchronous calls have.
func (q *queue) newJob(c *call, h http.Header) (*job, *fault) {
	if q.store == nil {
		return nil, invalid("Endpoint %s has no asynchronous inference configuration.", q.e.cfg.Name)
	}
	j := &job{call: c}
	var f *fault
	if j.input, f = q.inputName(h.Get(headerInput), len(c.body)); f != nil {
		return nil, f
	}
	ttl, f := seconds(h, headerTTL, "requestTTLSeconds", 60, 21600, 21600)
	if f != nil {
		return nil, f
	}
	limit, f := seconds(h, headerInvocation, "invocationTimeoutSeconds", 1, 3600, 900)
	if f != nil {
		return nil, f
	}
	j.expires, j.limit = time.Now().Add(ttl), limit
	if c.id == "" {
		c.id = uuid.NewString()
		c.header.Set(headerInference, c.id)
	}
	file, extension := h.Get(headerFilename), h.Get(headerExtension)
	switch {
	case file == "":
		file = uuid.NewString() // not the inference id, which may be any text
	case len(file) > 32 || !filenamePattern.MatchString(file):
		return nil, constraint(file, "filename", "Member must have length less than or equal to 32 and satisfy regular expression pattern: "+filenamePattern.String())
	}
	if extension != "" && (len(extension) > 512 || !extensionPattern.MatchString(extension)) {
		return nil, constraint(extension, "s3OutputPathExtension", "Member must have length less than or equal to 512 and satisfy regular expression pattern: "+extensionPattern.String())
	}
	bucket := fmt.Sprintf("sagemaker-%s-%s/%s", q.e.cfg.Region, q.e.cfg.Account, q.e.cfg.Name)
	j.output = path.Join(bucket, "async-output", path.Clean("/"+extension), file+".out")
	j.failure = path.Join(bucket, "async-failures", path.Clean("/"+extension), file+"-error.out")
	return j, nil
}

// inputName returns the store's name for where the input lies.
func (q *queue) inputName(location string, inline int) (string, *fault) {
	switch {
	case location == "" && inline == 0:
		return "", invalid("Exactly one of Body and InputLocation must be given, and neither is.")
	case location != "" && inline != 0:
		return "", invalid("Exactly one of Body and InputLocation must be given, and both are.")
	case location == "":
		return "", nil
	case len(location) > 1024:
		return "", constraint(location, "inputLocation", "Member must have length less than or equal to 1024")
	}
	name, err := q.store.name(location)
	if err != nil {
		return "", constraint(location, "inputLocation", err.Error())
	}
	return name, nil
}

// seconds reads a header that holds a number of seconds.
func seconds(h http.Header, header, member string, least, most, standard int) (time.Duration, *fault) {
	n := standard
	if text := h.Get(header); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil || n < least || n > most {
			return 0, constraint(text, member, fmt.Sprintf("Member must be an integer from %d to %d", least, most))
		}
	}
	return time.Duration(n) * time.Second, nil
}

// add puts a job into the queue, unless that is full.
func (q *queue) add(j *job) bool {
	select {
	case q.jobs <- j:
		q.backlog.Add(1)
		return true
	default:
		return false
	}
}

// serve works on jobs until ctx ends, and returns once those it has begun are
// done. Those still waiting fail.
func (q *queue) serve(ctx context.Context) {
	if q.store == nil {
		return
	}
	places := make(chan struct{}, q.e.cfg.AsyncPerInstance*q.e.cfg.Instances)
	for range cap(places) {
		places <- struct{}{}
	}
	for {
		select {
		case <-ctx.Done():
			for range cap(places) {
				<-places
			}
			q.failRest()
			return
		case <-places:
		}
		select {
		case <-ctx.Done():
			places <- struct{}{}
		case j := <-q.jobs:
			go func() {
				q.e.metrics.enter()
				q.finish(j, q.run(ctx, j))
				q.e.metrics.leave()
				places <- struct{}{}
			}()
		}
	}
}

func (q *queue) failRest() {
	for {
		select {
		case j := <-q.jobs:
			q.finish(j, q.e.cfg.notFound(q.e.cfg.Name))
		default:
			return
		}
	}
}

// run works on one job and stores the answer.
func (q *queue) run(ctx context.Context, j *job) *fault {
	if j.input != "" {
		var err error
		if j.call.body, err = q.store.read(j.input); err != nil {
			return invalid("The input could not be read: %v.", err)
		}
	}
	v, f := q.e.fleet.pick(j.call)
	for f != nil {
		if time.Now().After(j.expires) {
			return invalid("The request has expired in the queue.")
		}
		select {
		case <-ctx.Done():
			return f
		case <-time.After(startPoll):
			v, f = q.e.fleet.pick(j.call)
		}
	}
	rep, f := q.e.answer(v, j.call, j.limit)
	if f != nil {
		return f
	}
	if err := q.store.write(j.output, rep.body); err != nil {
		return internal("The answer could not be stored: %v.", err)
	}
	return nil
}

// finish stores why a job failed, if it did.
func (q *queue) finish(j *job, f *fault) {
	q.backlog.Add(-1)
	if f == nil {
		q.e.logCall(j.call, http.StatusOK, "s3://"+j.output)
		return
	}
	q.e.metrics.fault(f)
	q.e.logCall(j.call, f.status, f.message)
	if err := q.store.write(j.failure, []byte(f.message)); err != nil {
		q.e.cfg.Log.Error("store a failure", "name", j.failure, "err", err)
	}
}
