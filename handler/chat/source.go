package chat

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
)

// Names of templates in files that hold several.
const (
	defaultName = "default"
	toolUseName = "tool_use"
)

// source is a template's text and the file that it stands in.
type source struct{ file, text string }

// sources are a checkpoint's templates by name, and its special tokens by the
// names that templates know them by.
type sources struct {
	templates  map[string]source
	completion source // TGI's completion_template, "" if there is none
	response   source // JSON of the response_template, "" if there is none
	tokens     map[string]json.RawMessage
}

// readSources looks for templates as transformers does: chat_template.jinja
// with the folder additional_chat_templates, else tokenizer_config.json, else
// a processor's chat_template.json or processor_config.json. override, a file
// like tokenizer_config.json or a bare template, comes before all of them;
// its contents are given, "" name for none.
func readSources(folder fs.FS, overrideName string, override []byte) (sources, error) {
	s := sources{templates: map[string]source{}, tokens: map[string]json.RawMessage{}}
	if overrideName != "" {
		if err := s.readOverride(overrideName, override); err != nil {
			return s, err
		}
	}
	for _, step := range []struct {
		file string
		read func(file string, data []byte) error
	}{
		{"chat_template.jinja", s.readTemplate},
		{"tokenizer_config.json", s.readConfig},
		{"special_tokens_map.json", s.readTokens},
		{"chat_template.json", s.readConfig},
		{"processor_config.json", s.readConfig},
	} {
		data, err := readFile(folder, step.file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = step.read(step.file, data)
		}
		if err != nil {
			return s, fmt.Errorf("%s: %w", step.file, err)
		}
	}
	return s, s.readAdditional(folder)
}

func (s *sources) readOverride(name string, data []byte) error {
	read := s.readConfig
	if strings.HasSuffix(name, ".jinja") {
		read = s.readTemplate
	}
	if err := read(name, data); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// add adds a template unless a file that comes first has one of that name.
func (s *sources) add(name string, t source) {
	if _, ok := s.templates[name]; !ok {
		s.templates[name] = t
	}
}

func (s *sources) readTemplate(file string, data []byte) error {
	s.add(defaultName, source{file, string(data)})
	return nil
}

func (s *sources) readAdditional(folder fs.FS) error {
	files, err := fs.Glob(folder, "additional_chat_templates/*.jinja")
	if err != nil {
		return err
	}
	for _, file := range files {
		data, err := readFile(folder, file)
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		s.add(strings.TrimSuffix(path.Base(file), ".jinja"), source{file, string(data)})
	}
	return nil
}

// readConfig reads the chat_template and the special tokens of a JSON file.
func (s *sources) readConfig(file string, data []byte) error {
	var config struct {
		Template   json.RawMessage `json:"chat_template"`
		Completion string          `json:"completion_template"`
		Response   json.RawMessage `json:"response_template"`
	}
	if err := json.Unmarshal(data, &config); err != nil {
		return err
	}
	if s.completion.text == "" {
		s.completion = source{file + ": completion_template", config.Completion}
	}
	if s.response.text == "" {
		s.response = source{file + ": response_template", string(config.Response)}
	}
	found, err := templatesOf(config.Template)
	if err != nil {
		return fmt.Errorf("chat_template: %w", err)
	}
	// A file's templates belong together: they are not mixed with another's.
	if len(s.templates) == 0 {
		for name, text := range found {
			s.add(name, source{file + ": chat_template", text})
		}
	}
	return s.readTokens(file, data)
}

// templatesOf reads a template, a list of {"name", "template"}, or an object
// of templates by name.
func templatesOf(raw json.RawMessage) (map[string]string, error) {
	found := map[string]string{}
	switch raw = bytes.TrimSpace(raw); {
	case len(raw) == 0 || string(raw) == "null":
		return nil, nil
	case raw[0] == '"':
		var text string
		err := json.Unmarshal(raw, &text)
		found[defaultName] = text
		return found, err
	case raw[0] == '{':
		err := json.Unmarshal(raw, &found)
		return found, err
	}
	var list []struct{ Name, Template string }
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, fmt.Errorf("expected a string or a list of name and template: %w", err)
	}
	for i, t := range list {
		if t.Name == "" {
			return nil, fmt.Errorf("entry %d has no name", i)
		}
		found[t.Name] = t.Template
	}
	return found, nil
}

// tokenNames are the special tokens that templates may name.
var tokenNames = []string{"bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"}

// readTokens reads special tokens that are not known yet: strings, or objects
// with "content".
func (s *sources) readTokens(_ string, data []byte) error {
	var config map[string]json.RawMessage
	if err := json.Unmarshal(data, &config); err != nil {
		return err
	}
	for _, name := range tokenNames {
		raw, ok := config[name]
		if _, known := s.tokens[name]; known || !ok || string(raw) == "null" {
			continue
		}
		var text string
		var object struct{ Content string }
		if json.Unmarshal(raw, &text) != nil {
			if err := json.Unmarshal(raw, &object); err != nil {
				return fmt.Errorf("%s is %.40s, expected a string or an object with \"content\"", name, raw)
			}
			text = object.Content
		}
		s.tokens[name] = appendString(nil, text)
	}
	return nil
}

// pick returns the template to use when no name is asked for: the default, or
// the only one there is.
func (s *sources) pick() (string, bool) {
	if _, ok := s.templates[defaultName]; ok {
		return defaultName, true
	}
	names := slices.Collect(maps.Keys(s.templates))
	if len(names) == 1 {
		return names[0], true
	}
	return "", false
}

// The largest tokenizer_config.json in use has 10 MB.
const maxFileBytes = 64 << 20

func readFile(folder fs.FS, name string) ([]byte, error) {
	info, err := fs.Stat(folder, name)
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, errors.New("not a regular file")
	case info.Size() > maxFileBytes:
		return nil, fmt.Errorf("%d MB, the limit is %d MB", info.Size()>>20, maxFileBytes>>20)
	}
	return fs.ReadFile(folder, name)
}
