// Package handler is everything between the socket and engine.Submit: routes,
// bodies, validation, answers, server-sent events, metrics.
//
// The routes are those of openapi/openapi.json; beyond it they behave as Text
// Generation Inference 2.4.1 does on the wire, except for the rows of
// COMPAT.md. /api-doc/openapi.json is the contract with those differences.
//
// A Server exists before its model does: until SetReady it answers health
// checks and everything else with 503 and the reason, after Drain it refuses
// new work. A request's goroutine does all the work of the request (decode,
// validate, tokenize, detokenize, encode), so that a slow client or a large
// body only slows itself. Errors are values until one place, answerError, writes
// them; a panic of one request is that request's 500.
//
// A request goes through an exchange: its route decodes the body (request.go,
// chatrequest.go, completionrequest.go) into parameters (parameterfields.go has
// an entry for each), checks them and makes of them a job (validate.go), submits
// that, and gives the form of its answer, an answer, to respond (respond.go),
// which reads the sequences and writes.
//
// What requests hold is bounded before they get it (memory.go): bodies, prompts,
// tokens and answers by a budget that refuses at once, rendering and tokenizing
// by turns. Answers do not wait for a body that nobody reads (early.go), and
// heads that a proxy could read in another way are refused (conn.go).
//
// Not here: configuration and signals (container), SageMaker's and Lambda's
// hosting contracts (sagemaker, container/lambda), tokens (engine).
package handler
