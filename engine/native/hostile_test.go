package native

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"
)

// hostile are templates that nobody writes to be served: each asks
// for more stack, steps, memory or text than there is, or comes close to it.
func hostile() map[string]string {
	rep := strings.Repeat
	templates := map[string]string{
		"elif":                 "{% if 1 %}" + rep("{% elif 1 %}", 20000) + "{% endif %}",
		"loops":                rep("{% for i in range(100000) %}", 5) + rep("{% endfor %}", 5),
		"loopsout":             rep("{% for i in range(100000) %}", 5) + "x" + rep("{% endfor %}", 5),
		"replace":              "{% set ns=namespace(s='a') %}{% for i in range(100) %}{% set ns.s = ns.s|replace('a','aaaaaaaaaa') %}{% endfor %}",
		"replacem":             "{% set ns=namespace(s='a') %}{% for i in range(100) %}{% set ns.s = ns.s.replace('a','aaaaaaaaaa') %}{% endfor %}",
		"double":               "{% set ns=namespace(s='a') %}{% for i in range(100) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
		"doublelist":           "{% set ns=namespace(s=[1]) %}{% for i in range(100) %}{% set ns.s = ns.s + ns.s %}{% endfor %}{{ ns.s }}",
		"printf":               "{{ '%1000000000d' % 1 }}",
		"strformat":            "{{ '{:1000000000}'.format(1) }}",
		"strformatp":           "{{ '{:.1000000000f}'.format(1.5) }}",
		"indent":               "{{ ('a\n'*100000)|indent(100000) }}",
		"indent4e9":            "{{ 'a\nb'|indent(4000000000) }}",
		"tojson":               "{{ [[1]]|tojson(indent=4000000000) }}",
		"repeat":               "{{ 'a'*1000000000 }}",
		"repeatlist":           "{{ [1]*1000000000 }}",
		"repeatlistcap":        "{% set x %}{{ [1]*1000000000 }}{% endset %}",
		"repeatlisttilde":      "{{ ([1]*1000000000) ~ 'a' }}",
		"repeatlistjoin":       "{{ ([1]*1000000000)|join }}",
		"repeatlistjson":       "{{ ([1]*1000000000)|tojson }}",
		"repeatlist==":         "{{ ([1]*1000000000)==([1]*1000000000) }}",
		"repeatlistlist":       "{{ ([1]*1000000000)|list|length }}",
		"range":                "{{ range(1000000000)|list }}",
		"join":                 "{{ ('a'*100000).join(range(100000)) }}",
		"join of large values": "{% set b='a'*1000000 %}{{ ','.join([b]*100000) }}",
		"dag":                  "{% set a=[1] %}" + rep("{% set a=[a,a] %}", 60) + "{{ a }}",
		"dagtilde":             "{% set a=[1] %}" + rep("{% set a=[a,a] %}", 60) + "{{ a ~ '' }}",
		"dagjson":              "{% set a=[1] %}" + rep("{% set a=[a,a] %}", 60) + "{{ a|tojson }}",
		"dageq":                "{% set a=[1] %}{% set b=[1] %}" + rep("{% set a=[a,a] %}{% set b=[b,b] %}", 60) + "{{ a==b }}",
		"cycle":                "{% set ns=namespace() %}{% set ns.a=ns %}{{ ns }}",
		"cyclejson":            "{% set ns=namespace() %}{% set ns.a=ns %}{{ ns|tojson }}",
		"nest":                 "{% set ns=namespace(a=1) %}{% for i in range(1000000) %}{% set ns.a=[ns.a] %}{% endfor %}",
		"nestlim":              "{% set ns=namespace(a=1) %}{% for i in range(90000) %}{% set ns.a=[ns.a] %}{% endfor %}",
		"nesttup":              "{% set ns=namespace(a=1) %}{% for i in range(2000) %}{% set ns.a=" + rep("(", 60) + "ns.a" + rep(",)", 60) + " %}{% endfor %}",
		"nestprint":            "{% set ns=namespace(a=1) %}{% for i in range(90000) %}{% set ns.a=[ns.a] %}{% endfor %}{{ ns.a }}",
		"nestjson":             "{% set ns=namespace(a=1) %}{% for i in range(90000) %}{% set ns.a=[ns.a] %}{% endfor %}{{ ns.a|tojson }}",
		"nesteq":               "{% set ns=namespace(a=1,b=1) %}{% for i in range(50000) %}{% set ns.a=[ns.a] %}{% set ns.b=[ns.b] %}{% endfor %}{{ ns.a==ns.b }}",
		"nestreverse":          "{% set ns=namespace(a=1) %}{% for i in range(50000) %}{% set ns.a=[ns.a]|reverse %}{% endfor %}{{ ns.a }}",
		"nestlazy":             "{% set ns=namespace(a=[1]) %}{% for i in range(50000) %}{% set ns.a=ns.a|reverse %}{% endfor %}{{ ns.a }}",
		"nestmul":              "{% set ns=namespace(a=[1]) %}{% for i in range(50000) %}{% set ns.a=ns.a*1 %}{% endfor %}{{ ns.a }}",
		"nestmapf":             "{% set ns=namespace(a=[1]) %}{% for i in range(50000) %}{% set ns.a=ns.a|map('int') %}{% endfor %}{{ ns.a }}",
		"nestitems":            "{% set ns=namespace(a={1:1}) %}{% for i in range(50000) %}{% set ns.a={1:ns.a}.items() %}{% endfor %}{{ ns.a }}",
		"macro":                "{% macro m(n) %}{{ m(n) }}{{ m(n) }}{% endmacro %}{{ m(1) }}",
		"macro2":               "{% macro m(n) %}{% if n %}{{ m(n-1) }}{{ m(n-1) }}{% endif %}{% endmacro %}{{ m(40) }}",
		"recursive2":           "{% for x in [[1,1,1]] recursive %}{{ loop([[1,1]]) }}{{ loop([[1,1]]) }}{% endfor %}",
		"include":              "{% include 'chat_template' %}",
		"extends":              "{% extends 'chat_template' %}",
		"import":               "{% import 'chat_template' as x %}",
		"blocks":               "{% block a %}{{ self.a() }}{{ self.a() }}{% endblock %}",
		"strip":                "{% set s='a'*1000000 %}{% for i in range(1000000) %}{% set x=s.strip('abcdefgh') %}{% endfor %}",
		"find":                 "{% set s='a'*1000000 %}{% for i in range(1000000) %}{% set x=s.find('b') %}{% endfor %}",
		"raise":                "{{ raise_exception('x'*10000000) }}",
		"sortdag":              "{% set a=[1] %}" + rep("{% set a=[a,a] %}", 40) + "{{ [a]|map('list')|list|sort|length }}",
		"strftime":             "{{ strftime_now('%Y'*1000000) }}",
		"comments":             rep("{#", 100000),
		"open":                 rep("{{", 100000),
		"openb":                rep("{%", 100000),
		"raw":                  rep("{% raw %}", 20000),
		"args":                 "{{ f(" + rep("1,", 90000) + ") }}",
		"kw":                   "{{ f(" + rep("a=1,", 50000) + ") }}",
		"groupby":              "{{ range(200000)|groupby('a')|list|length }}",
		"batch":                "{{ [1]|batch(1000000000, 0)|list }}",
		"slice":                "{{ [1]|slice(1000000000)|list }}",
		"splitjoin":            "{% set ns=namespace(s='aaaaaaaaaa') %}{% for i in range(30) %}{% set ns.s = ns.s|list|join(ns.s) %}{% endfor %}{{ ns.s|length }}",
		"split":                "{% set s='a'*1000000 %}{{ s.split('a')|length }}",
		"list":                 "{% set s='a'*1000000 %}{{ s|list|length }}",
		"caller":               "{% macro m() %}{{ caller() }}{% endmacro %}" + rep("{% call m() %}", 60) + "x" + rep("{% endcall %}", 60),
	}
	// Each level of these makes the parser, or the compiler after it, recurse once more.
	for _, link := range []string{"~1", "+1", "-1", "*1", "/1", "//1", "%1", "**1", "==1", "<1", " and 1", " or 1", " in a", " not in a", " is odd", " is not odd",
		"|trim", "|default(1)", ".a", ".a()", "[0]", "[:]", "()", " if 1 else 1", "\"a\""} {
		for _, n := range []int{300, 30000} {
			templates[fmt.Sprintf("1%s, %d times", link, n)] = "{{ 1" + rep(link, n) + " }}"
		}
	}
	for _, link := range []string{"not ", "-", "+", "--", "(", "[", "{1:", "f(", "a if ", "a[", "1~", "not -", "'a'|f("} {
		for _, n := range []int{300, 50000} {
			templates[fmt.Sprintf("%s before 1, %d times", link, n)] = "{{ " + rep(link, n) + "1 }}"
		}
	}
	for _, block := range []string{"if 1", "for i in [1]", "with a=1", "filter trim", "block b", "macro m()", "call m()", "set a", "autoescape false"} {
		word, _, _ := strings.Cut(block, " ")
		templates["deep "+word] = rep("{% "+block+" %}", 8000) + rep("{% end"+word+" %}", 8000)
	}
	// Any tokens in any order.
	tokens := []string{"{{", "}}", "{%", "%}", "{#", "#}", "for", "in", "if", "else", "elif", "endif", "endfor", "set", "macro", "endmacro", "ns", "a", "messages", "loop", "namespace(a=1)",
		"range(1000)", "'x'", "1", "99999999", "~", "+", "*", "%", "|", "join", "replace('a','aaaa')", "list", "tojson", "indent(9999)", "[", "]", "(", ")", "{", "}", ",", ":", "=", ".", "-", "\n"}
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 300 {
		var b strings.Builder
		for range r.IntN(400) {
			b.WriteString(tokens[r.IntN(len(tokens))] + " ")
		}
		templates[fmt.Sprintf("random %d", i)] = b.String()
	}
	return templates
}

