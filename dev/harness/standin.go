package harness

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// base is the image that stand-ins are made on: Debian with the C and C++
// compilers, for the other architecture, too, because no package can be added
// while an image is built without a network.
const (
	base         = "millrace-base"
	suite        = "bookworm"
	basePackages = "ca-certificates,gcc,g++,libc6-dev,gcc-aarch64-linux-gnu,g++-aarch64-linux-gnu"
)

// fromLine is a Dockerfile's line about an image of the public registry: it
// has a tag.
var fromLine = regexp.MustCompile(`(?m)^FROM (?:--platform=\S+ )?([a-z]+:\S+)`)

// goTool and cargoTool are the programs that a Dockerfile installs.
var (
	goTool    = regexp.MustCompile(`go install (\S+@\S+)`)
	cargoTool = regexp.MustCompile(`cargo install (.*@\S+)`)
)

// prepare sees to it that the images are there that a Dockerfile begins with:
// an engine of our own gets stand-ins, another one pulls them.
func (e *Engine) prepare(ctx context.Context, root, dockerfile string) error {
	text, err := os.ReadFile(dockerfile)
	if err != nil {
		return err
	}
	for _, m := range fromLine.FindAllStringSubmatch(string(text), -1) {
		if e.dir != "" {
			err = e.standIn(ctx, root, m[1], string(text))
		} else if _, missing := e.Docker(ctx, "image", "inspect", m[1]); missing != nil {
			if _, err = e.Docker(ctx, "pull", "--quiet", m[1]); err != nil {
				err = &Unavailable{err.Error()}
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// standIn makes the stand-in for an official image, unless it is there as it
// would be made now.
func (e *Engine) standIn(ctx context.Context, root, image, dockerfile string) error {
	name, _, _ := strings.Cut(image, ":")
	switch name {
	case "debian":
		if err := e.debian(ctx); err != nil {
			return err
		}
		_, err := e.Docker(ctx, "tag", base, image)
		return err
	case "golang":
		return e.golang(ctx, root, image, tools(goTool, dockerfile))
	case "rust":
		return e.rust(ctx, root, image, tools(cargoTool, dockerfile))
	}
	return fmt.Errorf("there is no stand-in for %s", image)
}

func tools(install *regexp.Regexp, dockerfile string) (found []string) {
	for _, m := range install.FindAllStringSubmatch(dockerfile, -1) {
		found = append(found, m[1])
	}
	return found
}

// debian makes the base of all stand-ins.
func (e *Engine) debian(ctx context.Context) error {
	recipe := recipe(suite, basePackages)
	if e.has(ctx, base, recipe) {
		return nil
	}
	if _, err := exec.LookPath("mmdebstrap"); err != nil {
		return &Unavailable{"mmdebstrap is not installed (Debian: mmdebstrap)"}
	}
	system := exec.CommandContext(ctx, "mmdebstrap", "--quiet", "--variant=minbase", "--include="+basePackages,
		"--dpkgopt=force-unsafe-io", "--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/locale/*", suite, "-")
	if _, err := e.input(ctx, system, "import", "--change", "LABEL recipe="+recipe, "-", base); err != nil {
		return err
	}
	// Where this machine is itself a container with few rights, the engine
	// starts and yet can run nothing.
	if _, err := e.Docker(ctx, "run", "--rm", "--network", "none", base, "true"); err != nil {
		e.Forget(base)
		return &Unavailable{"no container can run here: " + err.Error()}
	}
	return nil
}

// golang puts the installed Go on the base, with the modules of go.sum and of
// the tools.
func (e *Engine) golang(ctx context.Context, root, image string, tools []string) error {
	if err := e.debian(ctx); err != nil {
		return err
	}
	version, err := output(ctx, root, nil, "go", "env", "GOVERSION", "GOROOT", "GOMODCACHE", "GOPROXY")
	if err != nil {
		return err
	}
	sums, err := os.ReadFile(filepath.Join(root, "go.sum"))
	if err != nil {
		return err
	}
	settings := strings.Split(version, "\n")
	goroot, cache, proxy := settings[1], settings[2], settings[3]
	dockerfile := "FROM " + base + `
ENV PATH=/go/bin:/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin GOPATH=/go GOTOOLCHAIN=local GOPROXY=file:///go/pkg/mod/cache/download GOSUMDB=off
COPY go /usr/local/go
COPY download /go/pkg/mod/cache/download
`
	recipe := recipe(dockerfile, settings[0], string(sums), strings.Join(tools, " "))
	if e.has(ctx, image, recipe) {
		return nil
	}
	// Only what go.mod lists, mostly from the cache of this machine.
	modules := filepath.Join(e.dir, "modules")
	env := []string{"GOMODCACHE=" + modules, "GOFLAGS=-modcacherw", "GOPROXY=file://" + filepath.Join(cache, "cache/download") + "," + proxy, "GONOSUMDB=*"}
	if _, err := output(ctx, root, env, "go", "mod", "download"); err != nil {
		return err
	}
	for _, tool := range tools { // -n: their modules are fetched, and nothing is compiled
		if _, err := output(ctx, root, append(env, "GOBIN="+filepath.Join(e.dir, "bin")), "go", "install", "-n", tool); err != nil {
			return err
		}
	}
	return e.build(ctx, image, recipe, dockerfile, map[string]string{
		"go": goroot, "download": filepath.Join(modules, "cache/download"),
	})
}

// rust puts the installed Rust on the base, with the crates of Cargo.lock and
// the tools.
func (e *Engine) rust(ctx context.Context, root, image string, tools []string) error {
	if err := e.debian(ctx); err != nil {
		return err
	}
	sysroot, err := output(ctx, root, nil, "rustc", "--print", "sysroot")
	if err != nil {
		return err
	}
	version, err := output(ctx, root, nil, "rustc", "--version", "--verbose")
	if err != nil {
		return err
	}
	targets, err := filepath.Glob(filepath.Join(sysroot, "lib/rustlib/*-linux-gnu"))
	if err != nil {
		return err
	}
	lock, err := os.ReadFile(filepath.Join(root, "engine/native/Cargo.lock"))
	if err != nil {
		return err
	}
	dockerfile := "FROM " + base + `
ENV PATH=/usr/local/cargo/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin CARGO_HOME=/usr/local/cargo CARGO_NET_OFFLINE=true
COPY cargo rustc /usr/local/cargo/bin/
COPY lib /usr/local/cargo/lib
COPY home /usr/local/cargo
`
	recipe := recipe(dockerfile, version, strings.Join(targets, " "), string(lock), strings.Join(tools, " "))
	if e.has(ctx, image, recipe) {
		return nil
	}
	home := filepath.Join(e.dir, "cargo")
	env := []string{"CARGO_HOME=" + home, "CARGO_PROFILE_DEV_DEBUG=none"} // as the Dockerfile has it
	if _, err := output(ctx, root, env, "cargo", "fetch", "--quiet", "--locked", "--manifest-path", "engine/native/Cargo.toml"); err != nil {
		return err
	}
	for _, tool := range tools {
		if _, err := output(ctx, root, env, "cargo", append([]string{"install", "--quiet"}, strings.Fields(tool)...)...); err != nil {
			return err
		}
	}
	return e.build(ctx, image, recipe, dockerfile, map[string]string{
		"cargo": filepath.Join(sysroot, "bin/cargo"), "rustc": filepath.Join(sysroot, "bin/rustc"), "lib": filepath.Join(sysroot, "lib"),
		"home": home,
	})
}

// Native returns the options of docker build by which container/Dockerfile takes
// the Rust half from this machine's build/native instead of compiling it a second
// time. There are none where the Dockerfile would not compile the same: where its
// compilers or its C library are not this machine's.
func (e *Engine) Native(ctx context.Context, root string) ([]string, error) {
	system, _ := os.ReadFile("/etc/os-release") // without one, it is not Debian
	library, err := filepath.Abs(filepath.Join(root, "build/native/libtokenizers.a"))
	if err != nil {
		return nil, err
	}
	if e.dir == "" || !strings.Contains(string(system), "VERSION_CODENAME="+suite+"\n") || !isFile(library) {
		return nil, nil
	}
	content, err := os.ReadFile(library)
	if err != nil {
		return nil, err
	}
	const image, dockerfile = "millrace-native", "FROM scratch\nCOPY libtokenizers.a /\n"
	if recipe := recipe(dockerfile, string(content)); !e.has(ctx, image, recipe) {
		err = e.build(ctx, image, recipe, dockerfile, map[string]string{"libtokenizers.a": library})
	}
	return []string{"--build-arg", "NATIVE=" + image}, err
}

// recipe is a short name for what an image is made from.
func recipe(parts ...string) string {
	return fmt.Sprintf("%.16x", sha256.Sum256([]byte(strings.Join(parts, "\x00"))))
}

// has reports whether an image is there that was made from a recipe.
func (e *Engine) has(ctx context.Context, image, recipe string) bool {
	got, err := e.Docker(ctx, "image", "inspect", "--format", `{{index .Config.Labels "recipe"}}`, image)
	return err == nil && got == recipe
}

// build builds a stand-in from paths of this machine, by their names in the
// build.
func (e *Engine) build(ctx context.Context, image, recipe, dockerfile string, paths map[string]string) error {
	dir, err := os.MkdirTemp(e.dir, "standin-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(dockerfile), 0o600); err != nil {
		return err
	}
	// The folders go to the engine as they lie there, through links that tar
	// follows; what the links inside them point at lies in them, too.
	for name, path := range paths {
		if err := os.Symlink(path, filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	context := exec.CommandContext(ctx, "tar", "--create", "--dereference", "--directory", dir, ".")
	_, err = e.input(ctx, context, "build", "--quiet", "--network", "none", "--label", "recipe="+recipe, "--tag", image, "-")
	return err
}

// output runs a program in a folder, with variables beside this process's own,
// and returns what it prints.
func output(ctx context.Context, dir string, env []string, program string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir, cmd.Env = dir, slices.Concat(os.Environ(), env)
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = fmt.Errorf("%s %s: %w\n%s", program, args[0], err, tail(string(exit.Stderr)))
	}
	return string(bytes.TrimSpace(out)), err
}
