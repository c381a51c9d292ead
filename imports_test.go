// Package millrace_test checks what holds for all packages together.
package millrace_test

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/millrace-ai/millrace"

// goPackage is what these tests need of `go list -json`.
type goPackage struct {
	Dir          string
	ImportPath   string
	GoFiles      []string
	CgoFiles     []string
	Imports      []string
	TestImports  []string
	XTestImports []string
}

// name is a package's path inside the module: "engine/page".
func (p *goPackage) name() string {
	return strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
}

func packages(t *testing.T) []*goPackage {
	t.Helper()
	cmd := exec.Command("go", "list", "-e", "-json=Dir,ImportPath,GoFiles,CgoFiles,Imports,TestImports,XTestImports", "./...")
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("go list: %s", exit.Stderr)
		}
		t.Fatal(err)
	}
	var all []*goPackage
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		p := &goPackage{}
		if err := d.Decode(p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// within reports whether pkg is one of tops or lies below one; "x/" means
// only below.
func within(pkg string, tops ...string) bool {
	return slices.ContainsFunc(tops, func(top string) bool {
		return pkg == top || strings.HasPrefix(pkg, strings.TrimSuffix(top, "/")+"/")
	})
}

// layers says which packages a package may import, and so that imports point down:
// container → sagemaker → handler → engine → its leaves. What several of them
// share, and is not the product itself, is in internal; dev has what only
// engineers of Millrace run. A package that is not listed falls under the longest
// listed one above it.
var layers = map[string][]string{
	"":          {},
	"dev":       {"dev", "internal", "container", "engine"},
	"container": {"container", "sagemaker", "handler", "engine", "internal"},
	"sagemaker": {"handler", "internal"},
	"internal":  {},
	// An account's errors, and the events of an answer, are read by others.
	"internal/account": {"internal/awserr"},
	"internal/call":    {"internal/sse"},
	"handler":          {"handler", "engine", "internal"},
	// What operators see of requests knows of no route.
	"handler/telemetry": {"engine"},
	"handler/openapi":   {},
	// Nor what is fetched for them, of what it is.
	"handler/imagefetch": {},
	"engine":             {"engine/device", "engine/grammar", "engine/page", "engine/plan", "engine/sample", "engine/stop", "engine/vision"},
	"engine/loader":      {"engine/device", "engine/plan", "engine/quant", "engine/weights"},
	"engine/calibrate":   {"engine/device", "engine/loader", "engine/plan", "engine/quant", "engine/sample", "engine/weights"},
	"engine/adapter":     {"engine/device", "engine/plan", "engine/quant", "engine/weights"},
	"engine/page":        {},
	"engine/sample":      {},
	"engine/stop":        {},
	"engine/native":      {},
	"engine/grammar":     {"engine/native"},
	"engine/token":       {"engine/native"},
	"engine/weights":     {"engine/weights/gguf"},
	"engine/plan":        {},
	"engine/quant":       {"engine/plan"},
	"engine/vision":      {},
	"engine/device":      {"engine/device/abi", "engine/page", "engine/plan", "engine/sample"},
	"engine/device/abi":  {},
	"engine/cpu":         {"engine/cpu/kernels", "engine/device"},
	"engine/shard":       {"engine/device", "engine/plan"},
	"engine/cuda":        {"engine/device", "engine/plan", "engine/shard"},
	// What takes minutes to compile depends on no Go that changes every day.
	"engine/cpu/kernels": {"engine/device/abi"},
	"engine/ref":         {"engine/device", "engine/plan", "engine/quant", "engine/sample"},
	"engine/sim":         {"engine/device", "engine/plan", "engine/sample"},
	// What tests of the engine and of the packages above it share.
	"engine/enginetest":          {"engine"},
	"engine/sample/sampletest":   {"engine/sample"},
	"engine/grammar/grammartest": {"engine/grammar"},
	"engine/token/tokentest":     {"engine/token"},
	// The conformance suite compares every backend with the oracle.
	"engine/device/backendtest": {"engine/device", "engine/plan", "engine/quant", "engine/sample", "engine/ref"},
}

// layer returns the package of layers that pkg falls under.
func layer(pkg string) string {
	for pkg != "" {
		if _, ok := layers[pkg]; ok {
			return pkg
		}
		pkg = strings.TrimPrefix(path.Dir("/"+pkg), "/")
	}
	return pkg
}

func TestImportsPointDown(t *testing.T) {
	used := map[string]bool{} // "pkg target"
	for _, p := range packages(t) {
		pkg := p.name()
		owner := layer(pkg)
		for _, imp := range p.Imports {
			target, ours := strings.CutPrefix(imp, module+"/")
			if !ours {
				continue
			}
			i := slices.IndexFunc(layers[owner], func(top string) bool { return within(target, top) })
			if i < 0 {
				t.Errorf("%s imports %s; it may import %q", pkg, target, layers[owner])
				continue
			}
			used[owner+" "+layers[owner][i]] = true
		}
	}
	// A permission that nothing needs is a hole.
	for pkg, targets := range layers {
		for _, target := range targets {
			if !used[pkg+" "+target] {
				t.Errorf("nothing in %s imports %s, which it may", pkg, target)
			}
		}
	}
}

// Modules that belong to one package: elsewhere their types would tie packages
// together that should not know of each other.
func TestModulesStayInTheirPackages(t *testing.T) {
	owners := map[string][]string{
		"github.com/gorilla/mux":                  {"handler"},
		"github.com/prometheus/client_golang":     {"handler"},
		"github.com/daulet/tokenizers":            {"engine/native", "engine/token"},
		"github.com/alecthomas/kong":              {"container"},
		"go.yaml.in/yaml/v3":                      {"container"},
		"github.com/schollz/progressbar/v3":       {"container"},
		"github.com/aws/aws-sdk-go-v2":            {"container", "sagemaker", "internal/account", "internal/awserr"},
		"github.com/aws/aws-lambda-go":            {"container/lambda"},
		"github.com/coder/websocket":              {"container", "internal/web", "sagemaker", "dev"},
		"go.opentelemetry.io/otel":                {"container", "handler"},
		"net/http":                                {"container", "sagemaker", "handler", "internal", "dev"},
		"log/slog":                                {"container", "sagemaker", "handler"},
		"C":                                       {"engine/device", "engine/cpu", "engine/cuda", "engine/native"},
		"github.com/millrace-ai/millrace/handler": {"container", "sagemaker", "handler"},
	}
	used := map[string]bool{} // "module pkg"
	for _, p := range packages(t) {
		pkg := p.name()
		for _, imp := range slices.Concat(p.Imports, p.TestImports, p.XTestImports) {
			for owned, owning := range owners {
				if !within(imp, owned) {
					continue
				}
				i := slices.IndexFunc(owning, func(top string) bool { return within(pkg, top) })
				if i < 0 {
					t.Errorf("%s imports %s, which is for %q", pkg, imp, owning)
					continue
				}
				used[owned+" "+owning[i]] = true
			}
		}
	}
	for owned, owning := range owners {
		for _, pkg := range owning {
			if !used[owned+" "+pkg] {
				t.Errorf("nothing in %s imports %s, which it may", pkg, owned)
			}
		}
	}
}

// What must be unique is drawn from the kernel: the generators of math/rand are
// memory of the process, which Lambda copies with its snapshots. These packages
// draw waits, or what a test or an emulator repeats.
func TestIdsAreNotOfMathRand(t *testing.T) {
	draws := []string{"container/bench", "container/otlp", "container/source", "sagemaker/local", "engine/enginetest", "engine/device/backendtest", "dev"}
	for _, p := range packages(t) {
		if i := slices.IndexFunc(p.Imports, func(imp string) bool { return within(imp, "math/rand") }); i >= 0 && !within(p.name(), draws...) {
			t.Errorf("%s imports %s: use crypto/rand", p.name(), p.Imports[i])
		}
	}
}

func TestEveryPackageHasOneDocComment(t *testing.T) {
	for _, p := range packages(t) {
		var docs []string
		for _, name := range slices.Concat(p.GoFiles, p.CgoFiles) {
			f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, name), nil, parser.ParseComments|parser.PackageClauseOnly)
			if err != nil {
				t.Fatal(err)
			}
			if isDoc(f.Doc) {
				docs = append(docs, name)
			}
		}
		if len(p.GoFiles)+len(p.CgoFiles) > 0 && len(docs) != 1 {
			t.Errorf("%s has %d package comments %v; want one", p.name(), len(docs), docs)
		}
	}
}

func isDoc(c *ast.CommentGroup) bool {
	return c != nil && (strings.HasPrefix(c.Text(), "Package ") || strings.HasPrefix(c.Text(), "Command "))
}
