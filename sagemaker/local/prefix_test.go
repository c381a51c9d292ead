package local

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
)

var prefixAware = Routing{Strategy: PrefixAware, PrefixLength: 1024, ConcurrencyThreshold: 2}

// Calls with the same beginning go to the same instance, as long as it is not
// busy, and others are spread.
func TestPrefixRouting(t *testing.T) {
	release := make(chan struct{})
	r := run(t, Config{Instances: 2, Routing: prefixAware, Launcher: &fakes{t: t, handler: numbered(release, nil)}})
	common := func(name string) string { return name + strings.Repeat(".", 1024) }
	homes := map[string]int{}
	for i := range 16 {
		name := fmt.Sprint("chat ", i)
		home, err := r.invokedBy(common(name), "")
		if err != nil {
			t.Fatal(err)
		}
		homes[home]++
		for turn := range 4 {
			if got, err := r.invokedBy(common(name)+fmt.Sprint(turn), ""); got != home {
				t.Fatalf("%s: instance %s answered (%v), want %s, which has its prefix", name, got, err, home)
			}
		}
	}
	if len(homes) != 2 {
		t.Errorf("16 prefixes are all on one instance: %v", homes)
	}
	applications := map[string]bool{}
	for i := range 16 {
		in := input()
		in.Body, in.PrefixAwareId = []byte(common("the same")), aws.String(fmt.Sprint("application ", i))
		out, err := r.InvokeEndpoint(context.Background(), in)
		if err != nil {
			t.Fatal(err)
		}
		applications[string(out.Body)] = true
	}
	if len(applications) != 2 {
		t.Error("the prefix of 16 applications is on one instance")
	}

	// Both calls at once are the most for the prefix of "wait".
	for range 2 {
		go r.invokedBy("wait", "")
	}
	eventually(t, "two calls wait at one instance", func() bool { return strings.Contains(r.metricsText(), `State="in service"} 2`) })
	busy := r.fleet.ofPrefix((&call{body: []byte("wait")}).prefix(1024)).number
	for range 3 {
		go r.invokedBy("wait", "")
	}
	eventually(t, "more calls wait elsewhere", func() bool {
		r.fleet.mu.Lock()
		defer r.fleet.mu.Unlock()
		return r.fleet.instances[busy-1].outstanding == 2 && r.fleet.instances[2-busy].outstanding == 3 ||
			r.fleet.instances[busy-1].outstanding == 3 && r.fleet.instances[2-busy].outstanding == 2
	})
	close(release)
}

// The prefix is what AWS says: bytes of the body, or characters of the texts.
func TestPrefixOfACall(t *testing.T) {
	for _, tt := range []struct {
		op   operation
		body string
		want string
	}{
		{opInvoke, `{"inputs":"äöü"}`, `"" {"inpu`},
		{opStream, `{}`, `"" {}`},
		{opOpenAI, `{"messages":[{"role":"system","content":"äö"},{"role":"user","content":[{"type":"text","text":"ü34567"}]}]}`, `"" äöü345`},
		{opOpenAI, `{"messages":[{"content":null},{"content":"ab"}]}`, `"" ab`},
		{opOpenAI, `[1]`, `"" `},
	} {
		if got := string((&call{op: tt.op, body: []byte(tt.body)}).prefix(6)); got != tt.want {
			t.Errorf("%s: %q; want %q", tt.body, got, tt.want)
		}
	}
}

func TestRoutingIsChecked(t *testing.T) {
	for _, tt := range []struct {
		routing Routing
		want    string
	}{
		{Routing{}, ""},
		{Routing{Strategy: Random}, ""},
		{prefixAware, ""},
		{Routing{Strategy: "KV_AWARE"}, `routing strategy "KV_AWARE": expected LEAST_OUTSTANDING_REQUESTS, RANDOM, PREFIX_AWARE`},
		{Routing{Strategy: PrefixAware, PrefixLength: 1023, ConcurrencyThreshold: 1}, "prefix length 1023: the routing strategy PREFIX_AWARE needs one of 1024 to 65536"},
		{Routing{Strategy: PrefixAware, PrefixLength: 1024}, "concurrency threshold 0: the routing strategy PREFIX_AWARE needs one of 1 to 1024"},
		{Routing{ConcurrencyThreshold: 4}, "concurrency threshold 4: it is for the routing strategy PREFIX_AWARE alone"},
	} {
		_, err := New(Config{Routing: tt.routing, Launcher: &fakes{t: t}})
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || err.Error() != tt.want) {
			t.Errorf("%+v: %v; want %q", tt.routing, err, tt.want)
		}
	}
}

// cached is a container that has computed what it was sent last, up to room bytes.
type cached struct {
	room int

	mu       sync.Mutex
	had      []string // the last used is last
	computed int
}

func (c *cached) take(body string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	best, at := 0, -1
	for i, had := range c.had {
		n := 0
		for n < min(len(had), len(body)) && had[n] == body[n] {
			n++
		}
		if n > best {
			best, at = n, i
		}
	}
	c.computed += len(body) - best
	if at >= 0 && best == len(c.had[at]) {
		c.had = append(c.had[:at], c.had[at+1:]...)
	}
	c.had = append(c.had, body)
	size := 0
	for i := len(c.had) - 1; i >= 0; i-- {
		if size += len(c.had[i]); size > c.room {
			c.had = c.had[i+1:]
			return
		}
	}
}

// Where a cache holds the chats of its own instance but not those of all, routing
// by prefix computes at most two fifths of what random routing does.
func TestPrefixRoutingSavesWork(t *testing.T) {
	const chats, turns, opening, turn = 16, 10, 1500, 300
	computed := func(routing Routing) (all int) {
		containers := []*cached{}
		var mu sync.Mutex
		r := run(t, Config{Instances: 2, Routing: routing, Launcher: &fakes{t: t, handler: func(f *fake) http.Handler {
			c := &cached{room: 10 * (opening + turns*turn)}
			mu.Lock()
			containers = append(containers, c)
			mu.Unlock()
			return healthy(func(w http.ResponseWriter, req *http.Request) {
				body, _ := io.ReadAll(req.Body)
				c.take(string(body))
				fmt.Fprint(w, f.number)
			})(f)
		}}})
		rng := rand.New(rand.NewPCG(1, 1))
		for n := range turns {
			for _, chat := range rng.Perm(chats) {
				body := fmt.Sprintf("%02d", chat) + strings.Repeat(".", opening)
				for i := range n {
					body += strings.Repeat(string(rune('a'+i)), turn)
				}
				if _, err := r.invokedBy(body, ""); err != nil {
					t.Fatal(err)
				}
			}
		}
		for _, c := range containers {
			all += c.computed
		}
		return all
	}
	random, aware := computed(Routing{Strategy: Random}), computed(prefixAware)
	t.Logf("bytes computed: %d by random routing, %d by prefix: %.2f", random, aware, float64(aware)/float64(random))
	if float64(aware) > 0.4*float64(random) {
		t.Errorf("bytes computed: %d by random routing, %d by prefix", random, aware)
	}
}
