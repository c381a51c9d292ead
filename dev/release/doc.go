// Package release holds the scripts that build and install a release: build.sh,
// which `make release` runs, and install.sh, which a release carries.
package release
