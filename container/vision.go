package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"slices"

	"github.com/millrace-ai/millrace/container/config"
	"github.com/millrace-ai/millrace/engine"
	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/loader"
	"github.com/millrace-ai/millrace/engine/plan"
	"github.com/millrace-ai/millrace/engine/vision"
	"github.com/millrace-ai/millrace/handler"
	"github.com/millrace-ai/millrace/handler/imagefetch"
)

const (
	mostPatches = 16 << 10  // of a tile: images that would have more are made smaller
	imageRows   = 256 << 20 // bytes for rows of images, if --image-memory does not say
	imageShare  = 16        // of what is free, no more than one in so many
)

// seeing is how a model reads images.
type seeing struct {
	tower     *plan.Tower
	processor *vision.Processor // nil until an archive has come to its files
	low       *vision.Processor // for images of low detail; nil: processor
	limits    device.Limits     // of the tower's backend
}

// openVision reads how the model reads images. A model whose tower or image processor is
// not supported is served without it, which the log tells.
func (m *model) openVision(cfg *config.Serve) {
	var has struct {
		Vision json.RawMessage `json:"vision_config"`
	}
	if json.Unmarshal(m.checkpoint.Config(), &has) != nil || has.Vision == nil || deviceName(cfg) == "sim" {
		return
	}
	see, err := m.vision(cfg)
	if err != nil {
		slog.Warn("the model is served without images", "model", m.id, "reason", err)
		return
	}
	m.seeing = see
}

func (m *model) vision(cfg *config.Serve) (*seeing, error) {
	tower, err := loader.Tower(m.checkpoint, m.config)
	if err != nil {
		return nil, err
	}
	if tower == nil {
		return nil, fmt.Errorf("the vision tower of model family %q is not supported", m.config.Family)
	}
	// The root of an archive lists what came before the weights. Waiting for what comes after
	// them would hold all of them in memory.
	if listed, err := fs.ReadDir(m.files, "."); err != nil {
		return nil, err
	} else if m.checkpoint.Streamed() && !slices.ContainsFunc(listed, func(e fs.DirEntry) bool { return e.Name() == "tokenizer_config.json" }) {
		return &seeing{tower: tower, limits: engine.TowerLimits(tower, min(mostPatches, tower.MaxPos), cfg.Threads)}, nil
	}
	processor, low, err := m.processors()
	if err != nil {
		return nil, err
	}
	return &seeing{tower: tower, processor: processor, low: low, limits: engine.TowerLimits(tower, processor.Config.MaxTile, cfg.Threads)}, nil
}

// processors reads the checkpoint's image processor, and the one for images of low detail.
func (m *model) processors() (processor, low *vision.Processor, err error) {
	files := vision.Files{Config: m.checkpoint.Config()}
	for name, data := range map[string]*[]byte{
		"preprocessor_config.json": &files.Preprocessor,
		"processor_config.json":    &files.Processor,
		"tokenizer_config.json":    &files.Tokenizer,
	} {
		if *data, err = fs.ReadFile(m.files, name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, nil, err
		}
	}
	if files.Preprocessor == nil && files.Processor == nil {
		return nil, nil, errors.New("there is neither preprocessor_config.json nor processor_config.json")
	}
	return processors(files)
}

// processors returns the image processor of a checkpoint, none of whose tiles has more
// than mostPatches, and the one for images of low detail, nil if there is no difference.
func processors(files vision.Files) (processor, low *vision.Processor, err error) {
	if processor, err = limitedProcessor(files); err != nil {
		return nil, nil, err
	}
	if low, err = limitedProcessor(files); err != nil || !low.LowDetail() {
		low = nil
	}
	return processor, low, err
}

func limitedProcessor(files vision.Files) (*vision.Processor, error) {
	p, err := vision.New(files)
	if err == nil && p.Config.MaxTile > mostPatches {
		err = p.Limit(mostPatches / (p.Config.MergeSize * p.Config.MergeSize))
	}
	return p, err
}

