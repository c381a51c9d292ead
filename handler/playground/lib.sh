#!/bin/bash
# Fetches the libraries that the page uses, at pinned versions, from npm into
# lib/, with their licences. The page needs nothing else: run this only to
# move to another version, and put the new checksums here.
set -euo pipefail
cd "$(dirname "$0")"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# fetch NAME VERSION SHA512 FILE...: unpacks FILEs of a package into lib/.
fetch() {
	local name=$1 version=$2 sum=$3
	shift 3
	(cd "$work" && npm pack --silent "$name@$version" >/dev/null)
	local archive=$work/$name-$version.tgz
	[[ $(openssl dgst -sha512 -binary "$archive" | base64 -w0) == "$sum" ]] || { echo "$name $version has another checksum" >&2; exit 1; }
	tar -xzf "$archive" -C "$work"
	for file; do sed '/^\/\/# sourceMappingURL=/d' "$work/package/$file" >"lib/$(basename "$file")"; done
	cp "$work/package/LICENSE" "lib/$name.LICENSE.txt"
	rm -r "$work/package"
}

rm -rf lib
mkdir lib
fetch marked 18.2.1 ii4bxCTCqqwpT86XZWgJNs+ZnAIZksmLGYMViWA7PDIXYIeNo1x6cDdX3JOip9NM/cI6p8z57FxliACboTruMA== lib/marked.esm.js
fetch dompurify 3.5.0 LYC0ZkE8P1V42JsRYTwMdme/2ET8SpOc5AA2eOFjP/IadvRd2fwiT4TVz5vkfy0XUx12aS2UaRkTnfVPNOv9vw== dist/purify.min.js
(cd lib && sha256sum * >SHA256SUMS)
