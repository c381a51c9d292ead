// Package tokentest gives tests a vocabulary of real size.
package tokentest

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/millrace-ai/millrace/engine/token"
)

// Vocabulary is Llama 3's cut to its first Size tokens, and a special one, the
// end, after them. The first tokens of a byte pair encoding are complete in
// themselves.
type Vocabulary struct {
	*token.Tokenizer
	Size int
}

// VocabSize returns the number of tokens, the end included.
func (v Vocabulary) VocabSize() int { return v.Size + 1 }

// IsSpecial reports whether id is the end.
func (v Vocabulary) IsSpecial(id int32) bool { return int(id) >= v.Size }

// EOS returns the end of sequence.
func (v Vocabulary) EOS() int32 { return int32(v.Size) }

// Encode fails where Llama 3 has a token that was cut off.
func (v Vocabulary) Encode(text string, special bool) ([]int32, error) {
	ids, err := v.Tokenizer.Encode(text, special)
	for _, id := range ids {
		if int(id) >= v.Size {
			return nil, errors.New("not in the vocabulary")
		}
	}
	return ids, err
}

// llama3 reads the tokenizer from a dependency's test data in the module cache.
var llama3 = sync.OnceValues(func() (*token.Tokenizer, error) {
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/daulet/tokenizers").Output()
	if err != nil {
		return nil, err
	}
	b, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(dir)), "test/data/Meta-Llama-3-8B-Instruct.json"))
	if err != nil {
		return nil, err
	}
	return token.LoadBytes(b, nil)
})

// Llama3 skips the test if the vocabulary is not on this machine.
func Llama3(t testing.TB, size int) Vocabulary {
	t.Helper()
	tk, err := llama3()
	if err != nil {
		t.Skip("Llama 3's vocabulary is not in the module cache: ", err)
	}
	return Vocabulary{tk, size}
}
