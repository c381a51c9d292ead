package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/agext/levenshtein"
	"github.com/alecthomas/kong"

	"github.com/millrace-ai/millrace/engine/weights"
)

// SageMakerModelDir is where SageMaker puts a model.
const SageMakerModelDir = "/opt/ml/model"

// FileNames are looked for in the model folder, the first one found counts.
var FileNames = []string{"millrace.yaml", "millrace.yml", "millrace.json"}

// Error is a fault of the configuration: one line that names the flag,
// variable or key, and what is expected.
type Error struct{ msg string }

func (e *Error) Error() string { return e.msg }

func errorf(format string, args ...any) *Error {
	return &Error{fmt.Sprintf(format, args...)}
}

// Loader finds flags that are not on the command line. It is a kong.Resolver
// for the commands that embed Serve; other commands' flags it leaves alone.
type Loader struct {
	// Terminal says that the log is written to a terminal, so for people.
	Terminal bool

	env     map[string]string // non-empty variables
	folders func(modelID string) []string
	file    *file // nil: none
	loaded  bool
	notes   []string          // of checks, for the log
	from    map[string]string // flag → where its value was found, if not on the command line
}

// NewLoader takes the environment as os.Environ gives it. folders tells where
// the file may lie beside the model that --model-id names, the first one first;
// "" stands for none.
func NewLoader(environ []string, folders func(modelID string) []string) *Loader {
	l := &Loader{env: map[string]string{}, folders: folders, from: map[string]string{}}
	for _, kv := range environ {
		if k, v, _ := strings.Cut(kv, "="); v != "" {
			l.env[k] = v
		}
	}
	return l
}

// Validate does nothing; kong.Resolver has it.
func (l *Loader) Validate(*kong.Application) error { return nil }

// Resolve returns the value for a flag that the command line does not set,
// nil if there is none. It reads the config file at its first call.
func (l *Loader) Resolve(ctx *kong.Context, parent *kong.Path, flag *kong.Flag) (any, error) {
	if parent.Command == nil || !embedsServe(parent.Command) || flag.Name == "help" {
		return nil, nil
	}
	if !l.loaded {
		l.loaded = true
		if err := l.loadFile(ctx, parent.Flags); err != nil {
			return nil, err
		}
	}
	if name, text, ok := l.variable(flag.Value); ok {
		l.from[flag.Name] = "environment " + name
		return convert(flag.Value, fmt.Sprintf("%s=%q", name, shown(flag.Value, text)), []string{text})
	}
	if e, ok := l.file.lookup(flag.Name); ok {
		where := fmt.Sprintf("%s:%d", l.file.path, e.line)
		l.from[flag.Name] = "file " + where
		return convert(flag.Value, fmt.Sprintf("%s: %s: %q", where, flag.Name, shown(flag.Value, strings.Join(e.values, ","))), e.values)
	}
	return nil, nil
}

// loadFile reads the file --config names, or the one in the model folder, and
// checks its keys.
func (l *Loader) loadFile(ctx *kong.Context, flags []*kong.Flag) error {
	path := l.early(ctx, flags, "config")
	inModel := path == ""
	if inModel {
		if path = findFile(l.folders(l.early(ctx, flags, "model-id"))); path == "" {
			return nil
		}
	}
	read := os.ReadFile // an operator's file may be a pipe
	if inModel {
		read = func(path string) ([]byte, error) {
			return fs.ReadFile(weights.Folder(filepath.Dir(path)), filepath.Base(path))
		}
	}
	f, err := readFile(path, read)
	if err != nil {
		return err
	}
	for _, e := range f.entries {
		i := slices.IndexFunc(flags, func(fl *kong.Flag) bool { return fl.Name == e.key })
		switch {
		case i < 0 || e.key == "help":
			return errorf("%s:%d: unknown key %q%s; `millrace env` lists the keys", path, e.line, e.key, didYouMean(e.key, flags))
		case e.key == "config", e.key == "env":
			return errorf("%s:%d: %s cannot be set in a file; take it out", path, e.line, e.key)
		case e.key == "model-id" && inModel:
			return errorf("%s:%d: a file in the model folder cannot choose the model; take model-id out of it", path, e.line)
		case inModel && flags[i].Tag.Has("operator"):
			return errorf("%s:%d: a file in the model folder cannot set %s, which is up to whoever runs the server; take it out of the file and use %s or --config", path, e.line, e.key, envNames(flags[i].Value)[0])
		}
	}
	l.file = f
	return nil
}

