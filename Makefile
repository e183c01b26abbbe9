# demo · test · fuzz · test-vm · test-vpp · images · test-compose · test-k8s · test-spire · lint · bench · proto ·
# vpp-messages · docs · man · dashboards · chart · site · lock · sbom · audit: each works on a fresh machine and creates the .venv that
# it needs.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PARTS  := apis chains forwarder-kernel forwarder-sriov forwarder-vpp services webhook

.PHONY: demo test fuzz chaos test-vm test-vpp images test-compose test-k8s test-spire cluster-up cluster-down lint bench proto vpp-messages docs man dashboards chart site lock sbom audit system clean

# Installed by hash, and only what locks/dev.txt lists; our own distributions are installed in place.
$(VENV)/.ready: locks/images.txt locks/dev.txt $(PARTS:%=%/pyproject.toml)
	@echo "creating $(VENV) and installing the packages of locks/dev.txt: this takes half a minute or more"
	$(PYTHON) -m venv $(VENV)
	PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip install -q --require-hashes -r locks/dev.txt
	PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip install -q --no-deps --no-build-isolation \
	    -e apis -e chains -e forwarder-kernel -e forwarder-sriov -e forwarder-vpp -e services -e webhook
	touch $@

# Programs that the tests call: installed where the machine is Debian and we are root.
system:
	@scripts/system-packages

demo: $(VENV)/.ready system
	$(BIN)/nsm demo

# Side by side, by two workers for each processor (tests/workers.py). What fails is run once more, here and below, and
# both runs are shown: scripts/once-more. Python keeps what it compiles, whatever the environment says: components start
# more than a thousand times.
test: export PYTHONDONTWRITEBYTECODE =
test: lint system
	@scripts/system-packages test
	scripts/once-more $(BIN)/pytest -n auto $(ARGS)

# More of tests/fuzz, by hand: with atheris where it can be installed. What it finds is put into tests/fuzz/corpus.
MINUTES ?= 30
fuzz: $(VENV)/.ready
	-$(BIN)/python -m pip install -q --require-hashes -r locks/fuzz.txt
	$(BIN)/python -m tests.fuzz --minutes $(MINUTES) $(ARGS)

# Parts of a mesh break at random under traffic; a failing SEED is run again by naming it.
chaos: $(VENV)/.ready system
	$(BIN)/python -m tests.chaos --minutes $(MINUTES) $(if $(SEED),--seed $(SEED)) $(ARGS)

# Kernel features that this machine may not have: tests in a virtual machine that has them.
test-vm: $(VENV)/.ready
	@scripts/system-packages vm
	@scripts/vm-kernel
	scripts/once-more $(BIN)/pytest tests/vm $(ARGS)

# Against a real VPP, where one is installed; it says how to get it where it is not.
test-vpp: $(VENV)/.ready system
	NSM_TEST_VPP=1 scripts/once-more $(BIN)/pytest tests/vpp tests/system/forwarder_vpp/test_dataplane.py $(ARGS)

# A Kubernetes of two nodes in namespaces of this machine. Its programs are built once, which takes 5 to 18 minutes.
cluster-up: $(VENV)/.ready
	@scripts/system-packages cluster
	@$(BIN)/python -m tests.cluster up

cluster-down: $(VENV)/.ready
	@$(BIN)/python -m tests.cluster down

# The images and the manifests in a cluster; one that runs already is used, and left running. One worker has it; another
# runs the tests that need an API server only.
test-k8s: $(VENV)/.ready
	@scripts/system-packages cluster
	@scripts/system-packages images
	scripts/with-engine sh -c 'scripts/images build && scripts/images save .images'
	$(BIN)/python -m tests.cluster run -- scripts/once-more $(BIN)/pytest -n 2 tests/k8s $(ARGS)

# The variant by SPIRE, whose programs are built once, which takes some 7 minutes; in a cluster as for test-k8s.
test-spire: $(VENV)/.ready
	@scripts/system-packages spire
	@scripts/system-packages images
	scripts/with-engine sh -c 'scripts/images build && scripts/images save .images'
	$(BIN)/python -m tests.cluster run -- scripts/once-more $(BIN)/pytest tests/spire $(ARGS)

# An image for each component: make images, or some of them: make images ARGS="nsc nse"; for another machine:
# make images PLATFORM=linux/arm64
export PLATFORM
images:
	@scripts/system-packages images
	scripts/with-engine scripts/images build $(ARGS)

# The mesh of docker-compose.yml, and what is in the images.
test-compose: $(VENV)/.ready
	@scripts/system-packages compose
	scripts/with-engine sh -c 'scripts/images build && scripts/once-more $(BIN)/pytest tests/compose $(ARGS)'

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(PARTS:%=%/nsm)
	PYTHONPATH=. $(BIN)/lint-imports

bench: $(VENV)/.ready system
	$(BIN)/python -m bench

proto: $(VENV)/.ready
	$(BIN)/python apis/generate.py

# Descriptions of the messages of a version of VPP, from its API folder; those of other versions are kept:
# make vpp-messages VPP=26.06 API=/usr/share/vpp/api ERRORS=/usr/include/vnet/error.h
vpp-messages: $(VENV)/.ready
	$(BIN)/python forwarder-vpp/generate.py $(VPP) $(API) $(ERRORS)

# docs/ as a site with a search, in build/site; what makes it is in a .venv of its own.
site:
	$(PYTHON) -m venv build/site-venv
	PIP_DISABLE_PIP_VERSION_CHECK=1 build/site-venv/bin/python -m pip install -q --require-hashes -r locks/site.txt
	NO_MKDOCS_2_WARNING=true build/site-venv/bin/mkdocs build --strict --quiet
	@echo "the site is in build/site: open build/site/index.html"

# The objects of the Helm chart, out of the kustomizations.
chart: $(VENV)/.ready
	PYTHONPATH=. $(BIN)/python scripts/chart.py

# Dashboards for Grafana.
dashboards: $(VENV)/.ready
	$(BIN)/python scripts/dashboards.py

docs: $(VENV)/.ready
	$(BIN)/python docs/generate.py
	$(BIN)/python docs/element_index.py
	$(BIN)/python docs/metrics_page.py

# A man page for each command, in build/man, made from its help.
man: $(VENV)/.ready
	$(BIN)/python -m nsm.chains.tools.man build/man

# The hashes of all that is installed, after a change of constraints.txt or of what a distribution needs.
lock:
	@scripts/with-tools lock sh -c 'scripts/lock uv'

# What is in each image, or in some of them: make sbom ARGS="nsc nse"; files in .sbom.
sbom: $(VENV)/.ready
	@scripts/system-packages images
	scripts/with-engine sh -c 'scripts/images build $(ARGS) && $(BIN)/python -m scripts.sbom .sbom $(ARGS)'

# Known vulnerabilities of the packages in locks/. Fails if no database is reachable.
audit:
	@scripts/with-tools audit scripts/audit

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .vm .engine .images .sbom .tools
