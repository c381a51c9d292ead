package local

import (
	"fmt"
	"log/slog"
	"time"
)

// Limits are the platform's times and sizes. The zero value of a field means
// the platform's own, which DefaultLimits lists.
type Limits struct {
	Body       int64         // longest body of a request or of an unary answer, bytes
	InlineBody int64         // longest body of an asynchronous request, bytes
	Unary      time.Duration // an unary answer must be complete
	Stream     time.Duration // a stream must have ended
	Duplex     time.Duration // a bidirectional stream must have ended

	Startup   time.Duration // from the container's start to its first good ping
	PingEvery time.Duration // between two pings
	Ping      time.Duration // a ping must be answered
	Connect   time.Duration // a connection must be accepted
	Stop      time.Duration // from SIGTERM to SIGKILL
}

// DefaultLimits are SageMaker's.
var DefaultLimits = Limits{
	Body:       25 << 20,
	InlineBody: 128_000,
	Unary:      60 * time.Second,
	Stream:     8 * time.Minute,
	Duplex:     30 * time.Minute,
	Startup:    8 * time.Minute,
	PingEvery:  5 * time.Second,
	Ping:       2 * time.Second,
	Connect:    250 * time.Millisecond,
	Stop:       30 * time.Second,
}

func (l *Limits) fill() {
	for _, f := range []struct{ value, standard *time.Duration }{
		{&l.Unary, &DefaultLimits.Unary},
		{&l.Stream, &DefaultLimits.Stream},
		{&l.Duplex, &DefaultLimits.Duplex},
		{&l.Startup, &DefaultLimits.Startup},
		{&l.PingEvery, &DefaultLimits.PingEvery},
		{&l.Ping, &DefaultLimits.Ping},
		{&l.Connect, &DefaultLimits.Connect},
		{&l.Stop, &DefaultLimits.Stop},
	} {
		if *f.value == 0 {
			*f.value = *f.standard
		}
	}
	if l.Body == 0 {
		l.Body = DefaultLimits.Body
	}
	if l.InlineBody == 0 {
		l.InlineBody = DefaultLimits.InlineBody
	}
}

// Config describes an endpoint.
type Config struct {
	Name      string // of the endpoint; default "millrace"
	Variant   string // production variant; default "AllTraffic"
	Region    string // default "us-east-1"
	Account   string // default "123456789012"
	Instances int    // default 1
	Routing   Routing
	Launcher  Launcher

	// Component is the inference component that the containers are copies of.
	// "" is an endpoint without components, except for Adapters.
	Component string
	// Adapters are inference components that the containers serve besides their
	// model: the component's name and the folder as the container sees it.
	Adapters map[string]string

	// Store is a folder that stands for S3, STORE/BUCKET/KEY; "" turns
	// asynchronous calls off.
	Store string
	// AsyncPerInstance is how many asynchronous requests an instance gets at
	// once; default 4.
	AsyncPerInstance int

	Limits Limits
	Seed   uint64       // of the stream's cuts and of the choice between equal instances
	Log    *slog.Logger // default: none
}

// check fills in the defaults and says what cannot work.
func (c *Config) check() error {
	for _, f := range []struct {
		value    *string
		standard string
	}{
		{&c.Name, "millrace"},
		{&c.Variant, "AllTraffic"},
		{&c.Region, "us-east-1"},
		{&c.Account, "123456789012"},
	} {
		if *f.value == "" {
			*f.value = f.standard
		}
	}
	if c.Instances == 0 {
		c.Instances = 1
	}
	if c.AsyncPerInstance == 0 {
		c.AsyncPerInstance = 4
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	c.Limits.fill()

	names := map[string]string{"endpoint name": c.Name, "variant name": c.Variant}
	if c.Component != "" {
		names["inference component name"] = c.Component
	}
	for name := range c.Adapters {
		names["adapter name "+name] = name
		if name == c.Component {
			return fmt.Errorf("%s is the name of an adapter and of the inference component it belongs to; choose another", name)
		}
	}
	for what, name := range names {
		if len(name) > 63 || !namePattern.MatchString(name) {
			return fmt.Errorf("%s %q: expected at most 63 letters, digits and hyphens, no hyphen at either end", what, name)
		}
	}
	switch {
	case c.Launcher == nil:
		return fmt.Errorf("an endpoint needs a launcher")
	case c.Instances < 1:
		return fmt.Errorf("instances %d: expected at least 1", c.Instances)
	case c.AsyncPerInstance < 1:
		return fmt.Errorf("asynchronous requests per instance %d: expected at least 1", c.AsyncPerInstance)
	}
	return c.Routing.check()
}
