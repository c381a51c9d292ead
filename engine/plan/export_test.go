package plan

import "testing"

// What the tests of package plan_test use of this one's.
var (
	Everything = everything
	Mutate     = mutate
)

// GoldenPlans are those of the golden tests, by name, and everything.
func GoldenPlans(t *testing.T) map[string]*Plan {
	plans := map[string]*Plan{"everything": everything(t)}
	for _, tt := range examples {
		plans[tt.name] = mustBuild(t, mustParse(t, small(tt.family, tt.more)), tt.names)
	}
	return plans
}
