package engine

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"

	"github.com/millrace-ai/millrace/engine/page"
	"github.com/millrace-ai/millrace/engine/sample"
)

// A prefix file holds what the cache knows of the beginning of prompts, full pages
// of tokens, so that another process starts with it:
//
//	magic
//	length of the header, 4 bytes
//	header, JSON
//	pages, group by group, and of recurrent models the state after the last page
//	CRC-32C of all this, 4 bytes
const (
	prefixMagic     = "millrace prefix\n"
	maxPrefixHeader = 32 << 20
)

// PrefixOrigin says what the pages in a prefix file come from. They are good for an
// engine of the same origin and for no other.
type PrefixOrigin struct {
	Build   string // of this program: another one may compute other bits
	Backend string // and its instruction set, likewise
	Weights string // what tells them from others
	Plan    string // likewise
	Cache   string // how keys and values are kept

	PageBytes, StateBytes int64 // of device.ModelInfo
}

// differs says why pages from o are not what an engine of the origin here would
// compute, "" if they are.
func (o *PrefixOrigin) differs(here *PrefixOrigin) string {
	switch {
	case o.Weights != here.Weights || o.Plan != here.Plan:
		return "it belongs to another model, or to other weights of it"
	case o.Build != here.Build:
		return fmt.Sprintf("it was written by another build: %s, this is %s", o.Build, here.Build)
	case o.Backend != here.Backend:
		return fmt.Sprintf("it was computed by another backend: %s, this is %s", o.Backend, here.Backend)
	case *o != *here:
		return "its keys and values are in another format than this server's cache"
	}
	return ""
}

type prefixHeader struct {
	Origin PrefixOrigin
	Tokens []int32
}

// ComputePrefix has the loop compute the full pages of tokens, which it returns, as
// the beginning of a prompt. Run must be running.
func (e *Engine) ComputePrefix(ctx context.Context, tokens []int32) ([]int32, error) {
	n := len(tokens) / page.Tokens * page.Tokens
	switch {
	case n == 0:
		return nil, fmt.Errorf("%d tokens, expected at least a page of %d", len(tokens), page.Tokens)
	case e.cfg.NoPrefixCache:
		return nil, errNoPrefixCache
	case e.cfg.Plan.RopeDynamic && n > e.cfg.Plan.RopeOriginal:
		return nil, fmt.Errorf("%d tokens: beyond %d the model's rotations depend on the length of the whole prompt, so that no two share a beginning", n, e.cfg.Plan.RopeOriginal)
	}
	// One more token: a hit leaves the last one of a prompt to be computed.
	prompt := append(tokens[:n:n], tokens[0])
	stream, err := e.Submit(ctx, &Request{Tokens: prompt, MaxNewTokens: 1, IgnoreEOS: true, Params: sample.Greedy()})
	if err != nil {
		return nil, err
	}
	defer stream.Close()
	for {
		if _, err := stream.Next(ctx); errors.Is(err, io.EOF) {
			return tokens[:n:n], nil
		} else if err != nil {
			return nil, err
		}
	}
}

