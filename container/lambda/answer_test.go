package lambda

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"github.com/aws/aws-lambda-go/events"
)

// An answer in one piece has the form that AWS publishes for its source, and
// loses nothing on the way.
func TestAnswers(t *testing.T) {
	serve := func(w http.ResponseWriter, body string) {
		h := w.Header()
		h.Set("Content-Type", "application/json")
		h.Set("Content-Length", "999")
		h.Add("X-Two", "a")
		h.Add("X-Two", "b")
		h.Add("Set-Cookie", "one=1, 1")
		h.Add("Set-Cookie", "two=2")
		w.WriteHeader(http.StatusTeapot)
		io.WriteString(w, body)
	}
	single := map[string]string{"Content-Type": "application/json", "X-Two": "a,b"}
	joined := map[string]string{"Content-Type": "application/json", "X-Two": "a,b", "Set-Cookie": "one=1, 1,two=2"}
	lists := map[string][]string{"Content-Type": {"application/json"}, "X-Two": {"a", "b"}, "Set-Cookie": {"one=1, 1", "two=2"}}
	cookies := []string{"one=1, 1", "two=2"}
	const text, binary, encoded = "<b>\u00e9</b>", "\xff\x00", "/wA="
	for _, tt := range []struct {
		name   string
		source source
		body   string
		want   any
	}{
		{"function URL", functionURL, text, &events.LambdaFunctionURLResponse{StatusCode: 418, Headers: single, Cookies: cookies, Body: text}},
		{"function URL, bytes", functionURL, binary, &events.LambdaFunctionURLResponse{StatusCode: 418, Headers: single, Cookies: cookies, Body: encoded, IsBase64Encoded: true}},
		{"HTTP API", httpAPI, text, &events.APIGatewayV2HTTPResponse{StatusCode: 418, Headers: single, Cookies: cookies, Body: text}},
		{"HTTP API, format 1.0", httpAPIv1, text, &events.APIGatewayProxyResponse{StatusCode: 418, MultiValueHeaders: lists, Body: text}},
		{"REST API", restAPI, text, &events.APIGatewayProxyResponse{StatusCode: 418, MultiValueHeaders: lists, Body: text}},
		{"load balancer", loadBalancer, text, &events.ALBTargetGroupResponse{StatusCode: 418, StatusDescription: "418 I'm a teapot", Headers: joined, Body: text}},
		{"load balancer, lists", loadBalancerMulti, binary, &events.ALBTargetGroupResponse{StatusCode: 418, StatusDescription: "418 I'm a teapot", MultiValueHeaders: lists, Body: encoded, IsBase64Encoded: true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBuffered(tt.source, http.MethodPost)
			serve(b, tt.body)
			data, f := b.payload()
			if f != nil {
				t.Fatal(f)
			}
			got := reflect.New(reflect.TypeOf(tt.want).Elem()).Interface()
			strict := json.NewDecoder(bytes.NewReader(data))
			strict.DisallowUnknownFields()
			if err := strict.Decode(got); err != nil {
				t.Fatalf("%s: %v", data, err)
			}
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("%s\nis %+v\nwant %+v", data, got, tt.want)
			}
			if strings.Contains(string(data), `\u003c`) {
				t.Errorf("%s escapes what need not be", data)
			}
		})
	}
}

// The answer to HEAD has no body.
func TestAnswerToHead(t *testing.T) {
	b := newBuffered(functionURL, http.MethodHead)
	io.WriteString(b, "body")
	if data, _ := b.payload(); !strings.Contains(string(data), `"body":""`) {
		t.Errorf("the answer is %s", data)
	}
}
