# make help lists the targets.
SHELL       := /bin/bash
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
FUZZTIME    ?= 1m
MODULES     := $(sort $(dir $(shell git ls-files '*go.mod')))

.PHONY: help test short lint vuln bench fuzz

help: ## list the targets
	@sed -nE 's/^([a-z]+):.*## (.*)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

test: ## all tests of all modules with -race, against real servers, which are installed if possible
	bash internal/servers/test.sh

short: ## the root module without its slowest tests; what has no server is skipped
	go test -short ./...

lint: ## gofmt, go vet, go mod tidy, staticcheck, long lines and the rules for dependencies, in all modules
	@set -e; for dir in $(MODULES); do \
		echo "== lint in $$dir"; \
		( cd $$dir; \
		unformatted=$$(gofmt -l .); [ -z "$$unformatted" ] || { echo "gofmt: $$unformatted"; exit 1; }; \
		go vet ./...; \
		go mod tidy -diff; \
		go run $(STATICCHECK) ./... ); \
	done
	.ci/columns
	.ci/deps

vuln: ## govulncheck in all modules
	.ci/vuln

bench: ## the library's own benchmarks; benchmarks/ compares with other libraries
	go test -run '^$$' -bench . -benchmem .

fuzz: ## each fuzz test for FUZZTIME (1m)
	@set -e; for dir in . adopt; do \
		for fuzz in $$(grep -hoE '^func Fuzz[A-Za-z]+' $$dir/*_test.go | cut -c6-); do \
			( cd $$dir; go test -run '^$$' -fuzz "^$$fuzz\$$" -fuzztime $(FUZZTIME) . ); \
		done; \
	done
