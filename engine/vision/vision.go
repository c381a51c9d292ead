package vision

import "errors"

// Errors that callers tell apart. Those that are returned wrap one of them and say
// more.
var (
	// ErrFormat is an image in a format that is not read, or not an image.
	ErrFormat = errors.New("unsupported image format")
	// ErrCorrupt is an image whose data is damaged or ends early.
	ErrCorrupt = errors.New("corrupt image")
	// ErrTooLarge is an image that exceeds one of Limits.
	ErrTooLarge = errors.New("image too large")
	// ErrShape is an image whose width and height the processor does not take:
	// transformers refuses it too.
	ErrShape = errors.New("unsupported image size")
	// ErrPlaceholders is a prompt that does not have a placeholder for each image.
	ErrPlaceholders = errors.New("images and placeholders differ")
)

// Limits bound what one image may take. They are checked before memory is
// allocated. Zero means the default.
type Limits struct {
	Bytes  int // of the encoded image; default 20 MiB
	Pixels int // width times height, before any resizing; default 48 Mi
	Memory int // bytes that decoding takes, as estimated from the header; default 256 MiB
}

// Pixels is a decoded image: 8 bits each of red, green and blue, row by row from
// the top, turned upright as EXIF says.
type Pixels struct {
	Width, Height int
	RGB           []byte // [Height][Width][3]
}

// Files are what a checkpoint says about images; nil for a file that it does not have.
type Files struct {
	Config       []byte // config.json
	Preprocessor []byte // preprocessor_config.json
	Processor    []byte // processor_config.json
	Tokenizer    []byte // tokenizer_config.json, for the texts of special tokens
}

// Layout is all that an image's size decides.
type Layout struct {
	Width, Height int // of the image, in pixels

	Tiles []Tile // the tower reads each by itself, in this order

	// Tokens is the number of image tokens, and so of the embedding rows that go
	// into the prompt.
	Tokens int
	// Order says, for each image token, which row it takes of the embedding rows of
	// all tiles, one tile after the other; or Newline. Nil: the rows as they come.
	Order []int32
	// Grid is the size in image tokens that multi-axis positions (mrope) count in:
	// time, height, width. Zero in families that have no such positions.
	Grid [3]int
	// Prompt is the text that replaces the image's placeholder: image tokens, and the
	// markers around and between them.
	Prompt string

	canvases []canvas
	columns  int // of tiles, or of tokens, that the prompt tells apart; 0: none
}

// Newline in Layout.Order is the row that the checkpoint has for the end of a line
// of tiles: LLaVA-NeXT's image_newline.
const Newline int32 = -1

// Tile is one run of the vision tower: the whole image, or a part of it.
type Tile struct {
	Patches int // rows that come from pixels; a multiple of Merge
	// Class is 1 if a row for the class token follows the patches, else 0. It is all
	// zeros, at position 0 of the table; nothing is asked of it.
	Class int
	// Merge is the number of consecutive patches that become one embedding row, by
	// pooling, pixel shuffle or a merger: a square, row by row.
	Merge int
	// Rows and Columns count the patches, Rows*Columns = Patches.
	Rows, Columns int
	// Windows are the numbers of patches that attend to each other, one window after
	// the other, in layers with windows. Nil: all patches of the tile.
	Windows []int32

	canvas, left, top int // the canvas that it is cut out of, and where, in pixels
}

// Len is the number of rows of the tower's input.
func (t *Tile) Len() int { return t.Patches + t.Class }

// Embeds is the number of embedding rows that the tower returns for the tile.
func (t *Tile) Embeds() int { return t.Patches / t.Merge }

// Image is an image as the tower reads it.
type Image struct {
	*Layout

	Inputs []Input // of each tile of Layout
}

// Input is the tower's input for a tile. Per row are here and below the Len rows of the
// tile, in the order in which the tower reads them: whatever is merged is consecutive.
type Input struct {
	Patches []float32 // [Len][PatchWidth]
	// Pos is the row of the table of learned positions, per row. Nil: there is none, or
	// it is interpolated.
	Pos []int32
	// Axes are the row and the column of each patch, for two-axis rope and for tables
	// of positions by axis. Nil: unused.
	Axes []int32 // [Len][2]
	// InterpRows and InterpWeights interpolate a table of learned positions: four of its
	// rows for each patch, and what each is multiplied with. Nil: unused.
	InterpRows    []int32   // [Len][4]
	InterpWeights []float32 // [Len][4]
}

// Bytes is what the inputs take of memory.
func (m *Image) Bytes() (n int64) {
	for i := range m.Inputs {
		in := &m.Inputs[i]
		n += 4 * int64(len(in.Patches)+len(in.Pos)+len(in.Axes)+len(in.InterpRows)+len(in.InterpWeights))
	}
	return n
}

// Bidirectional says which tokens of a prompt attend both ways in the language model.
type Bidirectional int

// The ways of attending to tokens that come later.
const (
	Causal           Bidirectional = iota // none
	WithinImage                           // each run of image tokens within itself
	WithinImageLocal                      // the same, only in layers with a window
	WholePrompt                           // all of the prompt, text too
)

// A Config is what Files say, for whoever builds the tower or reserves memory for it.
type Config struct {
	Family string // model_type of config.json: "gemma3", …

	// Placeholder is the text that stands for one image in the chat template's output.
	Placeholder string
	// ImageToken is the text of an image token, and ImageTokenID its id.
	ImageToken   string
	ImageTokenID int32
	// Bidirectional says which tokens attend both ways in the language model.
	Bidirectional Bidirectional
	// Prefixed says that Expand writes the beginning-of-sequence token into prompts with
	// images: they are tokenized without adding special tokens.
	Prefixed bool

	// PatchSize is the side of a patch in pixels, and PatchWidth the floats of a row of
	// the tower's input, 3 * Frames * PatchSize²: [channel][frame][row][column] as the
	// weight of a convolution, or [row][column][channel] if ChannelsLast.
	PatchSize, PatchWidth int
	ChannelsLast          bool
	// Frames is how many frames of a film a patch has; those of an image are the same.
	Frames int
	// MergeSize is the side of the square of patches that becomes one embedding row.
	MergeSize int

	// MaxTile is the most rows that a tile may have, and MaxTokens the most image tokens
	// of an image.
	MaxTile, MaxTokens int
}
