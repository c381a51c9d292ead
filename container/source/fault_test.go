package source

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/millrace-ai/millrace/container/source/s3test"
)

// faultRuns is how many of the random runs are made; MILLRACE_FAULT_RUNS=1000
// makes them all, in a minute or two.
const faultRuns = 60

// atOnce is how many run beside each other: mostly they wait.
const atOnce = 8

// outcome is what a run was made of, and what it may end in beside the right
// weights.
type outcome struct {
	story   string
	allowed *regexp.Regexp // of the error
}

// TestFaults reads models from a server behind a proxy that injects faults, in
// random runs. Each ends with exactly the weights that were there at the
// start, or with an error that names the object and the cause.
func TestFaults(t *testing.T) {
	runs := faultRuns
	if text := os.Getenv("MILLRACE_FAULT_RUNS"); text != "" {
		var err error
		if runs, err = strconv.Atoi(text); err != nil {
			t.Fatalf("MILLRACE_FAULT_RUNS=%q: expected a number", text)
		}
	}
	first := 0
	if text := os.Getenv("MILLRACE_FAULT_SEED"); text != "" { // one run alone
		var err error
		if first, err = strconv.Atoi(text); err != nil {
			t.Fatalf("MILLRACE_FAULT_SEED=%q: expected a number", text)
		}
		runs = 1
	}
	var group sync.WaitGroup
	gate := make(chan struct{}, atOnce)
	var loaded, refused, injected atomic.Int64
	for seed := first; seed < first+runs; seed++ {
		gate <- struct{}{}
		group.Go(func() {
			defer func() { <-gate }()
			t.Run(strconv.Itoa(seed), func(t *testing.T) {
				ok, faults := faultRun(t, uint64(seed))
				injected.Add(int64(faults))
				if ok {
					loaded.Add(1)
				} else {
					refused.Add(1)
				}
			})
		})
	}
	group.Wait()
	t.Logf("%d runs: %d loaded, %d refused with the cause, %d faults injected", runs, loaded.Load(), refused.Load(), injected.Load())
	if runs >= faultRuns && (loaded.Load() < int64(runs)/3 || refused.Load() < int64(runs)/20) {
		t.Errorf("%d loaded and %d refused of %d: do the faults still strike?", loaded.Load(), refused.Load(), runs)
	}
}

// faultRun is one run. It reports whether the model was loaded, and how many
// faults were injected.
func faultRun(t *testing.T, seed uint64) (ok bool, faults int) {
	r := rand.New(rand.NewPCG(seed, 3))
	files := randomModel(seed, 1+r.IntN(3), 2+r.IntN(6), 500+r.IntN(3500))
	want := wantHashes(t, files)
	server := s3test.NewServer(t)
	location := "s3://models/llama"
	if r.IntN(5) == 0 {
		location = "s3://models/llama.tar.gz"
		archive := pack(t, files, []string{"", ".gz", ".zst"}[r.IntN(3)], r)
		server.Put("models", "llama.tar.gz", archive)
	} else {
		put(server, "models", "llama/", files)
	}
	checksums := r.IntN(2) == 0
	if !checksums {
		server.WithoutChecksums()
	}

	share := []float64{0, 0.02, 0.1, 0.3}[r.IntN(4)] // of requests that are struck
	kinds := []s3test.Fault{s3test.Reset, s3test.SlowDown, s3test.Internal, s3test.Stall, s3test.Truncated, s3test.Short, s3test.Unranged, s3test.Shifted, s3test.Garbage}
	if r.IntN(3) == 0 { // one kind alone
		kinds = kinds[r.IntN(len(kinds)):][:1]
	}
	var mu sync.Mutex
	plan := func(_ int, req *http.Request) s3test.Fault {
		mu.Lock()
		defer mu.Unlock()
		if r.Float64() >= share {
			return s3test.None
		}
		return kinds[r.IntN(len(kinds))]
	}
	proxy := s3test.NewProxy(t, server.URL, seed, plan)
	keys := &keyRing{}
	// A machine that does much else may stop for longer than a test waits.
	out := outcome{allowed: regexp.MustCompile("no data arrived"), story: fmt.Sprintf("%s, %.0f %% of requests struck by %v", location, share*100, kinds)}
	if share > 0 {
		// Eight faults in a row are rare, and then it may give up.
		out.allowed = regexp.MustCompile(`SlowDown|InternalError|Bad Gateway|502|reset|EOF|no data arrived|not the range`)
	}
	disturb(r, &out, server, proxy, keys, files, checksums)

	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	l, err := parseLocation(location)
	if err != nil {
		t.Error(err)
		return false, 0
	}
	sums, tokenizer, err := read(ctx, newBucket(testConfig(t, proxy.URL, keys), l, quick, silent))
	faults = proxy.Injected()
	switch {
	case err == nil && (!maps.Equal(sums, want) || !bytes.Equal(tokenizer, files["tokenizer.json"])):
		t.Errorf("%s: WRONG WEIGHTS were accepted", out.story)
	case err == nil:
		return true, faults
	case ctx.Err() != nil:
		t.Errorf("%s: hangs: %v", out.story, err)
	case !out.allowed.MatchString(err.Error()):
		t.Errorf("%s: refused without a reason that fits: %v", out.story, err)
	case strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), "s3://models/llama"):
		t.Errorf("%s: not one line that names the object: %q", out.story, err)
	}
	return false, faults
}

