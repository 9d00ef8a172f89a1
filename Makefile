# make study   install, run the first ablation, print its table
# make test    install what is missing, run the tests
# make check   lint, format and type checks
# make docs    the documentation into build/site; a warning or a link that leads nowhere is an error
# make links   do the pages outside of this project that the documentation links to still exist; needs a network
# make bench   what one step of every method costs; more with BENCH='--backbone vit_tiny --image-size 128 --batch 16'
# make bench-sweep  what a sweep costs beside its training, beside Ray Tune and Optuna (about half an hour); shorter with BENCH='--trials 20 --seconds 1'
# make bench-data  samples per second and core of every data set, beside plain loops; a few minutes
# make bench-analysis  what loading 10,000 runs takes, and every table, figure, claim and audit of them; three minutes
# make results train the studies of docs/results at profile cpu, three seeds, and write their tables and figures (about half an hour)
# make chaos   kill and break what a sweep is made of, N times, and hold what is recorded against an undisturbed sweep
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STUDY ?= table4_d5
PROFILE ?= cpu
# pip compiles what it installs; without compiled files every Ray worker starts about twice as slowly.
PIP := $(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --compile -c constraints.txt

.PHONY: study test test-fast check docs links bench bench-data chaos results format clean bench-sweep bench-analysis

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; name another with make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.installed: $(VENV)/.created pyproject.toml constraints.txt
	@echo "installing pinned versions into $(VENV) (a few minutes the first time)"
	$(PIP) -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) -e '.[dev]'
	@touch $@

$(VENV)/.installed-results: $(VENV)/.installed
	$(PIP) -e '.[qm9]'
	@touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	$(PIP) -e '.[docs]'
	@touch $@

study: $(VENV)/.installed
	$(BIN)/mtl-study run $(STUDY) --profile $(PROFILE)

# A file goes to one process whole: its fixtures (a study that ran, a cluster) are made once. In the order of tests/conftest.py, since
# xdist's own, by the number of tests, leaves the files with a few long ones to the end.
test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder

test-fast: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder -m "not slow and not ray"

check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Material says at every start what it thinks of the next mkdocs.
docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

links: $(VENV)/.installed-dev
	MTL_STUDY_LINKS=1 $(BIN)/python -m pytest -q tests/test_external_links.py

RESULTS := table4 d4 d5 d6 fidelity equal_compute qm9
FIGURES := fig3 fig4 d_fig6
results: $(VENV)/.installed-results
	mkdir -p docs/results/figures
	set -e; for study in $(RESULTS); do \
	  $(BIN)/mtl-study run $$study --profile cpu --seeds 3 > /dev/null; \
	  $(BIN)/mtl-study table $$study --profile cpu --format markdown > docs/results/$$study.md; \
	done
	set -e; for figure in $(FIGURES); do $(BIN)/mtl-study figure $$figure --profile cpu --out docs/results/figures; done
	$(BIN)/mtl-study figure bars --study d5 --profile cpu --out docs/results/figures
	$(BIN)/mtl-study claims --profile cpu --format markdown > docs/results/claims.md
	$(BIN)/mtl-study audit --format markdown > docs/results/audit.md

bench: $(VENV)/.installed-dev
	$(BIN)/python -m benchmarks.step_cost $(BENCH)

bench-data: $(VENV)/.installed-dev
	$(BIN)/python -m benchmarks.data $(BENCH)

N ?= 200
SEED ?= 0
chaos: $(VENV)/.installed-dev
	$(BIN)/python -m tests.chaos --faults $(N) --seed $(SEED)

bench-sweep: $(VENV)/.installed-dev
	$(BIN)/python -m benchmarks.sweep $(BENCH)

bench-analysis: $(VENV)/.installed-dev
	$(BIN)/python -m benchmarks.analysis $(BENCH)

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache
