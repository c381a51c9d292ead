package grammar

import "testing"

func TestRegexes(t *testing.T) {
	c := compilerOfBytes(t)
	for _, tt := range []struct {
		regex     string
		good, bad []string
	}{
		{`[0-9]{4}-(0[1-9]|1[0-2])`, []string{"2026-11", "0000-01"}, []string{"2026-13", "2026-1", "x2026-11", "2026-112"}},
		{`yes|no`, []string{"yes", "no"}, []string{"", "yesno", "maybe"}},
		{`^foo$`, []string{"foo"}, []string{"xfoo", "foox", "^foo$"}},
		{`a/b\/c`, []string{"a/b/c"}, []string{"a/b"}},
		{"a\nb", []string{"a\nb"}, []string{"a b", "anb"}},
		{`(?i)hello`, []string{"HeLLo"}, []string{"hell"}},
		{`.*`, []string{"", "anything 日本", "a\tb"}, []string{"a\nb", "\xff"}},
		{`(?s:.*)`, []string{"a\nb"}, []string{"\xc3"}},
		{`\w+ \d`, []string{"wörd 1"}, []string{"w 1 1", "w\t1"}},
		{`\p{Greek}+`, []string{"λόγος"}, []string{"logos"}},
		{`[^"\\]{1,3}`, []string{"日本語", "a"}, []string{`"`, "日本語a", ""}},
		{`((25[0-5]|2[0-4]\d|1?\d?\d)(\.(25[0-5]|2[0-4]\d|1?\d?\d)){3})`, []string{"127.0.0.1"}, []string{"256.0.0.1", "1.2.3"}},
		{``, []string{""}, []string{"a"}},
		{`<special>`, []string{"<special>"}, nil},
	} {
		t.Run(tt.regex, func(t *testing.T) {
			m := mustCompile(t, c, Spec{Kind: Regex, Text: tt.regex})
			for _, text := range tt.good {
				if !admits(t, m, text) {
					t.Errorf("refuses %q", text)
				}
			}
			for _, text := range tt.bad {
				if admits(t, m, text) {
					t.Errorf("admits %q", text)
				}
			}
		})
	}
}

func TestLark(t *testing.T) {
	c := compilerOfBytes(t)
	m := mustCompile(t, c, Spec{Kind: Lark, Text: "start: \"call \" call (\";\" call)*\ncall: /[a-z]+/ \"(\" args \")\"\nargs: %json {\"type\":\"integer\"}"})
	for text, want := range map[string]bool{"call f(1)": true, "call f(1);g(2)": true, "call f()": false, "f(1)": false} {
		if got := admits(t, m, text); got != want {
			t.Errorf("%q: admitted %v, want %v", text, got, want)
		}
	}
}
