package handler

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// object is a JSON object.
type object = map[string]any

// browser is a page in a headless Chromium, driven over the two pipes of
// Chromium's DevTools protocol: JSON messages that end with a zero byte.
type browser struct {
	t       testing.TB
	to      io.Writer
	session string

	mu       sync.Mutex
	next     int
	waiting  map[int]chan reply
	hosts    map[string]bool // that the page asked for anything
	problems []string        // errors that the page met
}

type reply struct {
	Result json.RawMessage
	Error  *struct{ Message string }
}

// openBrowser starts a Chromium with an empty page and more flags, or skips the
// test where there is none.
func openBrowser(t testing.TB, flags ...string) *browser {
	t.Helper()
	path := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if found, err := exec.LookPath(name); err == nil {
			path = found
			break
		}
	}
	if path == "" {
		t.Skip("there is no chromium to look at the page with")
	}
	fromUs, to, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	from, toUs, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, path, append(flags, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
		"--no-first-run", "--disable-background-networking", "--remote-debugging-pipe", "--user-data-dir="+t.TempDir())...)
	cmd.ExtraFiles = []*os.File{fromUs, toUs} // 3 and 4 there
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	fromUs.Close()
	toUs.Close()
	b := &browser{t: t, to: to, waiting: map[int]chan reply{}, hosts: map[string]bool{}}
	heard := make(chan struct{})
	go func() {
		defer close(heard)
		b.listen(from)
	}()
	t.Cleanup(func() {
		b.call("Browser.close", nil)
		cmd.Wait() //nolint:errcheck // it has done its work
		cancel()
		to.Close()
		<-heard
		from.Close()
	})
	var target struct{ TargetID string }
	b.must("Target.createTarget", object{"url": "about:blank"}, &target)
	var attached struct{ SessionID string }
	b.must("Target.attachToTarget", object{"targetId": target.TargetID, "flatten": true}, &attached)
	b.session = attached.SessionID
	for _, domain := range []string{"Page.enable", "Runtime.enable", "Network.enable", "Log.enable"} {
		b.must(domain, nil, nil)
	}
	return b
}

// listen hands replies to who waits for them, and notes what happens.
func (b *browser) listen(from io.Reader) {
	r := bufio.NewReader(from)
	for {
		message, err := r.ReadBytes(0)
		if err != nil {
			b.mu.Lock()
			for id, c := range b.waiting {
				delete(b.waiting, id)
				close(c)
			}
			b.mu.Unlock()
			return
		}
		var m struct {
			ID     int
			Method string
			Params struct {
				Request          struct{ URL string }
				ExceptionDetails json.RawMessage
				Entry            struct{ Source, Level, Text string }
			}
			reply
		}
		if json.Unmarshal(message[:len(message)-1], &m) != nil {
			continue
		}
		b.mu.Lock()
		switch {
		case m.ID != 0:
			if c := b.waiting[m.ID]; c != nil {
				delete(b.waiting, m.ID)
				c <- m.reply
			}
		case m.Method == "Network.requestWillBeSent" && !strings.HasPrefix(m.Params.Request.URL, "data:"):
			scheme, rest, _ := strings.Cut(m.Params.Request.URL, "://")
			host, _, _ := strings.Cut(rest, "/")
			b.hosts[scheme+"://"+host] = true
		case m.Method == "Runtime.exceptionThrown":
			b.problems = append(b.problems, string(m.Params.ExceptionDetails))
		case m.Method == "Log.entryAdded" && m.Params.Entry.Level == "error" && m.Params.Entry.Source != "network":
			b.problems = append(b.problems, m.Params.Entry.Text) // "security" for the page's policy
		}
		b.mu.Unlock()
	}
}

// call sends a command and returns its result.
func (b *browser) call(method string, params object) (json.RawMessage, error) {
	b.mu.Lock()
	b.next++
	c := make(chan reply, 1)
	b.waiting[b.next] = c
	message := object{"id": b.next, "method": method, "params": params}
	if params == nil {
		message["params"] = object{}
	}
	if b.session != "" && method != "Browser.close" {
		message["sessionId"] = b.session
	}
	data, err := json.Marshal(message)
	if err == nil {
		_, err = b.to.Write(append(data, 0))
	}
	b.mu.Unlock()
	if err != nil {
		return nil, err
	}
	select {
	case r, ok := <-c:
		if !ok {
			return nil, errors.New("the browser has ended")
		}
		if r.Error != nil {
			return nil, errors.New(r.Error.Message)
		}
		return r.Result, nil
	case <-time.After(time.Minute):
		return nil, errors.New("the browser does not answer")
	}
}

