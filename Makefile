# What people type. CMake does the work; each target prints the commands that it runs.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:

JOBS    ?= $(shell nproc)
INSTALL ?= yes
SECONDS ?= 600
PRESET  ?= dev
WERROR  ?= ON
TESTS   ?=

install := $(if $(filter yes,$(INSTALL)),cmake/install-packages.sh,@:)
cuda    := $(if $(filter yes,$(INSTALL)),cmake/install-cuda.sh,@:)
sources  = $(shell git ls-files '*.cc' '*.h')

##@ Use it
.PHONY: demo
demo: ## Install what is missing, build, and chat with the shipped model over gRPC
	$(install) build
	cmake --preset release -DSTATEHOUSE_TESTS=OFF
	cmake --build --preset release -j $(JOBS) --target statehouse
	cmake/demo.sh build/release/statehouse

.PHONY: build
build: ## Build the optimised binary: build/release/statehouse
	$(install) build
	cmake --preset release -DSTATEHOUSE_TESTS=OFF
	cmake --build --preset release -j $(JOBS) --target statehouse

##@ Work on it
.PHONY: test
test: .venv/installed ## Install, build with warnings as errors, run every test (PRESET=dev, TESTS=regex)
	$(install) build test
	$(cuda)
	cmake --preset $(PRESET) -DSTATEHOUSE_TESTS=ON -DSTATEHOUSE_WERROR=$(WERROR) -DSTATEHOUSE_SOAK_SECONDS=0
	cmake --build --preset $(PRESET) -j $(JOBS) --target all all_verify_interface_header_sets
	ctest --preset $(PRESET) -j $(JOBS) $(if $(TESTS),-R '$(TESTS)')

.PHONY: soak
soak: ## Run the long tests for SECONDS each: plain, under AddressSanitizer, under ThreadSanitizer
	$(install) build test
	for preset in release asan tsan; do \
	  cmake --preset $$preset -DSTATEHOUSE_TESTS=ON -DSTATEHOUSE_SOAK_SECONDS=$(SECONDS); \
	  cmake --build --preset $$preset -j $(JOBS); \
	done
	for preset in release asan tsan; do \
	  STATEHOUSE_SOAK_SECONDS=$(SECONDS) ctest --preset $$preset -L soak --no-tests=error; \
	done

.PHONY: check
check: check-format tidy ## clang-format and clang-tidy, no changes made

.PHONY: check-format
check-format: ## Fail if clang-format would change a file
	$(install) format
	clang-format --dry-run --Werror $(sources)

.PHONY: format
format: ## Rewrite the sources as clang-format wants them
	$(install) format
	clang-format -i $(sources)

.PHONY: tidy
tidy: ## Run clang-tidy over everything but tests (FILES=regex)
	$(install) build test tidy
	cmake --preset dev -B build/tidy -DSTATEHOUSE_PCH=OFF
	cmake --build build/tidy -j $(JOBS) --target statehouse_proto
	run-clang-tidy -quiet -j $(JOBS) -p build/tidy '$(or $(FILES),^$(CURDIR)/(kernels|models|engine|server|clients)/[^.]*\.cc$$)'

##@ Tidy up
.PHONY: clean
clean: ## Remove everything that was built or downloaded here
	rm -rf build .venv .cuda clients/python/stubs clients/python/{,power_retention/}{build,dist,*.egg-info}

.PHONY: help
help: ## This list
	@awk 'BEGIN {FS = ":.*## "; print "make TARGET, where TARGET is one of"} \
	  /^##@ / {printf "\n%s\n", substr($$0, 5)} \
	  /^[a-z-]+:.*## / {printf "  \033[1m%-13s\033[0m %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))
	@printf '\nJOBS=%s compilers at a time. INSTALL=no leaves the installed packages alone.\n' '$(JOBS)'

# Python packages that only tests use.
.venv/installed: tests/requirements.txt
	$(install) build test
	/usr/bin/python3 -m venv --system-site-packages .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-compile -r tests/requirements.txt
	touch $@
