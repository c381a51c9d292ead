package config

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/alecthomas/kong"
)

// Setting is one flag as it took effect.
type Setting struct {
	Flag  string
	Value string // stars for a secret
	From  string // "default", "command line", "environment NAME", "file PATH:LINE"
}

// Finish settles s after parsing: it checks every flag and what flags say
// about each other, and returns all settings in the order of Serve and one
// note for each thing that was set without effect.
func (l *Loader) Finish(ctx *kong.Context, s *Serve) (settings []Setting, notes []string, err error) {
	for _, p := range ctx.Path {
		if p.Flag != nil && !p.Resolved {
			l.from[p.Flag.Name] = "command line"
		}
	}
	if err := l.settleModel(ctx, s); err != nil {
		return nil, nil, err
	}
	l.settlePlace(s)
	for _, f := range ctx.Selected().Flags {
		if !serveFlags[f.Name] {
			continue
		}
		set := Setting{Flag: f.Name, Value: shown(f.Value, text(f.Target)), From: l.from[f.Name]}
		if set.From == "" {
			set.From = "default"
			if f.PlaceHolder == autoPlaceholder {
				set.Value = "auto"
			}
		} else if err := checkFlag(f.Value, set); err != nil {
			return nil, nil, err
		} else if why := f.Tag.Get("ignored"); why != "" {
			notes = append(notes, fmt.Sprintf("%s is ignored: %s", set.name(), why))
		}
		settings = append(settings, set)
	}
	if err := l.checkTogether(s); err != nil {
		return nil, nil, err
	}
	// Containers have their own name there, which nobody chose to listen on.
	if host := l.env["HOSTNAME"]; host != "" && !isIP(host) && l.from["hostname"] == "" && host != machineName() {
		notes = append(notes, fmt.Sprintf("HOSTNAME=%q is not an IP address: listening on %s", host, s.Hostname))
	}
	for _, name := range ignoredEnv {
		if _, ok := l.env[name]; ok {
			notes = append(notes, name+" has no meaning here and is ignored")
		}
	}
	notes = append(notes, l.notesOfHosting(s)...)
	notes = append(notes, l.notes...)
	return settings, append(notes, l.notesOfOthers()...), nil
}

// settleModel makes the model that is named as an argument the one of
// --model-id.
func (l *Loader) settleModel(ctx *kong.Context, s *Serve) error {
	if s.Model == "" {
		return nil
	}
	if l.from["model-id"] == "command line" {
		return errorf("the model is named twice: %s and --model-id=%s", HideSecrets(s.Model), HideSecrets(s.ModelID))
	}
	s.ModelID, l.from["model-id"] = s.Model, "command line"
	for _, f := range ctx.Selected().Flags {
		if f.Name == "model-id" {
			f.Target.SetString(s.Model)
		}
	}
	return nil
}

func machineName() string {
	name, _ := os.Hostname() //nolint:errcheck // without one no variable can hold it
	return name
}

// checkFlag checks a flag that was set, on its own.
func checkFlag(v *kong.Value, set Setting) error {
	if missing := v.Tag.Get("later"); missing != "" {
		neutral := []string{"", v.Tag.Get("neutral")}
		if !slices.Contains(neutral, text(v.Target)) {
			return errorf("%s: %s: not available in this build; leave it out", set.name(), missing)
		}
		return nil
	}
	n, isNumber := number(v.Target)
	if !isNumber {
		return nil
	}
	if lo, err := strconv.ParseInt(v.Tag.Get("min"), 10, 64); err == nil && n < lo {
		return errorf("%s: must be at least %d", set.name(), lo)
	}
	if hi, err := strconv.ParseInt(v.Tag.Get("max"), 10, 64); err == nil && n > hi {
		return errorf("%s: must be at most %d", set.name(), hi)
	}
	return nil
}