func (b *browser) must(method string, params object, result any) {
	b.t.Helper()
	data, err := b.call(method, params)
	if err == nil && result != nil {
		err = json.Unmarshal(data, result)
	}
	if err != nil {
		b.t.Fatalf("%s: %v", method, err)
	}
}

// eval runs JavaScript in the page and returns its value as text.
func (b *browser) eval(script string) string {
	b.t.Helper()
	value, err := b.try(script)
	if err != nil {
		b.t.Fatalf("%s: %v", script, err)
	}
	return value
}

func (b *browser) try(script string) (string, error) {
	var r struct {
		Result           struct{ Value any }
		ExceptionDetails json.RawMessage
	}
	data, err := b.call("Runtime.evaluate", object{"expression": script, "awaitPromise": true, "returnByValue": true})
	if err == nil {
		err = json.Unmarshal(data, &r)
	}
	if err == nil && r.ExceptionDetails != nil {
		err = errors.New(string(r.ExceptionDetails))
	}
	if text, ok := r.Result.Value.(string); ok || err != nil {
		return text, err
	}
	data, err = json.Marshal(r.Result.Value)
	return string(data), err
}

// until waits for a condition in the page, which may still be loading.
func (b *browser) until(condition string) {
	b.t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if value, err := b.try("!!(" + condition + ")"); err == nil && value == "true" {
			return
		}
	}
	b.t.Fatalf("never: %s; the page says %q", condition, b.eval("document.body.innerText"))
}

// keys that browsers know by more than their names.
var keys = map[string]object{
	"Enter":  {"text": "\r", "windowsVirtualKeyCode": 13},
	"Escape": {"windowsVirtualKeyCode": 27},
	"Tab":    {"windowsVirtualKeyCode": 9},
	" ":      {"text": " ", "windowsVirtualKeyCode": 32},
}

// press sends a key to what has the focus.
func (b *browser) press(key string) {
	b.t.Helper()
	down := object{"type": "keyDown", "key": key, "code": key}
	maps.Copy(down, keys[key])
	b.must("Input.dispatchKeyEvent", down, nil)
	b.must("Input.dispatchKeyEvent", object{"type": "keyUp", "key": key, "code": key}, nil)
}

// write puts the focus on an element and types text into it.
func (b *browser) write(element, text string) {
	b.t.Helper()
	b.eval("document.querySelector(" + quoted(element) + ").focus()")
	b.must("Input.insertText", object{"text": text}, nil)
}

// click presses the element that a selector finds.
func (b *browser) click(element string) {
	b.t.Helper()
	b.eval("document.querySelector(" + quoted(element) + ").click()")
}

// text returns the text of the element that a selector finds.
func (b *browser) text(element string) string {
	b.t.Helper()
	return b.eval("document.querySelector(" + quoted(element) + ")?.textContent ?? 'there is no such element'")
}

// contains checks that an element has texts.
func (b *browser) contains(element string, wants ...string) {
	b.t.Helper()
	got := b.text(element)
	for _, want := range wants {
		if !strings.Contains(got, want) {
			b.t.Errorf("%s: no %q in %q", element, want, got)
		}
	}
}

// holds checks that a condition is true in the page.
func (b *browser) holds(condition string) {
	b.t.Helper()
	if got := b.eval("!!(" + condition + ")"); got != "true" {
		b.t.Errorf("not so: %s", condition)
	}
}

// media makes the page believe in features such as a dark screen, and in its
// size if width is not 0.
func (b *browser) media(width int, features ...string) {
	b.t.Helper()
	list := []object{}
	for _, f := range features {
		name, value, _ := strings.Cut(f, ": ")
		list = append(list, object{"name": name, "value": value})
	}
	b.must("Emulation.setEmulatedMedia", object{"features": list}, nil)
	if width != 0 {
		b.must("Emulation.setDeviceMetricsOverride", object{"width": width, "height": 740, "deviceScaleFactor": 1, "mobile": width < 500}, nil)
	}
}

// checkVisit fails the test if the page asked any other host than url for
// something, or met an error.
func (b *browser) checkVisit(url string) {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for host := range b.hosts {
		if host != url {
			b.t.Errorf("the page asked %s for something", host)
		}
	}
	for _, p := range b.problems {
		b.t.Errorf("the page has met an error: %s", p)
	}
}

func quoted(s string) string {
	data, _ := json.Marshal(s) //nolint:errcheck // a string
	return string(data)
}
