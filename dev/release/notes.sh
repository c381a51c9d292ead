#!/bin/sh
# Prints what CHANGELOG.md says of a version: the notes of its release.
#
#   dev/release/notes.sh VERSION
set -eu
cd "$(dirname "$0")/../.."
notes=$(awk -v heading="## [$1]" '
	/^## / || /^\[[^]]*\]: / { on = index($0, heading) == 1; next }
	on' CHANGELOG.md)
[ -n "$(printf %s "$notes" | tr -d '[:space:]')" ] || { echo "CHANGELOG.md has no section for $1" >&2; exit 1; }
printf '%s\n' "$notes"