// WritePrefix writes a file of what ComputePrefix returned. Run must have returned.
func (e *Engine) WritePrefix(w io.Writer, tokens []int32, origin PrefixOrigin) error {
	keys := e.prefixKeys(tokens)
	hit := e.cache.Prefix(keys)
	if hit.Pages < len(keys) {
		return fmt.Errorf("the cache has kept %d of %d tokens", hit.Pages*page.Tokens, len(tokens))
	}
	header, err := json.Marshal(prefixHeader{origin, tokens})
	if err != nil {
		return err
	}
	sum := crc32.New(castagnoli)
	out := io.MultiWriter(w, sum)
	if _, err := io.WriteString(out, prefixMagic); err != nil {
		return err
	}
	if err := binary.Write(out, binary.LittleEndian, uint32(len(header))); err != nil {
		return err
	}
	if _, err := out.Write(header); err != nil {
		return err
	}
	content := make([]byte, origin.PageBytes)
	for _, ids := range hit.Groups {
		for _, id := range ids {
			if err := e.backend.ReadPage(int(id), content); err != nil {
				return err
			}
			if _, err := out.Write(content); err != nil {
				return err
			}
		}
	}
	if e.shape.recurrent {
		content = make([]byte, origin.StateBytes)
		if err := e.backend.ReadState(int(hit.State), content); err != nil {
			return err
		}
		if _, err := out.Write(content); err != nil {
			return err
		}
	}
	_, err = w.Write(sum.Sum(nil))
	return err
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// prefixKeys returns the keys of tokens at the beginning of a request that has no
// adapter and no salt.
func (e *Engine) prefixKeys(tokens []int32) []page.Key {
	return e.root(&Request{}, e.ropeLen(len(tokens))).AppendKeys(nil, tokens)
}

// ReadPrefix puts what a prefix file holds into the cache and returns how many tokens
// that are. After an error, which says what is wrong with the file, the cache is as
// it was. Run must not have been called yet.
func (e *Engine) ReadPrefix(r io.Reader, origin PrefixOrigin) (tokens int, err error) {
	if e.cfg.NoPrefixCache {
		return 0, errNoPrefixCache
	}
	sum := crc32.New(castagnoli)
	in := &prefixReader{r: io.TeeReader(r, sum)}
	header, err := in.header()
	if err != nil {
		return 0, err
	}
	if why := header.Origin.differs(&origin); why != "" {
		return 0, errors.New(why)
	}
	n := len(header.Tokens)
	if n == 0 || n%page.Tokens != 0 {
		return 0, errDamaged
	}
	for _, t := range header.Tokens {
		if t < 0 || int(t) >= e.limits.Vocab {
			return 0, errDamaged
		}
	}
	pages := 0
	for _, window := range e.shape.windows {
		pages += n/page.Tokens - page.First(window, n)
	}
	if room := e.cache.Pages.Total() - e.cache.Pages.Cached(); pages > room || n >= e.limits.MaxTotal ||
		e.shape.recurrent && e.cache.States.Total() == e.cache.States.Cached() {
		return 0, fmt.Errorf("its %d tokens are too many for the cache", n)
	}

	keys := e.prefixKeys(header.Tokens)
	groups, state := make([][]page.ID, len(e.shape.windows)), page.None
	defer func() {
		for _, ids := range groups {
			e.cache.Pages.Release(ids)
		}
		if state != page.None {
			e.cache.States.Release([]page.ID{state})
		}
	}()
	content := make([]byte, origin.PageBytes)
	for g, window := range e.shape.windows {
		for range n/page.Tokens - page.First(window, n) {
			id := e.cache.Pages.Alloc(g)
			groups[g] = append(groups[g], id)
			if err := in.copy(content, func() error { return e.backend.WritePage(int(id), content) }); err != nil {
				return 0, err
			}
		}
	}
	if e.shape.recurrent {
		state = e.cache.States.Alloc(0)
		content = make([]byte, origin.StateBytes)
		if err := in.copy(content, func() error { return e.backend.WriteState(int(state), content) }); err != nil {
			return 0, err
		}
	}
	if err := in.end(sum); err != nil {
		return 0, err
	}
	for g, ids := range groups {
		for i, id := range ids {
			e.cache.Pages.Register(id, keys[len(keys)-len(ids)+i].In(g))
		}
	}
	if state != page.None {
		e.cache.States.Register(state, keys[len(keys)-1])
	}
	return n, nil
}

var errNoPrefixCache = errors.New("the prefix cache is switched off")

// errDamaged is a file that WritePrefix has not written like this.
var errDamaged = errors.New("it is damaged")

// prefixReader reads the parts of a prefix file.
type prefixReader struct{ r io.Reader }

// read fills p.
func (in *prefixReader) read(p []byte) error {
	_, err := io.ReadFull(in.r, p)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: it ends early", errDamaged)
	}
	return err
}

func (in *prefixReader) header() (h prefixHeader, err error) {
	var start [len(prefixMagic) + 4]byte
	if err := in.read(start[:]); err != nil {
		return h, err
	}
	if string(start[:len(prefixMagic)]) != prefixMagic {
		return h, errors.New("it is not a prefix file, which `millrace prefix` writes")
	}
	length := binary.LittleEndian.Uint32(start[len(prefixMagic):])
	if length > maxPrefixHeader {
		return h, errDamaged
	}
	text := make([]byte, length)
	if err := in.read(text); err != nil {
		return h, err
	}
	if err := json.Unmarshal(text, &h); err != nil {
		return h, fmt.Errorf("%w: its header: %w", errDamaged, err)
	}
	return h, nil
}

// copy fills content and hands it over.
func (in *prefixReader) copy(content []byte, take func() error) error {
	if err := in.read(content); err != nil {
		return err
	}
	return take()
}

// end compares the checksum.
func (in *prefixReader) end(sum hash.Hash32) error {
	want := sum.Sum(nil)
	var got [crc32.Size]byte
	if err := in.read(got[:]); err != nil {
		return err
	}
	if string(got[:]) != string(want) {
		return fmt.Errorf("%w: its checksum does not match", errDamaged)
	}
	return nil
}
