// Package telemetry tells operators what became of requests: metrics in
// Prometheus' form, one line in the log for each request, which may be one that
// CloudWatch makes metrics of, and OpenTelemetry spans.
//
// It gets a Request once that has been answered. What a client sent or got is
// in none of the three.
package telemetry
