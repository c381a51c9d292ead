package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// BenchmarkRouting measures how many tokens of prompts two containers compute
// for 16 chats of 10 turns, by each strategy that spreads them. Each cache holds
// the chats of its own container, but not those of both.
func BenchmarkRouting(b *testing.B) {
	const chats, turns = 16, 10
	for strategy, flags := range map[string][]string{
		"RANDOM":       nil,
		"PREFIX_AWARE": {"--prefix-length", "1024", "--concurrency-threshold", "8"},
	} {
		b.Run(strategy, func(b *testing.B) {
			for b.Loop() {
				args := append([]string{"--instances", "2", "--routing-strategy", strategy}, flags...)
				l := startLocal(b, append(args, "--", "--threads", "1", "--max-batch-total-tokens", "8704")...)
				rng := rand.New(rand.NewPCG(1, 1))
				bodies, computed, all := make([]string, chats), 0, 0
				for turn := range turns {
					for _, chat := range rng.Perm(chats) {
						if turn == 0 { // what the chat is about fills the prefix
							bodies[chat] = fmt.Sprintf(`{"max_tokens":8,"messages":[{"role":"user","content":"Chat %d. %s"}`, chat, strings.Repeat("What is Millrace? ", 128))
						}
						text, err := l.invoke(bodies[chat] + "]}")
						if err != nil {
							b.Fatal(err)
						}
						var answer struct {
							Choices []struct{ Message struct{ Content string } }
							Usage   struct {
								Prompt  int `json:"prompt_tokens"`
								Details struct {
									Cached int `json:"cached_tokens"`
								} `json:"prompt_tokens_details"`
							}
						}
						if err := json.Unmarshal([]byte(text), &answer); err != nil || len(answer.Choices) != 1 {
							b.Fatalf("%s: %v", text, err)
						}
						all += answer.Usage.Prompt
						computed += answer.Usage.Prompt - answer.Usage.Details.Cached
						content, _ := json.Marshal(answer.Choices[0].Message.Content)
						bodies[chat] += fmt.Sprintf(`,{"role":"assistant","content":%s},{"role":"user","content":"And turn %d of chat %d, what else?"}`, content, turn, chat)
					}
				}
				b.ReportMetric(float64(computed), "computed-tokens")
				b.ReportMetric(float64(all), "prompt-tokens")
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}
