//go:build !linux

package weights

import (
	"fmt"
	"os"
)

// mapFile reads the file at path, called name in messages. Systems other
// than Linux are for development: memory is not worth a second code path.
func mapFile(path, name string) (*file, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, reason(err))
	}
	return inMemory(name, data), nil
}

func drop([]byte) {}

func (f *file) close() error {
	f.data, f.begin = nil, nil
	return nil
}
