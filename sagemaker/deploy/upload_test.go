package deploy

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"hash/crc64"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestUpload(t *testing.T) {
	dir := t.TempDir()
	weights := make([]byte, 2*leastPart+12_345)
	random := rand.NewChaCha8([32]byte{1})
	_, _ = random.Read(weights) // never fails
	for name, content := range map[string][]byte{"config.json": []byte("{}"), "model.safetensors": weights} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	f := newFake(t)
	c, _ := f.dial(false)
	ctx := context.Background()
	f.faults["UploadPart"] = []string{"once", "twice"}

	var last, total int64
	progress := func(done, all int64) { last, total = done, all }
	uri, err := c.upload(ctx, dir, "models/teams/", "chat", progress)
	if err != nil {
		t.Fatal(err)
	}
	key := strings.TrimPrefix(uri, "s3://")
	if !strings.HasPrefix(key, "models/teams/chat/") || !strings.HasSuffix(key, "/") {
		t.Errorf("uploaded to %s", uri)
	}
	if got := f.objects[key+"model.safetensors"]; !bytes.Equal(got, weights) {
		t.Errorf("%d bytes of weights arrived, want %d equal ones", len(got), len(weights))
	}
	// The sum of all bytes, whatever the parts; computed here in another way.
	table := crc64.MakeTable(0x9a6c9329ac4bc9b5)
	sum := base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint64(nil, crc64.Checksum(weights, table)))
	if got := f.crcs[key+"model.safetensors"]; got != sum {
		t.Errorf("sum of the whole %s, want %s", got, sum)
	}
	if got, want := f.took(), []string{"put " + key + "config.json", "parts " + key + "model.safetensors"}; !slices.Equal(got, want) {
		t.Errorf("calls %q, want %q", got, want)
	}
	if want := int64(len(weights) + 2); last != want || total != want {
		t.Errorf("progress ended at %d of %d, want %d", last, total, want)
	}

	t.Run("again sends nothing", func(t *testing.T) {
		again, err := c.upload(ctx, dir, "models/teams", "chat", progress)
		if err != nil || again != uri {
			t.Errorf("%s, %v; want %s", again, err, uri)
		}
		if got := f.took(); len(got) > 0 {
			t.Errorf("calls %q, want none", got)
		}
	})
	t.Run("an object of another length is sent again", func(t *testing.T) {
		f.objects[key+"config.json"] = nil
		if _, err := c.upload(ctx, dir, "models/teams", "chat", progress); err != nil {
			t.Fatal(err)
		}
		if got := f.took(); len(got) != 1 {
			t.Errorf("calls %q, want one", got)
		}
	})
	for status, want := range map[int]string{
		http.StatusForbidden:        "access denied: s3:GetObject or s3:ListBucket is missing",
		http.StatusMovedPermanently: "the bucket is not in eu-west-1",
	} {
		t.Run(http.StatusText(status), func(t *testing.T) {
			f.headStatus = status
			defer func() { f.headStatus = 0 }()
			if _, err := c.upload(ctx, dir, "models/teams", "chat", progress); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("error %v, want %q", err, want)
			}
		})
	}
	t.Run("other content goes elsewhere", func(t *testing.T) {
		if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte("[]"), 0o666); err != nil {
			t.Fatal(err)
		}
		other, err := c.upload(ctx, dir, "models/teams", "chat", progress)
		if err != nil || other == uri {
			t.Errorf("%s, %v; want another than before", other, err)
		}
	})
}
