#!/bin/bash
# Tries the modules and the examples, without an account: formatting, validity,
# the modules' tests, a plan of each example, the tables in the READMEs, and the
# rules of checkov, for the templates of CloudFormation too, and of tflint. AWS's
# providers have a stand-in (see dev/standin/main.go), since the registry that has
# them cannot be reached everywhere; where it can, the real ones check the
# examples, and by them the modules, too. They are fetched once, some hundred
# megabytes: MILLRACE_REAL_PROVIDERS=0 leaves them out, =1 insists on them and has
# them run the modules' tests.
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

# One run at a time: they share the folder. What is started here does not hold
# the lock, so that no process left behind by a run that was killed can.
if [[ -z ${MILLRACE_LOCKED:-} ]] && command -v flock >/dev/null; then
	flock --nonblock "$build/lock" true || echo "Another run of this is under way: waiting for its end."
	export MILLRACE_LOCKED=1
	exec flock --close "$build/lock" "$PWD/test.sh"
fi

# What the user has set for Terraform is for the user's work: a cache of plug-ins,
# for one, would keep the stand-in for AWS's provider.
own_config=${TF_CLI_CONFIG_FILE:-}
for variable in ${!TF_@}; do unset "$variable"; done
export CHECKPOINT_DISABLE=1 TF_IN_AUTOMATION=1

# --- checkov, installed while the rest is under way ------------------------------

venv=$build/checkov-$checkov
install_checkov() {
	[[ ! -e $venv/done ]] || return 0
	python3 -m venv "$venv" &&
		"$venv/bin/pip" install --quiet --disable-pip-version-check --no-compile "checkov==$checkov" &&
		touch "$venv/done"
}
installing=
if python3 -c 'import ensurepip, venv' 2>/dev/null; then
	install_checkov >"$build/checkov.log" 2>&1 &
	installing=$!
	trap 'kill $installing 2>/dev/null || true' EXIT
fi

# --- Which Terraform -----------------------------------------------------------

recent() { # whether a program is of version 1.9 or newer
	local version
	version=$("$1" version 2>/dev/null | sed -n '1s/.* v1\.\([0-9]*\)\..*/\1/p')
	[[ -n $version ]] && ((version >= 9))
}

terraform=${MILLRACE_TERRAFORM:-}
if [[ -n $terraform ]] && ! recent "$terraform"; then
	echo "MILLRACE_TERRAFORM is $terraform, which is not Terraform 1.9 or newer." >&2
	exit 1
fi
for candidate in terraform tofu "$build/tofu"; do
	[[ -n $terraform ]] || ! recent "$candidate" || terraform=$candidate
done
if [[ -z $terraform ]]; then
	echo "No Terraform of 1.9 or newer is installed: building OpenTofu $opentofu, which takes some minutes."
	if ! module=$(go mod download -json "github.com/opentofu/opentofu@$opentofu") ||
		! (cd "$(sed -n 's/.*"Dir": "\(.*\)",/\1/p' <<<"$module")" && CGO_ENABLED=0 go build -o "$build/tofu" ./cmd/tofu); then
		echo "The Terraform tests are left out: Terraform is not installed, and OpenTofu cannot be built."
		exit
	fi
	terraform=$build/tofu
fi

# --- The stand-in for the providers ----------------------------------------------

(cd ../dev/standin && go build -o "$build/standin" .)
rm -rf "$build/mirror"
# A mirror begins with the registry that the program takes providers from.
host=$(cd modules/artifacts && "$terraform" providers | sed -n 's|.*provider\[\([^/]*\)/.*|\1|p' | sort -u)
while read -r name version; do
	folder=$build/mirror/$host/$name/$version/$(go env GOOS)_$(go env GOARCH)
	mkdir -p "$folder"
	cp "$build/standin" "$folder/terraform-provider-${name##*/}_v$version"
done < <("$build/standin" list)
export TF_CLI_CONFIG_FILE=$build/cli.tfrc
cat >"$TF_CLI_CONFIG_FILE" <<-EOF
	provider_installation {
	  filesystem_mirror {
	    path = "$build/mirror"
	  }
	}
EOF
(cd ../dev/standin && MILLRACE_TERRAFORM=$terraform go test -count 1 ./...)

# --- Modules and examples ------------------------------------------------------

"$terraform" fmt -check -recursive -diff .

quietly() { "$@" >"$build/log" 2>&1 || { cat "$build/log"; return 1; }; }

