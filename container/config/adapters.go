package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Adapter is one of --lora-adapters.
type Adapter struct {
	Name  string `json:"name"`
	Place string `json:"path"`
}

// Adapters reads --lora-adapters.
func (s *Serve) Adapters() (list []Adapter, err error) {
	text := strings.TrimSpace(s.LoraAdapters)
	if strings.HasPrefix(text, "{") || strings.HasPrefix(text, "[") {
		list, err = adaptersOfJSON(text)
	} else {
		list, err = adaptersOfList(text)
	}
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for _, a := range list {
		if seen[a.Name] {
			return nil, fmt.Errorf("two adapters are called %s", a.Name)
		}
		seen[a.Name] = true
	}
	return list, nil
}

// adaptersOfList reads TGI's form: ID[@REVISION] or NAME=PLACE[@REVISION], separated
// by commas.
func adaptersOfList(text string) (list []Adapter, err error) {
	for item := range strings.SplitSeq(text, ",") {
		item = strings.TrimSpace(item)
		if item == "" {
			continue
		}
		name, place, named := strings.Cut(item, "=")
		if !named {
			place = item
			name, _, _ = strings.Cut(item, "@")
		}
		if name == "" || place == "" || strings.Contains(place, "=") || strings.Count(place, "@") > 1 {
			return nil, fmt.Errorf("Invalid LoRA adapter format: %s: expected NAME=PLACE, or ORG/NAME[@REVISION] of the hub", item) //nolint:staticcheck // as TGI says it
		}
		list = append(list, Adapter{name, place})
	}
	return list, nil
}

// adaptersOfJSON reads vLLM's form: an object for each adapter, or a list of them.
func adaptersOfJSON(text string) (list []Adapter, err error) {
	d := json.NewDecoder(strings.NewReader(text))
	for {
		var raw json.RawMessage
		if err := d.Decode(&raw); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, fmt.Errorf("cannot be read as JSON: %w", err)
		}
		var some []Adapter
		if raw[0] != '[' {
			raw = json.RawMessage("[" + string(raw) + "]")
		}
		if err := json.Unmarshal(raw, &some); err != nil {
			return nil, fmt.Errorf("cannot be read as JSON: %w", err)
		}
		list = append(list, some...)
	}
	for _, a := range list {
		if a.Name == "" || a.Place == "" {
			return nil, errors.New("expected an object with name and path for each adapter")
		}
	}
	return list, nil
}
