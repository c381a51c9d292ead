package source

import (
	"math/rand/v2"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

func TestTallyInAnyOrder(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	data := make([]byte, 100_003)
	for i := range data {
		data[i] = byte(r.Uint32())
	}
	// The check values of the catalogue of parametrised CRC algorithms.
	for _, known := range []struct {
		a    *algorithm
		want uint64
	}{{crc64NVME, 0xae8b14860a799888}, {crc32IEEE, 0xcbf43926}, {crc32C, 0xe3069283}} {
		if got := known.a.sum([]byte("123456789")); got != known.want {
			t.Errorf("%s of 123456789 = %x, want %x", known.a.name, got, known.want)
		}
		for range 20 {
			type span struct{ from, to int }
			var spans []span
			for at := 0; at < len(data); {
				n := min(1+r.IntN(1<<uint(r.IntN(18))), len(data)-at)
				spans = append(spans, span{at, at + n})
				at += n
			}
			r.Shuffle(len(spans), func(i, j int) { spans[i], spans[j] = spans[j], spans[i] })
			sum := newTally(checksum{known.a, known.a.sum(data)}, int64(len(data)))
			for _, s := range spans {
				sum.add(data[s.from:s.to], int64(s.from))
			}
			if err := sum.check(); err != nil {
				t.Errorf("%s in %d parts: %v", known.a.name, len(spans), err)
			}
			sum.want ^= 1
			if sum.check() == nil {
				t.Errorf("%s: a wrong sum passes", known.a.name)
			}
		}
	}
}

// A CRC32 without a type beside an ETag of parts is the parts', as moto has it.
func TestChecksumWithoutType(t *testing.T) {
	sum, nvme := "AAAAAA==", "AAAAAAAAAAA="
	for _, tt := range []struct {
		etag     string
		kind     types.ChecksumType
		nvme, is *string
		want     *algorithm
	}{
		{`"0123-33"`, "", nil, &sum, nil},
		{`"0123"`, "", nil, &sum, crc32IEEE},
		{`"0123-33"`, types.ChecksumTypeFullObject, nil, &sum, crc32IEEE},
		{`"0123"`, types.ChecksumTypeComposite, nil, &sum, nil},
		{`"0123-33"`, "", &nvme, nil, crc64NVME}, // which S3 keeps of whole objects only
	} {
		if got := wholeChecksum(tt.etag, tt.kind, tt.nvme, tt.is, nil); got.algorithm != tt.want {
			t.Errorf("ETag %s, type %q: %v, want %v", tt.etag, tt.kind, got.algorithm, tt.want)
		}
	}
}