// early returns a flag's value from the command line or the environment.
func (l *Loader) early(ctx *kong.Context, flags []*kong.Flag, name string) string {
	for _, p := range ctx.Path {
		if p.Flag != nil && p.Flag.Name == name {
			s, _ := ctx.FlagValue(p.Flag).(string)
			return s
		}
		if p.Positional != nil && p.Positional.Name == "model" && name == "model-id" {
			return ctx.Value(p).String()
		}
	}
	for _, f := range flags {
		if f.Name != name {
			continue
		}
		if _, text, ok := l.variable(f.Value); ok {
			return text
		}
	}
	return ""
}

// didYouMean suggests the flag whose name is nearest to key, if one is near.
func didYouMean(key string, flags []*kong.Flag) string {
	var names []string
	for _, f := range flags {
		names = append(names, f.Name)
	}
	if near := Nearest(key, names); near != "" {
		return fmt.Sprintf(", did you mean %q?", near)
	}
	return ""
}

// Nearest returns the one of names that word is most likely a misspelling of,
// "" if none is near.
func Nearest(word string, names []string) string {
	best, least := "", 1+len(word)/3
	for _, name := range names {
		if d := levenshtein.Distance(word, name, nil); d <= least && (best == "" || d < levenshtein.Distance(word, best, nil)) {
			best = name
		}
	}
	return best
}

func findFile(dirs []string) string {
	for _, dir := range dirs {
		for _, name := range FileNames {
			p := filepath.Join(dir, name)
			if _, err := os.Stat(p); dir != "" && err == nil {
				return p
			}
		}
	}
	return ""
}

// embedsServe reports whether the command's struct has Serve's flags.
func embedsServe(n *kong.Node) bool {
	return slices.ContainsFunc(n.Flags, func(f *kong.Flag) bool { return f.Name == "model-id" })
}

// envNames are the variables of a flag, strongest first; a flag may have none.
func envNames(v *kong.Value) []string {
	var names []string
	switch variable := v.Tag.Get("variable"); variable {
	case "":
		names = []string{strings.ToUpper(strings.ReplaceAll(v.Name, "-", "_"))}
	case "-":
	default:
		names = []string{variable}
	}
	if also := v.Tag.Get("also"); also != "" {
		names = append(strings.Split(also, ","), names...)
	}
	return names
}

// shown is text without its secrets.
func shown(v *kong.Value, text string) string {
	if v.Tag.Has("secret") && text != "" {
		return "***"
	}
	return HideSecrets(text)
}

// convert checks texts, found at where, against the flag's type, and returns
// what kong's own decoders accept.
func convert(v *kong.Value, where string, texts []string) (any, error) {
	if v.IsSlice() {
		list := make([]any, len(texts))
		for i, t := range texts {
			list[i] = t
		}
		return list, nil
	}
	text := strings.Join(texts, ",")
	switch v.Target.Kind() {
	case reflect.Bool:
		b, err := parseBool(text)
		if err != nil {
			return nil, errorf("%s: expected true or false", where)
		}
		return b, nil
	case reflect.Int, reflect.Int64:
		if _, err := strconv.ParseInt(text, 10, 64); err != nil {
			return nil, errorf("%s: expected a whole number", where)
		}
	case reflect.Float64:
		if _, err := strconv.ParseFloat(text, 64); err != nil {
			return nil, errorf("%s: expected a number", where)
		}
	case reflect.String:
		if v.Enum != "" {
			text = strings.ToLower(text)
			if !slices.Contains(v.EnumSlice(), text) {
				return nil, errorf("%s: expected one of %s", where, strings.Trim(v.Enum, ","))
			}
		}
	}
	return text, nil
}

// parseBool accepts what people write into variables: TGI itself takes only
// true and false, and containers that set True or 1 then fail to start.
func parseBool(s string) (bool, error) {
	switch strings.ToLower(strings.TrimSpace(s)) {
	case "true", "1", "yes", "y", "on":
		return true, nil
	case "false", "0", "no", "n", "off":
		return false, nil
	}
	return false, errors.New("not a boolean")
}
