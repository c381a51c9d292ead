#!/bin/bash
# Tries the modules and the examples, without an account: formatting, validity,
# the modules' tests, a plan of each example, the tables in the READMEs, and
# checkov's rules. AWS's providers have a stand-in (see standin/main.go), since
# the registry that has them cannot be reached everywhere; where it can,
# MILLRACE_REAL_PROVIDERS=1 takes the real ones and leaves out the plans, which
# would need an account.
#
# Without a Terraform of 1.9 or newer, OpenTofu is built. MILLRACE_TERRAFORM
# names the program to use instead of looking for one.
set -euo pipefail
cd "$(dirname "$0")"

build=$PWD/../build/terraform
checkov=3.3.30
opentofu=v1.10.10
mkdir -p "$build"
build=$(cd "$build" && pwd)

# --- Which Terraform -----------------------------------------------------------

recent() { # whether a program is of version 1.9 or newer
	local version
	version=$("$1" version 2>/dev/null | sed -n '1s/.* v1\.\([0-9]*\)\..*/\1/p')
	[[ -n $version ]] && ((version >= 9))
}

terraform=${MILLRACE_TERRAFORM:-}
for candidate in terraform tofu "$build/tofu"; do
	[[ -n $terraform ]] || ! recent "$candidate" || terraform=$candidate
done
if [[ -z $terraform ]]; then
	echo "No Terraform of 1.9 or newer is installed: building OpenTofu $opentofu, which takes some minutes."
	source=$(go mod download -json "github.com/opentofu/opentofu@$opentofu" | sed -n 's/.*"Dir": "\(.*\)",/\1/p')
	(cd "$source" && CGO_ENABLED=0 go build -o "$build/tofu" ./cmd/tofu)
	terraform=$build/tofu
fi

# --- The providers -------------------------------------------------------------

export CHECKPOINT_DISABLE=1 TF_IN_AUTOMATION=1
if [[ -z ${MILLRACE_REAL_PROVIDERS:-} ]]; then
	(cd standin && go build -o "$build/standin" .)
	rm -rf "$build/mirror"
	# A mirror begins with the registry that the program takes providers from.
	host=$(cd modules/artifacts && "$terraform" providers | sed -n 's|.*provider\[\([^/]*\)/.*|\1|p' | head -n 1)
	while read -r name version; do
		folder=$build/mirror/$host/$name/$version/$(go env GOOS)_$(go env GOARCH)
		mkdir -p "$folder"
		ln "$build/standin" "$folder/terraform-provider-${name##*/}_v$version"
	done < <("$build/standin" list)
	export TF_CLI_CONFIG_FILE=$build/cli.tfrc
	cat >"$TF_CLI_CONFIG_FILE" <<-EOF
		provider_installation {
		  filesystem_mirror {
		    path = "$build/mirror"
		  }
		}
	EOF
	(cd standin && MILLRACE_TERRAFORM=$terraform go test -count 1 ./...)
fi

# --- Modules and examples ------------------------------------------------------

"$terraform" fmt -check -recursive -diff .
(cd standin && go run ./readme -check ../modules/*)

# In a copy: Terraform writes beside what it reads.
rm -rf "$build/src"
mkdir "$build/src"
cp -r modules examples testdata "$build/src"

quietly() { "$@" >"$build/log" 2>&1 || { cat "$build/log"; return 1; }; }

for folder in "$build"/src/modules/* "$build"/src/examples/*; do
	cd "$folder"
	name=${folder#"$build/src/"}
	quietly "$terraform" init -no-color -backend=false -input=false
	quietly "$terraform" validate -no-color
	if [[ -d tests ]]; then
		quietly "$terraform" test -no-color
		echo "$name: $(grep -o '[0-9]* passed, [0-9]* failed' "$build/log")"
	elif [[ -z ${MILLRACE_REAL_PROVIDERS:-} ]]; then
		quietly "$terraform" plan -no-color -input=false -compact-warnings -var-file "$build/src/testdata/examples.tfvars"
		echo "$name: $(grep '^Plan: ' "$build/log")"
	fi
done

# --- Rules for security --------------------------------------------------------

if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
	echo "checkov's rules are left out: not installed: python3-venv."
	exit
fi
venv=$build/checkov-$checkov
if [[ ! -e $venv/done ]]; then
	python3 -m venv "$venv"
	"$venv/bin/pip" install --quiet --disable-pip-version-check "checkov==$checkov"
	touch "$venv/done"
fi
cd "$build/src"
rm -rf modules/*/.terraform examples/*/.terraform # links to copies of the same modules
quietly "$venv/bin/checkov" --directory . --framework terraform --compact --quiet --skip-download
echo "checkov: $(grep -o 'Passed checks.*' "$build/log")"
