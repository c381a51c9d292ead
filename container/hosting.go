package main

import (
	"context"
	"errors"

	"github.com/millrace-ai/millrace/sagemaker"
)

// hosted returns what the front serves: the API within SageMaker's contract,
// also where SageMaker is far, so that a container tried at home behaves as it
// will there.
func (s *server) hosted() *sagemaker.Hosting {
	return sagemaker.Wrap(s.api, sagemaker.Options{
		Slots:          min(slotsOf(s.cfg), s.cfg.MaxConcurrentRequests), // else it would overload itself
		PayloadLimit:   s.cfg.PayloadLimit,
		AnswerDeadline: s.cfg.AnswerAfter(),
		StreamDeadline: s.cfg.StreamAfter(),
		Origins:        s.cfg.CORSAllowOrigin,
		Batch:          s.cfg.BatchTransform,
		SessionLife:    s.cfg.SessionLife(),
		Usage:          s.cfg.SageMakerUsage,
	})
}

// Shutdown waits for the last answers on WebSockets, which an http.Server does
// not know any more, and on its own connections.
func (p *port) Shutdown(ctx context.Context) error {
	return errors.Join(p.hosting.Shutdown(ctx), p.Server.Shutdown(ctx))
}
