package guide

import (
	"bytes"
	"os"
	"testing"
)

func TestFAQIsUpToDate(t *testing.T) {
	chapters, err := Read("../text")
	if err != nil {
		t.Fatal(err)
	}
	have, err := os.ReadFile("../../../docs/faq.md")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(have, FAQ(chapters)) {
		t.Error("docs/faq.md is not what dev/demo/text says: run make faq")
	}
}

// Headings of one page need different anchors.
func TestQuestionsDiffer(t *testing.T) {
	chapters, err := Read("../text")
	if err != nil {
		t.Fatal(err)
	}
	topics := map[string]string{}
	for _, c := range chapters {
		for _, topic := range c.Topics {
			if chatter[c.File] {
				continue
			}
			anchor := slug(topic.Question())
			if other, ok := topics[anchor]; ok {
				t.Errorf("%s and %s: both are #%s", other, topic.Name, anchor)
			}
			topics[anchor] = topic.Name
			if topic.Question() == topic.Name {
				t.Errorf("%s: no wording is a question", topic.Name)
			}
		}
	}
}

func TestParse(t *testing.T) {
	c := parse("# Ports\n# A note.\n\n## port\nIt is 8080.\nAlways.\n- Port\n- [Which|What] port [is it|]?\n? The port?\n= host\n")
	if c.Title != "Ports" || len(c.Topics) != 1 {
		t.Fatalf("%+v", c)
	}
	if topic := c.Topics[0]; topic.Name != "port" || topic.Answer != "It is 8080. Always." || len(topic.Wordings) != 2 || topic.Question() != "Which port is it?" {
		t.Errorf("%+v, asked by %q", topic, topic.Question())
	}
}

func TestMarkdown(t *testing.T) {
	for answer, want := range map[string]string{
		"Start it with --model-id /path/to/model.":                   "Start it with `--model-id /path/to/model`.",
		"POST /generate takes {\"a\": {\"b\": 1}}, {\"c\": 2}.":      "POST `/generate` takes `{\"a\": {\"b\": 1}}`, `{\"c\": 2}`.",
		"Write ![](URL) into a prompt.":                              "Write `![](URL)` into a prompt.",
		"millrace bench loads servers.":                              "`millrace bench` loads servers.",
		"millrace pull hf:org/name DIR. It resumes.":                 "`millrace pull hf:org/name DIR`. It resumes.",
		"Set HF_HUB_OFFLINE=1.":                                      "Set `HF_HUB_OFFLINE=1`.",
		"curl localhost:8080/health":                                 "```sh\ncurl localhost:8080/health\n```",
		"Ask http://localhost:8080/ first.":                          "Ask `http://localhost:8080/` first.",
		"Send \"stream\": true to /, /invocations or org/name@main.": "Send `\"stream\": true` to /, `/invocations` or `org/name@main`.",
	} {
		if got := markdown(answer); got != want {
			t.Errorf("markdown(%s) = %s, want %s", answer, got, want)
		}
	}
}
