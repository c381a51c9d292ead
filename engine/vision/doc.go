// Package vision turns the bytes of an image into what a vision tower reads, as
// the image processor of transformers does for the checkpoint.
//
// Terms: the image processor turns pixels into patches, each one row of the
// tower's input. The vision tower turns patches into embedding rows. Image tokens
// are the tokens of a prompt that embedding rows stand for.
//
// An image takes these steps:
//
//	p, err := vision.New(files)                    // once: *Processor; p.Config is its Config
//	px, err := vision.Decode(data, limits)         // bytes to RGB, bounded
//	layout, err := p.Layout(px.Width, px.Height)   // *Layout: sizes, tokens, prompt; cheap
//	prompt, err = p.Expand(prompt, layouts)        // placeholders become image tokens
//	img, err := p.Process(px)                      // *Image: the same layout, and the patches
//
// Layout alone says how many tokens an image of some size has: validation, usage
// and the encoder all ask it, so that they never differ.
//
// A Processor never changes; all its methods may be called from several goroutines.
package vision
