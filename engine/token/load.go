package token

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// The largest tokenizer.json in use (262,144 tokens) has 33 MB.
const maxFileBytes = 256 << 20

// Load reads the tokenizer of a checkpoint folder: tokenizer.json, and where
// present tokenizer_config.json and special_tokens_map.json. An error is one
// line that names the file and its fault.
func Load(dir string) (*Tokenizer, error) { return LoadFS(os.DirFS(dir), dir) }

// LoadFS is Load for a folder that is the root of fsys and called name.
func LoadFS(fsys fs.FS, name string) (*Tokenizer, error) {
	in := folder{fsys, strings.TrimSuffix(name, "/") + "/"}
	const file = "tokenizer.json"
	tokenizerJSON, err := in.read(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, in.missing(file)
	}
	if err != nil {
		return nil, err
	}
	var config config
	// The second file fills what the first leaves open.
	for _, name := range []string{"tokenizer_config.json", "special_tokens_map.json"} {
		data, err := in.read(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = inFile(in.name+name, config.read(data))
		}
		if err != nil {
			return nil, err
		}
	}
	if err := checkGrowth(tokenizerJSON); err != nil {
		return nil, inFile(in.name+file, err)
	}
	t, err := newTokenizer(tokenizerJSON, config)
	return t, inFile(in.name+file, err)
}

// LoadBytes makes a tokenizer from the contents of tokenizer.json and
// tokenizer_config.json; configJSON may be empty.
func LoadBytes(tokenizerJSON, configJSON []byte) (*Tokenizer, error) {
	var config config
	if len(configJSON) > 0 {
		if err := config.read(configJSON); err != nil {
			return nil, inFile("tokenizer_config.json", err)
		}
	}
	if err := checkGrowth(tokenizerJSON); err != nil {
		return nil, inFile("tokenizer.json", err)
	}
	t, err := newTokenizer(tokenizerJSON, config)
	return t, inFile("tokenizer.json", err)
}

// inFile puts the name of a file before an error and makes it one line.
func inFile(file string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %s", file, strings.Join(strings.Fields(err.Error()), " "))
}

// folder is where a tokenizer's files are; name ends in a slash.
type folder struct {
	fs.FS
	name string
}

func (f folder) read(file string) ([]byte, error) {
	data, err := f.readAll(file)
	var pathError *fs.PathError
	if errors.As(err, &pathError) {
		err = pathError.Err
	}
	if err != nil {
		return nil, fmt.Errorf("%s%s: %w", f.name, file, err)
	}
	return data, nil
}

func (f folder) readAll(file string) ([]byte, error) {
	info, err := fs.Stat(f.FS, file) // which opens nothing, if it can; of folder it would
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	if info.Size() > maxFileBytes {
		return nil, fmt.Errorf("%d MB, the limit is %d MB", info.Size()>>20, maxFileBytes>>20)
	}
	return fs.ReadFile(f.FS, file)
}

// missing explains a folder without a tokenizer.json, which is called file.
func (f folder) missing(file string) error {
	for _, other := range []string{"tokenizer.model", "vocab.json", "vocab.txt", "tiktoken.model"} {
		if _, err := fs.Stat(f.FS, other); err == nil {
			return fmt.Errorf("%s%s: missing; %s alone is not enough: save the fast tokenizer, with transformers' AutoTokenizer.from_pretrained(...).save_pretrained(...)", f.name, file, other)
		}
	}
	return fmt.Errorf("%s%s: missing", f.name, file)
}

// explain says what is wrong with a tokenizer.json that the library refused,
// where its own words would puzzle.
func explain(tokenizerJSON []byte, err error) error {
	if len(bytes.TrimSpace(tokenizerJSON)) == 0 {
		return errors.New("empty")
	}
	var parts struct {
		Model json.RawMessage `json:"model"`
	}
	switch jsonErr := json.Unmarshal(tokenizerJSON, &parts); {
	case jsonErr != nil && bytes.HasPrefix(tokenizerJSON, []byte("version https://git-lfs")):
		return errors.New("a Git LFS pointer, not the file it points to")
	case jsonErr != nil:
		return fmt.Errorf("not the JSON of a tokenizer: %w", err)
	case len(parts.Model) == 0 || string(parts.Model) == "null":
		return errors.New(`no "model" part: not a fast tokenizer's file`)
	}
	return fmt.Errorf("not a tokenizer: %w", err)
}

// config is what is read of tokenizer_config.json and special_tokens_map.json.
type config struct {
	BOS    tokenName `json:"bos_token"`
	EOS    tokenName `json:"eos_token"`
	Unk    tokenName `json:"unk_token"`
	Pad    tokenName `json:"pad_token"`
	AddBOS *bool     `json:"add_bos_token"`
	AddEOS *bool     `json:"add_eos_token"`
}

// read fills what is still open in c.
func (c *config) read(data []byte) error {
	var more config
	if err := json.Unmarshal(data, &more); err != nil {
		return err
	}
	for _, f := range []struct{ have, more *tokenName }{
		{&c.BOS, &more.BOS}, {&c.EOS, &more.EOS}, {&c.Unk, &more.Unk}, {&c.Pad, &more.Pad},
	} {
		if *f.have == "" {
			*f.have = *f.more
		}
	}
	if c.AddBOS == nil {
		c.AddBOS = more.AddBOS
	}
	if c.AddEOS == nil {
		c.AddEOS = more.AddEOS
	}
	return nil
}

// tokenName is a token written as a string, as an object with "content", or as null.
type tokenName string

func (n *tokenName) UnmarshalJSON(data []byte) error {
	var object struct {
		Content string `json:"content"`
	}
	switch {
	case bytes.Equal(data, []byte("null")):
		return nil
	case data[0] == '"':
		return json.Unmarshal(data, (*string)(n))
	case data[0] == '{':
		if err := json.Unmarshal(data, &object); err != nil {
			return err
		}
		*n = tokenName(object.Content)
		return nil
	}
	return fmt.Errorf("a special token is %.40s, expected a string or an object with \"content\"", data)
}

// none is the id of a token that is not known.
const none = int32(-1)

type namedTokens struct{ bos, eos, unk, pad int32 }

// tokens looks the names up; one that the vocabulary lacks is not known.
func (c config) tokens(t *Tokenizer) namedTokens {
	id := func(name tokenName) int32 {
		if id, ok := t.ID(string(name)); ok {
			return id
		}
		return none
	}
	return namedTokens{bos: id(c.BOS), eos: id(c.EOS), unk: id(c.Unk), pad: id(c.Pad)}
}

func isTrue(b *bool) bool { return b != nil && *b }
