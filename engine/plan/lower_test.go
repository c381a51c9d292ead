package plan

import (
	"slices"
	"testing"
)

// TestLower: a lowered plan is right, reads the parts of the checkpoint that the
// plan as written reads, and has no more operations, and none of those that
// lowering is to remove.
func TestLower(t *testing.T) {
	for _, tt := range examples {
		t.Run(tt.name, func(t *testing.T) {
			p := mustBuild(t, mustParse(t, small(tt.family, tt.more)), tt.names)
			before := p.String()
			lowered := Lower(p)
			if after := p.String(); after != before {
				t.Errorf("Lower changed its argument:\n%s\nbefore:\n%s", after, before)
			}
			for _, q := range []*Plan{p, Share(p), lowered, Share(lowered)} {
				if err := Check(q); err != nil {
					t.Errorf("%v\n%s", err, q)
				}
			}
			if got, want := parts(lowered), parts(p); !slices.Equal(got, want) {
				t.Errorf("the lowered plan reads\n%q, the plan\n%q", got, want)
			}
			inputs := map[int32]int{} // of plain projections
			for _, op := range lowered.Ops {
				if op.Kind == OpActivate && op.In[1] == None && op.Weight[0] == None && op.I[ActKind] != int32(ActClip) {
					t.Errorf("an activation was left alone:\n%s", lowered)
				}
				if op.Kind == OpLinear && op.In[1] == None && op.I[LinearAct] == 0 {
					inputs[op.In[0]]++
				}
			}
			for v, n := range inputs {
				if n > 1 {
					t.Errorf("%d projections of v%d were not merged:\n%s", n, v, lowered)
				}
			}
		})
	}
}

// parts lists what a plan reads of a checkpoint, each once.
func parts(p *Plan) []string {
	var list []string
	for _, t := range p.Tensors {
		for _, part := range t.Parts {
			part.To = 0
			list = append(list, part.String())
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}