// disturb adds at most one of the things that people and platforms do, after
// some requests.
func disturb(r *rand.Rand, out *outcome, server *s3test.Server, proxy *s3test.Proxy, keys *keyRing, files map[string][]byte, checksums bool) {
	after := r.IntN(30)
	also := func(pattern string) {
		out.allowed = regexp.MustCompile(pattern + "|" + out.allowed.String())
	}
	// Once something is pinned: what was replaced before is simply there.
	once := func(what string, do func()) {
		out.story += fmt.Sprintf("; after %d requests %s", after, what)
		var first sync.Once
		proxy.Intercept(func(n int, w http.ResponseWriter, r *http.Request) bool {
			if n >= after && r.Header.Get("If-Match") != "" {
				first.Do(do)
			}
			return false
		})
	}
	some := func() string { // one of the objects
		names := make([]string, 0, len(files))
		for name := range files {
			names = append(names, "llama/"+name)
		}
		if strings.Contains(out.story, ".tar.gz") {
			return "llama.tar.gz"
		}
		return names[r.IntN(len(names))]
	}
	switch r.IntN(8) {
	case 0:
		key := some()
		other := bytes.Repeat([]byte{byte(r.Uint32())}, 200_000)
		once(key+" is replaced", func() { server.Put("models", key, other) })
		also("replaced while")
	case 1:
		key := some()
		once(key+" is deleted", func() { server.Delete("models", key) })
		also("no such object|the file is missing, though")
	case 2:
		out.story += fmt.Sprintf("; credentials expire every %d requests", after+3)
		proxy.Intercept(keys.expire(after+3, true))
		also("credentials have expired")
	case 3:
		out.story += fmt.Sprintf("; credentials expire for good after %d requests", after)
		proxy.Intercept(keys.expire(after, false))
		also("credentials have expired")
	case 4:
		out.story += fmt.Sprintf("; access is taken away after %d requests", after)
		proxy.Intercept(func(n int, w http.ResponseWriter, r *http.Request) bool {
			if n < after {
				return false
			}
			s3test.Fail(w, http.StatusForbidden, "AccessDenied", "User: arn:aws:sts::1:assumed-role/r/i is not authorized to perform: kms:Decrypt on resource: arn:aws:kms:us-east-1:1:key/k")
			return true
		})
		also("kms:Decrypt is missing|access denied: s3:ListBucket")
	case 5:
		if !checksums {
			return
		}
		out.story += "; bits are flipped"
		proxy.CorruptOnly(func(n int, r *http.Request) bool {
			return n >= after%8 && n%7 == after%7 && r.Method == http.MethodGet && r.URL.Query().Get("list-type") == ""
		})
		// A header that is damaged may be found out before the sum is.
		also("damaged in transit|header|JSON|tensor|gzip|zstd|flate|tar|checksum|corrupt|invalid|magic|crc|cut short|config|truncated|index|archive|window|block|symbol|safetensors")
	}
}

// keyRing hands out access keys, one after the other.
type keyRing struct {
	mu   sync.Mutex
	last int
}

func (k *keyRing) Retrieve(context.Context) (aws.Credentials, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.last++
	return aws.Credentials{AccessKeyID: fmt.Sprintf("KEY%d", k.last), SecretAccessKey: "secret"}, nil
}

// expire answers requests signed with a key that has expired: every so many
// requests the newest one does, or all do after so many.
func (k *keyRing) expire(every int, renewable bool) func(int, http.ResponseWriter, *http.Request) bool {
	var mu sync.Mutex
	expired := 0
	seen := 0
	return func(n int, w http.ResponseWriter, r *http.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		seen++
		if seen%max(1, every) == 0 {
			k.mu.Lock()
			expired = k.last
			k.mu.Unlock()
		}
		var key int
		_, auth, _ := strings.Cut(r.Header.Get("Authorization"), "Credential=KEY")
		_, _ = fmt.Sscanf(auth, "%d/", &key)
		if renewable && key > expired || !renewable && n < every {
			return false
		}
		s3test.Fail(w, http.StatusBadRequest, "ExpiredToken", "The provided token has expired.")
		return true
	}
}