// Each hostile template ends in a text or in an error of one line, and what is
// lost by stopping it is little.
func TestHostileTemplates(t *testing.T) {
	const patience = 60 * time.Second // a hang, and no slow machine
	before := peakKB(t)
	stopped := 0
	for name, source := range hostile() {
		begin := time.Now()
		text, err := render(source, []byte(`{"messages":[{"role":"user","content":"hi"}],"a":["b"]}`))
		if took := time.Since(begin); took > patience {
			t.Errorf("%s: took %v", name, took)
		}
		var limit *LimitError
		switch {
		case errors.As(err, &limit):
			stopped++
			fallthrough
		case err != nil && !errors.Is(err, ErrTooLong):
			if e := err.Error(); strings.Contains(e, "\n") || len(e) > 1000 || strings.Contains(e, "internal error") {
				t.Errorf("%s: error %.2000q", name, e)
			}
		case len(text) > maxBytes:
			t.Errorf("%s: a text of %d bytes", name, len(text))
		}
	}
	// One that is stopped keeps what it has: 16 MB of stack and 16 MB, or 64 MB while it is compiled.
	if got, most := peakKB(t)-before, (256+stopped*40)<<10; got > most {
		t.Errorf("%d MB more for %d templates that were stopped", got>>10, stopped)
	}
}

