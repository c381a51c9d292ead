package source

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/millrace-ai/millrace/container/config"
	"github.com/millrace-ai/millrace/engine/weights"
)

// SageMaker's places for model data. Both are read-only.
const (
	ModelDir       = config.SageMakerModelDir
	AdditionalDirs = "/opt/ml/additional-model-data-sources" // a folder below it for each channel
)

// searchDepth is how many folders deep a model is looked for: archives and
// prefixes often hold it in a folder of its own.
const searchDepth = 2

// errNoModel says that no folder of a source holds a model.
var errNoModel = errors.New("no config.json or .gguf file there, nor in a folder below it")

// findModel returns the folder, "" or one that ends in "/", that holds
// config.json, or else GGUF files, given the names of all files. The uppermost
// counts; several at one depth are refused.
func findModel(names []string) (dir string, err error) {
	var configs []string
	for _, name := range names {
		if path.Base(name) == configName {
			configs = append(configs, name)
		}
	}
	for _, of := range [][]string{configs, weights.ModelFiles(names)} {
		for depth := range searchDepth + 1 {
			var found []string
			for _, name := range of {
				if strings.Count(name, "/") == depth {
					found = append(found, strings.TrimSuffix(name, path.Base(name)))
				}
			}
			slices.Sort(found)
			found = slices.Compact(found)
			if len(found) == 1 {
				return found[0], nil
			}
			if len(found) > 1 {
				return "", fmt.Errorf("several models: in %s; give the folder of one", strings.Join(found[:min(5, len(found))], ", "))
			}
		}
	}
	return "", errNoModel
}

// Default returns where SageMaker has put a model below root, which is "/":
// the model data, if it is a model or an archive of one, else the one
// additional source that holds a model. "" if there is none; weights that are
// no such model are an error.
func Default(root string) (string, error) {
	place, err := modelIn(filepath.Join(root, ModelDir))
	if place != "" || err != nil {
		return place, err
	}
	channels, _ := filepath.Glob(filepath.Join(root, AdditionalDirs, "*"))
	var found []string
	for _, c := range channels {
		place, err := modelIn(c)
		if err != nil {
			return "", err
		}
		if place != "" {
			found = append(found, place)
		}
	}
	switch len(found) {
	case 0:
		return "", nil
	case 1:
		return found[0], nil
	}
	return "", fmt.Errorf("%s is empty and several additional sources hold a model: %s; choose one with --model-id (MODEL_ID)", ModelDir, strings.Join(found, ", "))
}

// modelIn returns the folder in or below dir that holds a model, or the one
// archive in dir, or "".
func modelIn(dir string) (string, error) {
	found, err := Folder(dir)
	if err == nil {
		return found, nil
	}
	if !errors.Is(err, errNoModel) && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	entries, _ := os.ReadDir(dir)
	var archives []string
	for _, e := range entries {
		if IsArchive(e.Name()) {
			archives = append(archives, filepath.Join(dir, e.Name()))
		}
	}
	switch len(archives) {
	case 0:
		return "", nil
	case 1:
		return archives[0], nil
	}
	return "", fmt.Errorf("%s: several archives, expected one model: %s", dir, strings.Join(archives, ", "))
}

// Folder returns the folder in or below dir that holds a model. The error
// wraps fs.ErrNotExist if dir does not exist.
func Folder(dir string) (string, error) {
	var names []string
	alien := "" // weights of a model in another form
	err := fs.WalkDir(os.DirFS(dir), ".", func(name string, e fs.DirEntry, err error) error {
		switch {
		case err != nil && name == ".":
			return err
		case err != nil:
			return fs.SkipDir // unreadable: then it cannot be the model's
		case e.IsDir() && strings.Count(name, "/") >= searchDepth:
			return fs.SkipDir
		case path.Base(name) == configName || weights.IsGGUF(name):
			names = append(names, name)
		case alien == "" && looksLikeWeights(path.Base(name)):
			alien = name
		}
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("%s: %w", dir, err)
	}
	sub, err := findModel(names)
	if errors.Is(err, errNoModel) && alien != "" {
		err = fmt.Errorf("%s without a config.json: expected a checkpoint as the Hugging Face hub lays it out, config.json, tokenizer.json and *.safetensors, or GGUF", alien)
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", dir, err)
	}
	return filepath.Join(dir, filepath.FromSlash(sub)), nil
}

// looksLikeWeights recognises weights in any form, so that a model that cannot be
// read is refused, not overlooked. Those of an adapter are not a model.
func looksLikeWeights(name string) bool {
	switch path.Ext(name) {
	case ".safetensors", ".pth", ".pt":
		return !strings.HasPrefix(name, "adapter_")
	case ".bin":
		return strings.HasPrefix(name, "pytorch_model")
	}
	return false
}
