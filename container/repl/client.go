package repl

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"syscall"
	"time"

	"github.com/millrace-ai/millrace/internal/sse"
	"github.com/millrace-ai/millrace/internal/web"
)

// Message is one turn of a conversation.
type Message struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

// Client asks a server.
type Client struct {
	url    string // without /v1
	apiKey string
	model  string
	http   *http.Client
}

// NewClient takes the server's address, with or without /v1 at its end, a key
// or "", and the model's name in requests, "" for the one that is served.
func NewClient(url, apiKey, model string) *Client {
	return &Client{url: strings.TrimSuffix(strings.TrimRight(url, "/"), "/v1"), apiKey: apiKey, model: model, http: &http.Client{}}
}

// Model is the model's name, the first that the server lists unless one is
// chosen.
func (c *Client) Model(ctx context.Context) (string, error) {
	if c.model != "" {
		return c.model, nil
	}
	resp, err := c.do(ctx, http.MethodGet, "/v1/models", nil)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	var list struct {
		Data []struct {
			ID string `json:"id"`
		} `json:"data"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&list); err != nil || len(list.Data) == 0 {
		return "", fmt.Errorf("%s/v1/models: not a list of models; name one with --model", c.url)
	}
	c.model = list.Data[0].ID
	return c.model, nil
}

// Answer is what the server says about an answer.
type Answer struct {
	Text         string
	FinishReason string
	Tokens       int           // generated, 0 if the server does not say
	First, Total time.Duration // until the first token, and the end
}

// Ask sends a conversation and hands each piece of the answer to show. The
// answer so far comes with an error, too.
func (c *Client) Ask(ctx context.Context, messages []Message, parameters map[string]any, show func(piece string)) (Answer, error) {
	request := map[string]any{"model": c.model, "messages": messages, "stream": true, "stream_options": map[string]any{"include_usage": true}}
	for name, value := range parameters {
		request[name] = value
	}
	body, err := json.Marshal(request)
	if err != nil {
		return Answer{}, err
	}
	start := time.Now()
	resp, err := c.do(ctx, http.MethodPost, "/v1/chat/completions", bytes.NewReader(body))
	if err != nil {
		return Answer{}, err
	}
	defer resp.Body.Close()

	var (
		a    Answer
		text strings.Builder
		done bool
	)
	err = sse.Read(resp.Body, make([]byte, 16<<10), func(event []byte, at time.Time) error {
		if string(event) == "[DONE]" {
			done = true
			return nil
		}
		var chunk struct {
			Error   json.RawMessage `json:"error"`
			Choices []struct {
				Delta struct {
					Content string `json:"content"`
				} `json:"delta"`
				FinishReason string `json:"finish_reason"`
			} `json:"choices"`
			Usage struct {
				Completion int `json:"completion_tokens"`
			} `json:"usage"`
		}
		if err := json.Unmarshal(event, &chunk); err != nil {
			return fmt.Errorf("an event that is not JSON: %.80q", event)
		}
		if chunk.Error != nil {
			return errors.New(errorText(event))
		}
		a.Tokens = max(a.Tokens, chunk.Usage.Completion)
		for _, choice := range chunk.Choices {
			if choice.FinishReason != "" {
				a.FinishReason = choice.FinishReason
			}
			if piece := choice.Delta.Content; piece != "" {
				if text.Len() == 0 {
					a.First = at.Sub(start)
				}
				text.WriteString(piece)
				show(piece)
			}
		}
		return nil
	})
	a.Text, a.Total = text.String(), time.Since(start)
	switch {
	case ctx.Err() != nil:
		return a, ctx.Err()
	case err != nil:
		return a, err
	case !done:
		return a, errors.New("the connection was cut inside the answer")
	}
	return a, nil
}

// do sends a request; an answer of another status than 200 is an error with the
// server's reason.
func (c *Client) do(ctx context.Context, method, path string, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.url+path, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	if c.apiKey != "" {
		req.Header.Set("Authorization", "Bearer "+c.apiKey)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if errors.Is(err, syscall.ECONNREFUSED) {
			return nil, fmt.Errorf("no server listens at %s; `millrace serve` starts one", c.url)
		}
		return nil, err
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10)) // the status says enough without it
	if resp.StatusCode == http.StatusUnauthorized {
		return nil, fmt.Errorf("%s: %s; give the key with --api-key or API_KEY", resp.Status, errorText(text))
	}
	return nil, fmt.Errorf("%s: %s", resp.Status, errorText(text))
}

// errorText is the reason in an error body, TGI's or OpenAI's, or its beginning.
func errorText(body []byte) string {
	if text := web.ErrorText(body); text != "" {
		return text
	}
	return fmt.Sprintf("%.200s", strings.Join(strings.Fields(string(body)), " "))
}
