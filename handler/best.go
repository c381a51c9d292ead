package handler

import (
	"context"
	"math"
	"math/rand/v2"
)

// startBest submits j so often, each with a seed of its own.
func (s *Server) startBest(x *exchange, m *model, j *job, best int) error {
	seeds := make([]uint64, best)
	for i := range seeds {
		seeds[i] = rand.Uint64()
	}
	streams, err := x.submit(m, &j.req, seeds, false)
	if err != nil {
		return err
	}
	for i, stream := range streams {
		g := &x.generation
		if i > 0 {
			g = new(generation)
			x.others = append(x.others, g)
		}
		g.reset(m.tok, j, stream)
		if j.seed.set {
			g.seed = some(seeds[i])
		}
	}
	return nil
}

// readBest reads all sequences of a request to their ends and returns the one
// whose tokens are the likeliest, on average, and the others in their order.
// Those that their deadline found without a token are among the others.
func (s *Server) readBest(x *exchange, j *job) (best *generation, others []*generation, err error) {
	all := append([]*generation{&x.generation}, x.others...)
	expired, err := s.sideBySide(x, len(all), func(ctx context.Context, i int) error { return all[i].read(ctx, x, j) })
	if err != nil {
		return nil, nil, err
	}
	first := 0
	for i, g := range all {
		if g.mean() > all[first].mean() {
			first = i
		}
	}
	if expired[first] != nil {
		return nil, nil, expired[first]
	}
	others = append(others, all[:first]...)
	return all[first], append(others, all[first+1:]...), nil
}

// mean is the mean log-probability of the tokens.
func (g *generation) mean() float64 { return meanOf(g.score, g.text.Tokens()) }

// meanOf is the mean of n log-probabilities. Nothing is worse than no token.
func meanOf(sum float64, n int) float64 {
	if n == 0 {
		return math.Inf(-1)
	}
	return sum / float64(n)
}
