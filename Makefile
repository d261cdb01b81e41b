# `make demo` shows the main job, `make test` runs every test. Both build what they need, once, into .tools and target.
CARGO ?= cargo
STAY ?= 1
DEMO_PROVIDER ?= minio
DEVCLUSTER = target/debug/devcluster
CRD = crds/storage.openfactory.tech_appbuckets.yaml
export STAY DEMO_PROVIDER

.PHONY: help
help: ## Show the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

.PHONY: demo
demo: build ## From nothing to an S3 upload with the Secret's credentials (STAY=0 ends, DEMO_PROVIDER=stub needs no MinIO)
	$(DEVCLUSTER) $(if $(filter stub,$(DEMO_PROVIDER)),--no-minio) -- tests/demo

.PHONY: test
test: lint deny tools clients ## Every check and every test
	$(CARGO) build --locked --workspace --all-targets
	$(DEVCLUSTER) -- tests/run $(TESTS)

.PHONY: cluster
cluster: build clients ## A shell beside a control plane and MinIO, for `cargo test`
	$(DEVCLUSTER) -- $${SHELL:-bash} -i

.PHONY: build
build: tools ## The operator and the programs that tests and demo run
	$(CARGO) build --locked --workspace

.PHONY: tools
tools: ## The control plane, MinIO and their clients, from their Go modules
	@tests/tools/build

.PHONY: clients
clients: .tools/venv/.stamp tests/clients/node_modules/.package-lock.json ## The Python and JavaScript clients that the tests use

.tools/venv/.stamp: tests/clients/requirements.txt
	python3 -m venv --clear .tools/venv
	.tools/venv/bin/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r $<
	touch $@

# The package `node` brings the Node.js that some of the others need; its install script puts the program in its place.
tests/clients/node_modules/.package-lock.json: tests/clients/package-lock.json
	npm ci --prefix tests/clients --no-audit --no-fund --loglevel=error
	touch $@

.PHONY: lint
lint: ## Formatting and clippy
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings

.PHONY: deny
deny: .tools/cargo/bin/cargo-deny ## Licences, bans and sources of all dependencies
	$< --locked check licenses bans sources

.tools/cargo/bin/cargo-deny:
	$(CARGO) install --quiet --locked --root .tools/cargo cargo-deny@0.20.2

.PHONY: crd
crd: ## Generate the CRD
	$(CARGO) run --quiet --locked --bin appbucket-operator -- crd >$(CRD)
	cp $(CRD) charts/appbucket-operator/files/crd.yaml

.PHONY: clean
clean: ## Remove what was built, the tools too
	rm -rf target .tools