// finishVision reads the image processor once the weights of an archive have arrived. A
// model without one is served without images.
func (s *server) finishVision(l *loadedModel) (err error) {
	see := s.model.seeing
	if !l.sees || see.processor != nil {
		return nil
	}
	if see.processor, see.low, err = s.model.processors(); err == nil {
		return nil
	}
	s.log.Warn("the model is served without images", "model", s.name(), "reason", err)
	s.sizing.images = false
	return s.withoutImages(l)
}

// withoutImages closes the towers.
func (s *server) withoutImages(l *loadedModel) error {
	s.model.seeing, l.sees = nil, false
	var errs []error
	for i := range l.replicas {
		r := &l.replicas[i]
		if r.tower != nil {
			errs = append(errs, r.tower.Close())
		}
		r.tower, r.encoder = nil, nil
	}
	return errors.Join(errs...)
}

// openTowers opens a backend for each replica's vision tower, none if there is none or if the
// backend cannot run it.
func (s *server) openTowers(l *loadedModel) (err error) {
	see := s.model.seeing
	if see == nil {
		return nil
	}
	for i := range l.replicas {
		r := &l.replicas[i]
		if r.tower, err = openBackend(s.cfg, see.limits, see.tower.Plan, i); err != nil {
			return err
		}
		if err := r.tower.CheckPlan(see.tower.Plan); err != nil {
			s.log.Warn("the model is served without images", "model", s.name(), "reason", err)
			return s.withoutImages(l)
		}
	}
	l.sees = true
	return nil
}

// loadWeights gives the model's weights to the backend, and the tower's to its own, if
// there is one.
func (s *server) loadWeights(l *loadedModel, into device.Backend, progress func(done, total int64)) (err error) {
	if !l.sees {
		l.info, err = loader.Load(into, s.model.plan, s.model.checkpoint, progress)
		return err
	}
	see := s.model.seeing
	loaded, err := loader.LoadSeeing(into, s.model.plan, l.towers(), see.tower, s.model.checkpoint, progress)
	if err != nil {
		return err
	}
	l.info = loaded.Model
	l.info.WeightBytes += loaded.Tower.WeightBytes
	l.info.MappedBytes += loaded.Tower.MappedBytes
	l.info.WorkspaceBytes += loaded.Tower.WorkspaceBytes
	for i := range l.replicas {
		r := &l.replicas[i]
		if r.encoder, err = engine.NewTower(r.tower, see.limits, see.tower, loaded.Newline); err != nil {
			return err
		}
	}
	return nil
}

// imageMemory is what rows of images may take if so much memory is free, and once more
// what requests hold of images until they are encoded.
func (s *sizing) imageMemory(free int64) int64 {
	switch {
	case !s.images:
		return 0
	case s.cfg.ImageMemory > 0:
		return int64(s.cfg.ImageMemory) << 20
	}
	return min(imageRows, free/imageShare)
}

// engineVision is what the engine needs of the tower, nil if there is none. memory is for what
// the tower makes of images.
func (r *replica) engineVision(see *seeing, memory int64) *engine.Vision {
	if r.encoder == nil {
		return nil
	}
	c := &see.processor.Config
	return &engine.Vision{Encoder: r.encoder, Token: c.ImageTokenID, Memory: memory, Bidirectional: c.Bidirectional}
}

// handlerVision is what the API needs of it.
func (l *loadedModel) handlerVision(see *seeing) *handler.Vision {
	if !l.sees {
		return nil
	}
	return &handler.Vision{Processor: see.processor, Low: see.low}
}

// newImageFetcher makes what gets the images that requests name.
func newImageFetcher(cfg *config.Serve) (*imagefetch.Fetcher, error) {
	options := imagefetch.Options{Disabled: !cfg.ImageFetch, MaxBytes: cfg.MaxImageFetchSize}
	if cfg.ImageProxy != "" {
		proxy, err := url.Parse(cfg.ImageProxy)
		if err != nil {
			return nil, fmt.Errorf("--image-proxy: %w", err)
		}
		options.Proxy = proxy
	}
	return imagefetch.New(options)
}
