package main

import "net/http"

// hosted returns what the port serves: the API as hosting platforms expect it.
func (s *server) hosted() http.Handler { return s.api }
