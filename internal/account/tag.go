package account

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"
)

const mostTags = 50

// CheckTags checks the tags of --tag, besides which own is set.
func CheckTags(tags map[string]string, own string) error {
	if len(tags) >= mostTags {
		return fmt.Errorf("--tag: %d, AWS takes %d besides %s", len(tags), mostTags-1, own)
	}
	odd := func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune(" _.:/=+-@", r)
	}
	for _, key := range slices.Sorted(maps.Keys(tags)) {
		switch value := tags[key]; {
		case key == "" || len(key) > 128 || strings.HasPrefix(key, "aws:") || strings.ContainsFunc(key, odd):
			return fmt.Errorf("--tag %q: expected a key that does not begin with aws: and has at most 128 letters, digits and _.:/=+-@", key)
		case key == own:
			return fmt.Errorf("--tag %s: deploy sets it", key)
		case len(value) > 256 || strings.ContainsFunc(value, odd):
			return fmt.Errorf("--tag %s=%q: expected at most 256 letters, digits and _.:/=+-@", key, value)
		}
	}
	return nil
}
