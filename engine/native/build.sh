#!/bin/sh
# Builds build/native/libtokenizers.a, the Rust half of Millrace.
#
# daulet/tokenizers' Rust source comes from the Go module cache, at the version
# in go.mod and checked by go.sum. `make native` runs this when it is needed;
# cargo, gcc and g++ must be there.
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$root"

module=github.com/daulet/tokenizers
go mod download "$module"
DAULET_TOKENIZERS_DIR=$(go list -m -f '{{.Dir}}' "$module")
export DAULET_TOKENIZERS_DIR

cargo build --quiet --release --locked --manifest-path engine/native/Cargo.toml --target-dir build/cargo

mkdir -p build/native
cp build/cargo/release/libmillrace_native.a build/native/libtokenizers.a.new
mv build/native/libtokenizers.a.new build/native/libtokenizers.a

# Go does not know that its results depend on the archive: it would keep the
# binary and the test results that were made with the old one.
rm -f build/millrace
go clean -testcache
