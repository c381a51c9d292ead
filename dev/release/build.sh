#!/bin/bash
# Builds the files of a release in build/release: for each architecture named
# (amd64, arm64; this machine's by default) a static binary in a tarball with
# the licence, the README, the changelog, completions, man page, systemd unit,
# and its bills of materials; beside them install.sh and SHA256SUMS.
#
#   dev/release/build.sh VERSION [ARCH...]
#
# `make release` runs it. Debian's cross compilers build what is not for this
# machine: crossbuild-essential-arm64, and `rustup target add`. The flags are
# those of container/Dockerfile, so that both hold the same program.
set -euo pipefail
cd "$(dirname "$0")/../.."

version=$1
shift
host=$(go env GOHOSTARCH)
(($#)) || set -- "$host"
out=build/release
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
commit=$(git rev-parse HEAD)
rm -rf "$out"
mkdir -p "$out" build/bin

install_tools() {
	[ -x build/bin/cyclonedx-gomod ] ||
		GOFLAGS='' GOBIN=$PWD/build/bin go install github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@v1.10.0
	[ -x build/bin/cargo-cyclonedx ] || # it runs once: compiling it takes longer than what optimizing it would save
		CARGO_PROFILE_DEV_DEBUG=none cargo install --quiet --locked --debug --root build cargo-cyclonedx@0.5.7
}

# native ARCH CPU: the Rust half, in the folder that it prints. It is built for
# this machine by `make native` already.
native() {
	if [ "$1" = "$host" ]; then
		echo "$PWD/build/native"
		return
	fi
	local target=$2-unknown-linux-gnu folder=$PWD/build/native/$1 daulet linker
	daulet=$(go list -m -f '{{.Dir}}' github.com/daulet/tokenizers)
	linker=CARGO_TARGET_$(tr a-z- A-Z_ <<<"$target")_LINKER
	env DAULET_TOKENIZERS_DIR="$daulet" CC="$2-linux-gnu-gcc" "$linker=$2-linux-gnu-gcc" \
		cargo build --quiet --release --locked --manifest-path engine/native/Cargo.toml --target-dir build/cargo --target "$target" >&2
	mkdir -p "$folder"
	cp "build/cargo/$target/release/libmillrace_native.a" "$folder/libtokenizers.a"
	echo "$folder"
}

# build ARCH CPU FILE: the static binary.
build() {
	local library compilers=()
	library=$(native "$1" "$2")
	[ "$1" = "$host" ] || compilers=("CC=$2-linux-gnu-gcc" "CXX=$2-linux-gnu-g++")
	env CGO_ENABLED=1 GOARCH="$1" GOFLAGS='-trimpath -buildvcs=false -buildmode=pie -tags=netgo,osusergo,static' \
		CGO_LDFLAGS="-O2 -g -L$library" "${compilers[@]}" \
		go build -ldflags "-s -w -buildid= -linkmode external -extldflags '-static-pie -Wl,-z,pack-relative-relocs' \
			-X main.version=$version -X main.commit=$commit" -o "$3" ./container
}

# materials CPU BINARY FOLDER: what the binary is made of, in CycloneDX's form.
materials() {
	GOFLAGS='' GOPROXY=off GOSUMDB=off build/bin/cyclonedx-gomod bin -json -std -licenses -noserial -notimestamp -version "$version" \
		-output "$3/go.cdx.json" "$2"
	DAULET_TOKENIZERS_DIR=$(go list -m -f '{{.Dir}}' github.com/daulet/tokenizers) PATH=$PWD/build/bin:$PATH \
		cargo cyclonedx --quiet --manifest-path engine/native/Cargo.toml --target "$1-unknown-linux-gnu" --no-build-deps \
		--format json --spec-version 1.5 --override-filename rust.cdx
	sed '/^  "serialNumber": /d; /^    "timestamp": /d' engine/native/rust.cdx.json >"$3/rust.cdx.json"
	rm engine/native/rust.cdx.json
}

install_tools
go mod download # with what cyclonedx-gomod reads of modules to name their licences
for arch; do
	case $arch in
	amd64) cpu=x86_64 ;;
	arm64) cpu=aarch64 ;;
	*) echo "there is no release for $arch" >&2; exit 2 ;;
	esac
	name=millrace_${version}_linux_$arch
	folder=$out/$name
	mkdir -p "$folder/completions" "$folder/sbom"
	build "$arch" "$cpu" "$folder/millrace"
	materials "$cpu" "$folder/millrace" "$folder/sbom"
	for half in go rust; do cp "$folder/sbom/$half.cdx.json" "$out/$name.$half.cdx.json"; done
	cp LICENSE README.md CHANGELOG.md dev/release/millrace.service "$folder"
	for shell in bash zsh fish; do build/millrace completion "$shell" >"$folder/completions/millrace.$shell"; done
	build/millrace man >"$folder/millrace.1"
	tar --create --sort=name --format=ustar --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX --mtime="@$SOURCE_DATE_EPOCH" \
		--directory "$out" "$name" | gzip --no-name -9 >"$out/$name.tar.gz"
	rm -r "$folder"
done
cp dev/release/install.sh "$out"
cd "$out"
sha256sum -- * >../SHA256SUMS
mv ../SHA256SUMS .
cat SHA256SUMS
