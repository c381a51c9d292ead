package handler

import (
	"context"
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
func (s *Server) readBest(x *exchange, j *job) (best *generation, others []*generation, err error) {
	all := append([]*generation{&x.generation}, x.others...)
	err = s.sideBySide(x, len(all), func(ctx context.Context, i int) error { return all[i].read(ctx, j) })
	if err != nil {
		return nil, nil, err
	}
	first := 0
	for i, g := range all {
		if g.mean() > all[first].mean() {
			first = i
		}
	}
	others = append(others, all[:first]...)
	return all[first], append(others, all[first+1:]...), nil
}

// mean is the mean log-probability of the tokens.
func (g *generation) mean() float64 { return g.score / float64(max(1, g.text.Tokens())) }
