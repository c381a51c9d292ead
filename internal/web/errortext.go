package web

import "encoding/json"

// ErrorText is what an error body says in TGI's form or OpenAI's, "" if neither.
func ErrorText(body []byte) string {
	var tgi struct{ Error string }
	var openAI struct{ Error struct{ Message string } }
	if json.Unmarshal(body, &tgi) == nil {
		return tgi.Error
	}
	_ = json.Unmarshal(body, &openAI) // then it says nothing
	return openAI.Error.Message
}
