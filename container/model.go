package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/millrace-ai/millrace/container/config"
	"github.com/millrace-ai/millrace/container/demo"
	"github.com/millrace-ai/millrace/container/source"
	"github.com/millrace-ai/millrace/engine/loader"
	"github.com/millrace-ai/millrace/engine/plan"
	"github.com/millrace-ai/millrace/engine/token"
	"github.com/millrace-ai/millrace/engine/weights"
	"github.com/millrace-ai/millrace/handler/chat"
)

// demoID is what the built-in model is called.
const demoID = "millrace-demo"

// model is an opened checkpoint whose headers and configuration have been
// checked; nothing of its weights has been read.
type model struct {
	id         string // what messages call it
	place      string // where it is, "" for the demo model
	files      fs.FS  // the texts beside the weights
	override   chat.Override
	checkpoint *weights.Checkpoint
	draft      bool // the plan has the head that drafts tokens, if the checkpoint has one
	config     *plan.Config
	plan       *plan.Plan
	seeing     *seeing // nil: it reads no images
}

// locateModel returns where the model is that --model-id names; without one,
// SageMaker's if there is a model, else "", the demo model.
func locateModel(modelID string) (string, error) {
	if modelID == "" {
		return source.Default("/")
	}
	return modelID, errors.Join(source.Check(modelID), checkFolder(modelID))
}

// modelFolders returns where a model's own config file may lie: the folder that
// is named, or SageMaker's, and the one below it that holds the model, "" if
// none does. Of a model in S3 or in an archive, the config file is not read.
func modelFolders(modelID string) []string {
	if modelID == "" {
		place, _ := source.Default("/") //nolint:errcheck // said when the model is looked for
		return []string{source.ModelDir, place}
	}
	dir, _ := source.Folder(modelID) //nolint:errcheck // likewise
	return []string{modelID, dir}
}

// modelName is what clients see of the model at a place: of a folder its name,
// not its path. The hub's cache has models in models--ORG--NAME/snapshots/COMMIT.
func modelName(place string) string {
	if place == "" {
		return demoID
	}
	if source.IsS3(place) || source.IsHub(place) || strings.Contains(place, "://") {
		return source.Name(place)
	}
	folder, err := filepath.Abs(place) // . and .. have names, too
	if err != nil {
		return place
	}
	if dir := filepath.Dir(folder); weights.IsGGUF(folder) && modelRevision(dir) != "" {
		folder = dir
	}
	if modelRevision(folder) != "" {
		repository := filepath.Base(filepath.Dir(filepath.Dir(folder)))
		if name, ok := strings.CutPrefix(repository, "models--"); ok {
			return strings.ReplaceAll(name, "--", "/")
		}
	}
	return strings.TrimSuffix(filepath.Base(folder), ".gguf")
}

// arrivesSlowly reports whether opening the model at a place may take more
// than a moment.
func arrivesSlowly(place string) bool {
	return source.IsS3(place) || source.IsArchive(place) || source.IsHub(place)
}

// opener is source.Open, or source.OpenHeaders for a model that is only described.
type opener func(ctx context.Context, place string, memory int64, log *slog.Logger) (*source.Model, error)

// openModel opens the model at a place with open. templatePath is
// --tokenizer-config-path. ctx bounds all reading of it, and memory the bytes
// that may be held of an archive until it is known what it holds.
func openModel(ctx context.Context, open opener, place string, cfg *config.Serve, memory int64) (*model, error) {
	m := &model{id: cmp.Or(config.HideSecrets(place), demoID), place: place, draft: cfg.Speculate > 0 && runsDrafts(deviceName(cfg))}
	var err error
	if templatePath := cfg.TokenizerConfigPath; templatePath != "" {
		if m.override.Data, err = fs.ReadFile(weights.Folder(filepath.Dir(templatePath)), filepath.Base(templatePath)); err != nil {
			return nil, fmt.Errorf("--tokenizer-config-path: %w", err)
		}
		m.override.Name = templatePath
	}
	if place == "" {
		m.files = demo.Files()
		m.checkpoint, err = weights.OpenFS(m.files)
	} else {
		var opened *source.Model
		if opened, err = open(ctx, place, memory, slog.Default()); err == nil {
			m.files, m.checkpoint = opened.Files, opened.Checkpoint
		}
	}
	if err != nil {
		return nil, err
	}
	if err = m.read(); err == nil {
		m.plan.Quantize, err = quantizeOf(cfg.Quantize, m.plan.Stored.Method)
	}
	if err != nil {
		m.checkpoint.Close()
		return nil, err
	}
	m.openVision(cfg)
	return m, nil
}

// read makes the plan and compares it with the tensors.
func (m *model) read() (err error) {
	if m.config, m.plan, err = loader.Plan(m.checkpoint, m.draft); err == nil {
		err = loader.Check(m.plan, m.checkpoint)
	}
	if err != nil && m.draft { // it may be the head, without which the model is complete
		m.draft = false
		if m.read() == nil {
			slog.Warn("the model is served without its head for drafts", "model", m.id, "reason", err)
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("model %s: %w", m.id, err)
	}
	return nil
}

// modelRevision is the commit of the hub that a place holds, "" if its name does
// not tell: the hub's cache calls it snapshots/COMMIT.
func modelRevision(place string) string {
	name := path.Base(place)
	if path.Base(path.Dir(place)) != "snapshots" || len(name) != 40 || strings.Trim(name, "0123456789abcdef") != "" {
		return ""
	}
	return name
}

// pipelineTag is the task that the hub would file the model at a place under,
// "" for what TGI does not know either: folders.
func pipelineTag(place string) string {
	if place == "" || source.IsHub(place) {
		return "text-generation"
	}
	return ""
}

// checkFolder explains a single word that names no folder: of the models of the
// hub, only the oldest have such a name.
func checkFolder(path string) error {
	_, err := os.Stat(path)
	if os.IsNotExist(err) && !strings.ContainsAny(path, "/:") && !source.IsArchive(path) {
		return fmt.Errorf("--model-id=%s: there is no such folder; a model of the Hugging Face hub is given as ORG/NAME, or as hf:%s if it has no ORG", path, path)
	}
	return nil
}

// loadTokenizer reads the checkpoint's tokenizer.
func (m *model) loadTokenizer() (*token.Tokenizer, error) { return token.LoadFS(m.files, m.id) }

// loadTemplate reads the checkpoint's chat template. A base model has none.
func (m *model) loadTemplate() (*chat.Template, error) {
	t, err := chat.Load(m.files, m.override)
	if err != nil && m.place != "" {
		err = fmt.Errorf("%s: %w", m.id, err)
	}
	return t, err
}