// peakKB returns the most memory that the process has had at a time, 0 where
// the system does not say.
func peakKB(t *testing.T) (n int) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	_, peak, _ := strings.Cut(string(status), "VmHWM:")
	if _, err := fmt.Sscan(peak, &n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestTemplateLimits(t *testing.T) {
	for _, tt := range []struct{ name, source, want string }{
		{"source", strings.Repeat("x", 256<<10+1), "the template has 262145 bytes, the limit is 262144"},
		{"depth of the source", "{% if 1 %}" + strings.Repeat("{% elif 1 %}", 20000) + "{% endif %}", "the template is nested too deeply"},
		{"length of a tag", "\n{{ " + strings.Repeat("not ", 60000) + "1 }}", "a tag has more than 1024 words and signs (line 2 of the template)"},
		{"depth of a value", "{% set ns=namespace() %}{% set ns.a=ns %}{{ ns }}", "the template is nested too deeply"},
		{"steps", strings.Repeat("{% for i in range(1000) %}", 3) + strings.Repeat("{% endfor %}", 3), "the template takes too many steps"},
		{"memory", "{{ '%1000000000d' % 1 }}", "the template takes too much memory"},
		{"time", "{% set a=[1] %}{% set b=[1] %}" + strings.Repeat("{% set a=[a,a] %}{% set b=[b,b] %}", 60) + "{{ a==b }}", "the template takes too much time"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var limit *LimitError
			if _, err := render(tt.source, []byte("{}")); !errors.As(err, &limit) || limit.Reason != tt.want {
				t.Errorf("error %v, want the limit %q", err, tt.want)
			}
		})
	}
}

// A template that has been stopped some times is not tried again: each time
// costs the memory that it had.
func TestTemplateIsGivenUp(t *testing.T) {
	c, err := NewChatTemplate("{% if bad %}{{ '%1000000000d' % 1 }}{% endif %}ok")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 4 {
		if got, err := renderWithin(c, []byte("{}"), maxBytes); err != nil || got != "ok" {
			t.Fatalf("after %d stops rendered %q, %v", i, got, err)
		}
		if _, err := renderWithin(c, []byte(`{"bad":true}`), maxBytes); !errors.As(err, new(*LimitError)) {
			t.Fatalf("error %v", err)
		}
	}
	if _, err := renderWithin(c, []byte("{}"), maxBytes); err == nil || !strings.Contains(err.Error(), "not used any more") {
		t.Errorf("error %v", err)
	}
}
