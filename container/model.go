package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/millrace-ai/millrace/container/config"
	"github.com/millrace-ai/millrace/container/demo"
	"github.com/millrace-ai/millrace/engine"
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
	id         string // what clients see
	dir        string // the folder, "" for the demo model
	files      fs.FS  // the folder's
	override   chat.Override
	checkpoint *weights.Checkpoint
	config     *plan.Config
	plan       *plan.Plan
}

// openModel opens the folder --model-id names; without one, SageMaker's if it
// holds a model, else the demo model. templatePath is --tokenizer-config-path.
func openModel(modelID, templatePath string) (*model, error) {
	if modelID == "" && holdsModel(config.SageMakerModelDir) {
		modelID = config.SageMakerModelDir
	}
	m := &model{id: modelID, dir: modelID}
	var err error
	switch {
	case strings.HasPrefix(modelID, "s3://"):
		return nil, fmt.Errorf("--model-id=%s: reading models from S3 is not available in this build; give a folder", modelID)
	case modelID != "":
		if err = checkFolder(modelID); err == nil {
			m.files = os.DirFS(modelID)
			m.checkpoint, err = weights.Open(modelID)
		}
	default:
		m.id, m.files = demoID, demo.Files()
		m.checkpoint, err = weights.OpenFS(m.files)
	}
	if err != nil {
		return nil, err
	}
	if templatePath != "" {
		if m.override.Data, err = os.ReadFile(templatePath); err != nil {
			m.checkpoint.Close()
			return nil, fmt.Errorf("--tokenizer-config-path: %w", err)
		}
		m.override.Name = templatePath
	}
	if err := m.read(); err != nil {
		m.checkpoint.Close()
		return nil, err
	}
	return m, nil
}

// read makes the plan and compares it with the tensors.
func (m *model) read() (err error) {
	if m.config, m.plan, err = engine.Plan(m.checkpoint); err == nil {
		err = engine.Check(m.plan, m.checkpoint)
	}
	if err != nil {
		return fmt.Errorf("model %s: %w", m.id, err)
	}
	return nil
}

// revision is the commit of the hub that the folder holds, "" if its name does
// not tell: the hub's cache calls it snapshots/COMMIT.
func (m *model) revision() string {
	name := filepath.Base(m.dir)
	if filepath.Base(filepath.Dir(m.dir)) != "snapshots" || len(name) != 40 || strings.Trim(name, "0123456789abcdef") != "" {
		return ""
	}
	return name
}

// pipelineTag is the task that the hub would file the model under, "" for what
// TGI does not know either: folders.
func (m *model) pipelineTag() string {
	if m.dir == "" {
		return "text-generation"
	}
	return ""
}

// checkFolder explains the commonest mistake: a name of the Hugging Face hub
// instead of a folder.
func checkFolder(path string) error {
	_, err := os.Stat(path)
	if os.IsNotExist(err) && strings.Count(path, "/") == 1 && !strings.HasPrefix(path, ".") && !filepath.IsAbs(path) {
		return fmt.Errorf("--model-id=%s: there is no such folder; models are not downloaded from the hub: download it first and give the folder", path)
	}
	return nil
}

// holdsModel reports whether a folder looks like a checkpoint.
func holdsModel(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "config.json"))
	return err == nil
}

// loadTokenizer reads the checkpoint's tokenizer.
func (m *model) loadTokenizer() (*token.Tokenizer, error) {
	if m.dir != "" {
		return token.Load(m.dir)
	}
	text, err := m.checkpoint.ReadFile("tokenizer.json")
	if err != nil {
		return nil, err
	}
	config, err := m.checkpoint.ReadFile("tokenizer_config.json")
	if err != nil {
		return nil, err
	}
	return token.LoadBytes(text, config)
}

// loadTemplate reads the checkpoint's chat template. A base model has none.
func (m *model) loadTemplate() (*chat.Template, error) {
	t, err := chat.Load(m.files, m.override)
	if err != nil && m.dir != "" {
		err = fmt.Errorf("%s: %w", m.dir, err)
	}
	return t, err
}
