# Everything on a fresh machine with Python and make: `make demo` shows the main job, `make test` runs all checks.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
ENCODERS := $(VENV)/.encoders
LLM := $(VENV)/.llm
CLIENTS := .clients

.PHONY: demo test check bench bench-encoder encoders llm clients anchors lock clean

demo: $(READY)
	$(BIN)/suffice demo

test: check
	$(BIN)/pytest -n 2 --dist loadfile

check: $(READY)
	$(BIN)/ruff format --check src tests bench
	$(BIN)/ruff check src tests bench
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(READY)
	$(BIN)/python bench/proof.py
	$(BIN)/python bench/linear.py
	$(BIN)/python bench/banking77.py
	$(BIN)/python bench/gateway.py
	$(BIN)/python bench/records.py
	$(BIN)/python bench/watch.py
	$(BIN)/python bench/promise.py
	$(BIN)/python bench/drift.py
	$(BIN)/python bench/discover.py
	$(BIN)/python bench/ladder.py
	$(BIN)/python bench/tools.py
	$(BIN)/python bench/mixed.py --encoders 0

# Every package by its hash; the project itself last, without asking an index again.
$(READY): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

# What the encoder family needs to learn: `make encoders`, once. Tests of it skip where it is not installed.
encoders: $(ENCODERS)

bench-encoder: $(ENCODERS)
	$(BIN)/python bench/encoder.py

# torch by itself: its builds differ by machine (processor only, CUDA versions), and so would their hashes.
$(ENCODERS): $(READY) requirements-encoders.lock requirements-base.lock
	$(BIN)/pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements-encoders.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --no-deps --requirement requirements-base.lock
	touch $@

# What the causal family needs to learn, the encoders' needs among it: `make llm`, once. Tests of it skip without.
llm: $(LLM)

$(LLM): $(ENCODERS) requirements-llm.lock requirements-base-llm.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements-llm.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --no-deps --requirement requirements-base-llm.lock
	touch $@

# The clients that people point at the gateway, each of its own version: `make clients`, once. tests/clients skip without.
clients: $(CLIENTS)/.ready

$(CLIENTS)/.ready: requirements-clients.lock requirements-clients-older.lock tests/clients/node/package-lock.json
	$(PYTHON) -m venv $(CLIENTS)
	$(CLIENTS)/bin/pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements-clients.lock
	$(PYTHON) -m venv $(CLIENTS)/older
	$(CLIENTS)/older/bin/pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements-clients-older.lock
	$(CLIENTS)/bin/npm ci --silent --ignore-scripts --no-audit --no-fund --prefix tests/clients/node
	touch $@

# Other gateways, to be measured beside ours.
anchors: $(READY)
	$(BIN)/python bench/anchors.py

# After a change of the dependencies in pyproject.toml. Both locks name the same versions; neither has torch.
lock: $(READY)
	$(BIN)/pip install --quiet uv
	$(BIN)/uv pip compile pyproject.toml --group dev --extra demo --extra parquet --universal --python-version 3.11 \
		--generate-hashes --no-header --quiet --output-file requirements.lock
	echo "torch ; sys_platform == 'never'" > $(VENV)/without-torch.txt
	$(BIN)/uv pip compile pyproject.toml --extra encoders --constraint requirements.lock \
		--override $(VENV)/without-torch.txt $(addprefix --no-emit-package ,torch mpmath networkx setuptools sympy) \
		--universal --python-version 3.11 \
		--generate-hashes --no-header --quiet --output-file requirements-encoders.lock
	$(BIN)/uv pip compile pyproject.toml --extra encoders --extra llm --extra runtimes --constraint requirements.lock \
		--constraint requirements-encoders.lock --override $(VENV)/without-torch.txt \
		$(addprefix --no-emit-package ,torch mpmath networkx setuptools sympy) --universal --python-version 3.11 \
		--generate-hashes --no-header --quiet --output-file requirements-llm.lock
	for name in clients clients-older; do $(BIN)/uv pip compile requirements-$$name.in --universal --python-version 3.11 \
		--generate-hashes --no-header --quiet --output-file requirements-$$name.lock; done

clean:
	rm -rf $(VENV) $(CLIENTS) .anchors tests/clients/node/node_modules .mypy_cache .ruff_cache .pytest_cache .suffice-demo
