# The entry door: `make` lists what there is. The work is in tools/.

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast test-cluster fuzz images cluster cluster-down bench bench-smoke flame soak figures fmt docs clean-cache

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "%-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## Install what this machine lacks (Debian packages)
	@tools/setup --tests

demo: ## Show the whole story on this machine, in under a minute after the build
	@tools/demo

test: ## Run every tier: format, lints, dependencies, unit, property and process tests
	@tools/test

test-fast: ## Run the inner loop: format, rooms, compile, unit and property tests
	@tools/test fast

test-cluster: ## Run the tests on a real Kubernetes alone (needs root, builds Kubernetes once)
	@tools/cluster setup
	@tools/cluster build
	@tools/images
	@cargo test --package cluster --package product
	@cargo test --package autoscaler --package activator --package webhook-injector --test kubernetes

fuzz: ## Fuzz every parser for a while (a minute each; make fuzz TARGET=review SECONDS=600)
	@tools/fuzz $(or $(TARGET),all) $(or $(SECONDS),60)

images: ## Build the images of the four components, without Docker
	@tools/images

cluster: ## Start a real Kubernetes of one node for you to use, and print what to type (needs root)
	@tools/cluster up

cluster-down: ## End it
	@tools/cluster down

bench: ## Measure our programs and their peers (one to four hours; can be stopped and goes on)
	@tools/bench

bench-smoke: ## Check the bench itself, in seconds
	@tools/bench smoke

flame: ## Draw where the sidecar's processor time goes while it drains a queue (needs perf; a minute after the builds)
	@tools/flame --queue classic
	@tools/flame --queue quorum

soak: ## A million messages while everything is killed, and a table of what became of them (half an hour)
	@tools/soak

figures: ## Measure and print latency, memory and sizes
	@tools/figures

fmt: ## Format the code
	@cargo fmt --all

docs: ## Write the generated pages of docs/ again
	@cargo run --quiet --package contract --example settings-page > docs/reference/settings.md.new
	@mv docs/reference/settings.md.new docs/reference/settings.md

clean-cache: ## Remove the tools that make test built outside the tree
	@rm -rf -- "$${XDG_CACHE_HOME:-$$HOME/.cache}/kubedaemon-test"