// checkTogether checks flags against each other.
func (l *Loader) checkTogether(s *Serve) error {
	if s.MaxInputLength != 0 {
		if s.MaxInputTokens != 0 {
			return errorf("max-input-length is the older name of max-input-tokens and both are set (%s; %s): set one",
				l.from["max-input-length"], l.from["max-input-tokens"])
		}
		s.MaxInputTokens = s.MaxInputLength
	}
	if s.MaxInputTokens != 0 && s.MaxTotalTokens != 0 && s.MaxInputTokens >= s.MaxTotalTokens {
		return errorf("`max_input_tokens` must be < `max_total_tokens`. Given: %d and %d", s.MaxInputTokens, s.MaxTotalTokens)
	}
	if from := l.from["cuda-memory-fraction"]; from != "" {
		name := Setting{Flag: "cuda-memory-fraction", Value: fmt.Sprint(s.CUDAMemoryFraction), From: from}.name()
		if s.CUDAMemoryFraction <= 0 || s.CUDAMemoryFraction > 1 {
			return errorf("%s: must be above 0 and at most 1", name)
		}
		if s.Device != "cuda" {
			l.notes = append(l.notes, name+" is ignored: --device is "+s.Device)
		}
	}
	if from := l.from["num-shard"]; from != "" && s.Device != "cuda" {
		l.notes = append(l.notes, Setting{Flag: "num-shard", Value: fmt.Sprint(s.NumShard), From: from}.name()+" is ignored: --device is "+s.Device)
	}
	if from := l.from["replicas"]; s.Replicas > 1 && (s.Device == "cpu" || s.Device == "auto") {
		return errorf("%s: --device is %s, whose cores would be divided among the copies of the model: --device cuda has one on each GPU",
			Setting{Flag: "replicas", Value: fmt.Sprint(s.Replicas), From: from}.name(), s.Device)
	}
	switch s.KVCacheDtype {
	case "auto", "f16", "int8":
	default:
		return errorf("%s: expected auto, f16 or int8, which takes as little memory as TGI's fp8_e4m3fn and fp8_e5m2 and rounds less",
			Setting{Flag: "kv-cache-dtype", Value: s.KVCacheDtype, From: l.from["kv-cache-dtype"]}.name())
	}
	if err := l.checkHosting(s); err != nil {
		return err
	}
	if _, err := s.Adapters(); err != nil {
		return errorf("%s: %v", Setting{Flag: "lora-adapters", Value: s.LoraAdapters, From: l.from["lora-adapters"]}.name(), err)
	}
	if _, err := s.Level(); err != nil {
		if strings.HasPrefix(l.from["log-level"], "environment ") { // other programs have levels of other names there
			l.notes = append(l.notes, fmt.Sprintf("%s: %v: logging at info", Setting{Flag: "log-level", Value: s.LogLevel, From: l.from["log-level"]}.name(), err))
			s.LogLevel = "info"
			return nil
		}
		return errorf("%s: %v", Setting{Flag: "log-level", Value: s.LogLevel, From: l.from["log-level"]}.name(), err)
	}
	return nil
}

// onSageMaker reports whether this is a SageMaker container: it has variables
// of SageMaker's, or the folder that SageMaker mounts in every one.
func (l *Loader) onSageMaker() bool {
	for name := range l.env {
		if strings.HasPrefix(name, "SAGEMAKER_") {
			return true
		}
	}
	info, err := os.Stat(SageMakerModelDir)
	return err == nil && info.IsDir()
}

// name is how a message calls the setting: in the words it was given in.
func (s Setting) name() string {
	if env, ok := strings.CutPrefix(s.From, "environment "); ok {
		return fmt.Sprintf("%s=%s", env, s.Value)
	}
	if where, ok := strings.CutPrefix(s.From, "file "); ok {
		return fmt.Sprintf("%s: %s: %s", where, s.Flag, s.Value)
	}
	return fmt.Sprintf("--%s=%s", s.Flag, s.Value)
}

// Level is LogLevel for slog. TGI's variable may hold a list of filters, of
// which the first is taken.
func (s *Serve) Level() (slog.Level, error) {
	first, _, _ := strings.Cut(strings.ToLower(s.LogLevel), ",")
	switch first {
	case "trace", "debug":
		return slog.LevelDebug, nil
	case "info":
		return slog.LevelInfo, nil
	case "warn", "warning":
		return slog.LevelWarn, nil
	case "error", "off":
		return slog.LevelError, nil
	}
	return 0, errorf("expected one of debug, info, warn, error")
}

// Help adds the variables' names to the help of one of Serve's flags; for
// kong.ValueFormatter.
func Help(v *kong.Value) string {
	names := envNames(v)
	if !serveFlags[v.Name] || v.Tag.Envs != nil || len(names) == 0 {
		return v.Help
	}
	return v.Help + " ($" + strings.Join(names, ", $") + ")"
}

func isIP(s string) bool { return net.ParseIP(s) != nil }

// text is a flag's value as one would write it.
func text(v reflect.Value) string {
	if v.Kind() == reflect.Slice {
		var parts []string
		for i := range v.Len() {
			parts = append(parts, text(v.Index(i)))
		}
		return strings.Join(parts, ",")
	}
	return fmt.Sprint(v.Interface())
}

func number(v reflect.Value) (int64, bool) {
	switch v.Kind() {
	case reflect.Int, reflect.Int64:
		return v.Int(), true
	}
	return 0, false
}
