package local

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"time"
)

// adapterPatience is how long a container may take to load an adapter, and
// adapterAttempts how often one that is not ready for it is asked.
const (
	adapterPatience = time.Minute
	adapterAttempts = 3
)

// registerAdapters makes a container that has started serve the adapters. One
// that it refuses stays refused: calls of that inference component fail, as
// those of a component whose creation failed.
func (fl *fleet) registerAdapters(ctx context.Context, in *instance) {
	for _, name := range slices.Sorted(maps.Keys(fl.cfg.Adapters)) {
		err := in.registerAdapter(ctx, name, fl.cfg.Adapters[name])
		fl.mu.Lock()
		if err != nil {
			fl.refused[name] = err.Error()
		}
		fl.mu.Unlock()
		if err != nil {
			fl.cfg.Log.Error("inference component failed", "component", name, "instance", in.number, "why", err)
		} else {
			fl.cfg.Log.Info("inference component in service", "component", name, "instance", in.number)
		}
	}
}

func (in *instance) registerAdapter(ctx context.Context, name, src string) error {
	body, err := json.Marshal(map[string]string{"name": name, "src": src})
	if err != nil {
		return err
	}
	for attempt := 1; ; attempt++ {
		status, text, err := in.post(ctx, "/adapters", body)
		switch {
		case err != nil:
			return fmt.Errorf("POST /adapters: %w", err)
		case status >= 200 && status <= 299:
			return nil
		case attempt == adapterAttempts || status != http.StatusTooManyRequests && status != http.StatusServiceUnavailable:
			return fmt.Errorf("POST /adapters: the container answered %d: %s", status, text)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(startPoll):
		}
	}
}

// post sends JSON to the container outside of any call.
func (in *instance) post(ctx context.Context, path string, body []byte) (status int, text string, err error) {
	ctx, cancel := context.WithTimeout(ctx, adapterPatience)
	defer cancel()
	req, err := in.request(ctx, http.MethodPost, path, http.Header{"Content-Type": {"application/json"}}, bytes.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	resp, err := in.transport.RoundTrip(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, messageLimit))
	return resp.StatusCode, toValid(string(answer)), err
}
