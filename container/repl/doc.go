// Package repl is a chat in the terminal with a server that speaks OpenAI's
// API: client.go asks the server, session.go holds the conversation and its
// commands, terminal.go reads lines and lets Ctrl-C stop an answer.
//
// Not here: starting a server (main).
package repl