for tables in "terraform-docs modules" "terraform-docs examples" "wrappers modules"; do
	(cd ../dev/standin && quietly go tool terraform-docs --config "../../terraform/.${tables% *}.yml" --recursive --recursive-include-main=false --recursive-path "${tables#* }" --output-check ../../terraform) ||
		{ echo "make terraform-readme writes them."; exit 1; }
done

if command -v tflint >/dev/null; then
	for folder in modules/* examples/*; do quietly tflint --config "$PWD/.tflint.hcl" --chdir "$folder"; done
else
	echo "tflint's rules are skipped: not installed: tflint."
fi

# In a copy: Terraform writes beside what it reads.
rm -rf "$build/src"
mkdir "$build/src"
cp -r modules examples testdata "$build/src"

try() { # initialises, validates and tests the module or example of a folder
	cd "$1"
	quietly "$terraform" init -no-color -backend=false -input=false
	quietly "$terraform" validate -no-color
	if [[ -d tests ]]; then
		quietly "$terraform" test -no-color
		echo "${1#"$build/src/"}: $(grep -o '[0-9]* passed, [0-9]* failed' "$build/log")"
	fi
}

for folder in "$build"/src/modules/* "$build/src/testdata/wrappers"; do try "$folder"; done
for folder in "$build"/src/examples/*; do
	try "$folder"
	quietly "$terraform" plan -no-color -input=false -compact-warnings -var-file "$build/src/testdata/examples.tfvars"
	echo "${folder#"$build/src/"}: $(grep '^Plan: ' "$build/log")"
done

# Modules that are told to create nothing change nothing.
try "$build/src/testdata/nothing"
quietly "$terraform" plan -no-color -input=false -compact-warnings
echo "create = false: $(grep '^No changes' "$build/log" || { cat "$build/log"; exit 1; })"

# --- The real providers ----------------------------------------------------------

real=${MILLRACE_REAL_PROVIDERS:-}
rm -rf "$build"/src/*/*/.terraform "$build"/src/*/*/.terraform.lock.hcl # they name the stand-in
if [[ $real == 0 ]]; then
	echo "AWS's own providers are left out: MILLRACE_REAL_PROVIDERS is 0."
elif [[ $real != 1 ]] && ! curl --silent --fail --max-time 10 "https://$host/.well-known/terraform.json" >/dev/null 2>&1; then
	echo "AWS's own providers are left out: $host cannot be reached."
else
	export TF_PLUGIN_CACHE_DIR=$build/providers TF_PLUGIN_CACHE_MAY_BREAK_DEPENDENCY_LOCK_FILE=1
	mkdir -p "$TF_PLUGIN_CACHE_DIR"
	if [[ -n $own_config ]]; then export TF_CLI_CONFIG_FILE=$own_config; else unset TF_CLI_CONFIG_FILE; fi
	cd "$build/src/examples/inference-components" # which needs them all
	if timeout 600 "$terraform" init -no-color -backend=false -input=false >"$build/log" 2>&1; then
		for folder in "$build"/src/examples/*; do try "$folder"; done
		if [[ $real == 1 ]]; then for folder in "$build"/src/modules/*; do try "$folder"; done; fi
		echo "AWS's own providers: $(sed -n 's|^provider ".*/\(.*\)" {|\1|p; s|^  version *= "\(.*\)"|\1|p' "$build/src/examples/inference-components/.terraform.lock.hcl" | paste -s -d ' ')"
	else
		rm -r "$TF_PLUGIN_CACHE_DIR" # one of them may be there in part
		[[ $real != 1 ]] || { cat "$build/log"; exit 1; }
		echo "AWS's own providers are left out: they cannot be fetched from $host within ten minutes."
	fi
fi

# --- Rules for security --------------------------------------------------------

if [[ -z $installing ]]; then
	echo "checkov's rules are skipped: not installed: python3-venv."
	exit
fi
wait $installing || { cat "$build/checkov.log"; exit 1; }
cd "$build/src"
rm -rf ./*/*/.terraform # links to copies of the same modules
rm -rf modules/*/wrappers testdata # of whose inputs checkov knows nothing
cp -r ../../../examples/cloudformation .
quietly "$venv/bin/checkov" --directory . --framework terraform cloudformation --compact --quiet --skip-download
echo "checkov: $(grep -o 'Passed checks.*' "$build/log" | paste -s -d ';')"
