//go:build !linux

package weights

import (
	"errors"
	"os"
)

// Systems other than Linux are for development: there files are read.
func mapFile(*os.File, int64, int) (all, data []byte, err error) {
	return nil, nil, errors.ErrUnsupported
}

func unmap([]byte)    {}
func willNeed([]byte) {}
func populate([]byte) {}
