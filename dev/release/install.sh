#!/bin/sh
# Installs Millrace for Linux on amd64 or arm64:
#
#   curl -fsSL https://github.com/millrace-ai/millrace/releases/latest/download/install.sh | sh
#
# MILLRACE_VERSION picks a version (0.9.0; default: the latest), MILLRACE_PREFIX
# the folder that gets bin/ and share/ (default: /usr/local for root, else
# ~/.local), MILLRACE_RELEASES a mirror of the releases page.
set -eu

fail() {
	echo "install.sh: $*" >&2
	exit 1
}

[ "$(uname -s)" = Linux ] || fail "there are binaries for Linux only; see the README for building from source"
case $(uname -m) in
x86_64 | amd64) arch=amd64 ;;
aarch64 | arm64) arch=arm64 ;;
*) fail "there is no binary for $(uname -m); see the README for building from source" ;;
esac
if [ "$(id -u)" = 0 ]; then prefix=/usr/local; else prefix=$HOME/.local; fi
prefix=${MILLRACE_PREFIX:-$prefix}
releases=${MILLRACE_RELEASES:-https://github.com/millrace-ai/millrace/releases}
if [ -n "${MILLRACE_VERSION:-}" ]; then
	from=$releases/download/v${MILLRACE_VERSION#v}
else
	from=$releases/latest/download
fi

if command -v curl >/dev/null; then
	fetch() { curl --fail --silent --show-error --location --retry 3 --output "$2" "$1"; }
elif command -v wget >/dev/null; then
	fetch() { wget --quiet --output-document="$2" "$1"; }
else
	fail "curl or wget is needed"
fi

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
fetch "$from/SHA256SUMS" "$folder/SHA256SUMS" || fail "$from/SHA256SUMS cannot be downloaded"
line=$(grep "  millrace_[^ ]*_linux_$arch\.tar\.gz\$" "$folder/SHA256SUMS") || fail "$from has no binary for $arch"
tarball=${line##* }
echo "Downloading $from/$tarball"
fetch "$from/$tarball" "$folder/$tarball" || fail "$from/$tarball cannot be downloaded"
(cd "$folder" && echo "$line" | sha256sum -c - >/dev/null 2>&1) || fail "$tarball is damaged: its SHA-256 does not match SHA256SUMS"

tar -xzf "$folder/$tarball" -C "$folder"
unpacked=$folder/${tarball%.tar.gz}
bash=$prefix/share/bash-completion/completions
zsh=$prefix/share/zsh/site-functions
fish=$prefix/share/fish/vendor_completions.d
man=$prefix/share/man/man1
mkdir -p "$prefix/bin" "$bash" "$zsh" "$fish" "$man" || fail "$prefix cannot be written; set MILLRACE_PREFIX to a folder of yours"
cp "$unpacked/millrace" "$prefix/bin/millrace.new"
mv "$prefix/bin/millrace.new" "$prefix/bin/millrace" # one that runs cannot be overwritten
cp "$unpacked/completions/millrace.bash" "$bash/millrace"
cp "$unpacked/completions/millrace.zsh" "$zsh/_millrace"
cp "$unpacked/completions/millrace.fish" "$fish/millrace.fish"
cp "$unpacked/millrace.1" "$man/millrace.1"

echo "Installed $("$prefix/bin/millrace" version | head -n 1) in $prefix/bin"
case :$PATH: in
*:"$prefix/bin":*) ;;
*) echo "Add it to your PATH: export PATH=\"$prefix/bin:\$PATH\"" ;;
esac
echo "Try it: millrace"
