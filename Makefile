# demo · test · test-vm · lint · bench · proto · docs: each works on a fresh machine and makes the .venv that it needs.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PARTS  := apis chains forwarder-kernel services

.PHONY: demo test test-vm lint bench proto docs system clean

$(VENV)/.ready: constraints.txt requirements-dev.txt $(PARTS:%=%/pyproject.toml)
	$(PYTHON) -m venv $(VENV)
	PIP_CONSTRAINT=constraints.txt PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/pip install -q \
	    -r requirements-dev.txt -e apis -e chains -e 'forwarder-kernel[prometheus]' -e 'services[mesh]'
	touch $@

# Programs that the tests call: installed where the machine is Debian and we are root.
system:
	@scripts/system-packages

demo: $(VENV)/.ready system
	$(BIN)/nsm demo

test: lint system
	$(BIN)/pytest $(ARGS)

# What this machine's kernel may lack: tests in a virtual machine that has it.
test-vm: $(VENV)/.ready
	@scripts/system-packages vm
	@scripts/vm-kernel
	$(BIN)/pytest tests/vm $(ARGS)

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(PARTS:%=%/nsm)
	PYTHONPATH=. $(BIN)/lint-imports

bench: $(VENV)/.ready system
	$(BIN)/python -m bench

proto: $(VENV)/.ready
	$(BIN)/python apis/generate.py

docs: $(VENV)/.ready
	$(BIN)/python docs/generate.py

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .vm
