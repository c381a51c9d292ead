package vision

// Decode reads an image.
func Decode(data []byte, limits Limits) (*Pixels, error) { return nil, ErrFormat }
