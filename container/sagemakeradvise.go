package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/millrace-ai/millrace/sagemaker/deploy"
)

// adviseFlags are the flags of advice on instances.
type adviseFlags struct {
	Advise      bool              `help:"Say how many instances of which type the model takes, and what they cost, by --measured and --prices; deploy nothing."`
	Measured    map[string]string `mapsep:"none" placeholder:"ml.TYPE=FILE" help:"For --advise: what bench --json wrote about this model on a machine of the type; repeat it."`
	Prices      string            `placeholder:"FILE" help:"For --advise: prices of an hour, a line for each type: ml.c7i.2xlarge,0.40."`
	Readers     int               `placeholder:"16" help:"For --advise: requests at once, all together."`
	ReaderSpeed float64           `placeholder:"8" help:"For --advise: tokens per second that nine of ten requests are to get; 5 to 10 are a reader's."`
	JSON        bool              `name:"json" help:"For --advise: print JSON."`
}

const (
	defaultReaders     = 16
	defaultReaderSpeed = 8    // tokens per second
	adviceTokens       = 4096 // of a request, if nothing says how long it may be
)

// check refuses what has no effect.
func (f *adviseFlags) check() error {
	if !f.Advise && (len(f.Measured) > 0 || f.Prices != "" || f.Readers != 0 || f.ReaderSpeed != 0 || f.JSON) {
		return errors.New("--measured, --prices, --readers, --reader-speed and --json belong to --advise")
	}
	return nil
}

// demand reads what the flags name.
func (f *adviseFlags) demand() (*deploy.Demand, error) {
	d := &deploy.Demand{
		Readers: cmp.Or(f.Readers, defaultReaders), Speed: cmp.Or(f.ReaderSpeed, defaultReaderSpeed),
		Measured: map[string][]deploy.Measurement{},
	}
	for name, path := range f.Measured {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("--measured %s: %w", name, err)
		}
		if d.Measured[name], err = deploy.ReadMeasurements(data); err != nil {
			return nil, fmt.Errorf("--measured %s=%s: %w", name, path, err)
		}
	}
	if err := d.Check(); err != nil {
		return nil, err
	}
	if f.Prices == "" {
		return nil, errors.New("--prices is missing: a file with a line for each instance type, ml.TYPE,PRICE OF AN HOUR, from AWS's page of prices")
	}
	table, err := os.Open(f.Prices)
	if err != nil {
		return nil, fmt.Errorf("--prices: %w", err)
	}
	defer table.Close()
	if d.Prices, err = deploy.ReadPrices(table); err != nil {
		return nil, fmt.Errorf("--prices %s: %w", f.Prices, err)
	}
	return d, nil
}

// advise prints which instances the model takes, as the variables of env have it
// served.
func (f *adviseFlags) advise(ctx context.Context, model string, env map[string]string) error {
	d, err := f.demand()
	if err != nil {
		return usageError{err}
	}
	var environ []string
	for name, value := range env {
		environ = append(environ, name+"="+value)
	}
	cfg, _, _, err := parseServe(nil, environ)
	if err != nil {
		return usageError{fmt.Errorf("--env: %w", err)}
	}
	place, err := locateModel(cmp.Or(model, cfg.ModelID))
	if err != nil {
		return usageError{fmt.Errorf("--model: %w", err)}
	}
	about, err := describeModel(ctx, place, cfg)
	if err != nil {
		return usageError{fmt.Errorf("--model: %w", err)}
	}
	tokens := cfg.MaxTotalTokens
	if tokens == 0 {
		tokens = min(about.Context, adviceTokens)
	}
	d.Model = deploy.ModelSize{Weights: about.Weights, PerRequest: about.PerToken*int64(tokens) + about.State}
	choices := d.Advise()
	if f.JSON {
		return printJSON(struct {
			Model   deploy.ModelSize `json:"model"`
			Tokens  int              `json:"tokens_per_request"`
			Readers int              `json:"readers"`
			Speed   float64          `json:"reader_speed"`
			Choices []deploy.Choice  `json:"choices"`
		}{d.Model, tokens, d.Readers, d.Speed, choices})
	}
	fmt.Printf("%s: %s of weights, %s for each request of up to %d tokens\n\n", about.Name, size(d.Model.Weights), size(d.Model.PerRequest), tokens)
	return d.WriteAdvice(os.Stdout, choices)
}
