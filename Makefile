# Everything a fresh machine needs: `make demo` runs the main job, `make test` all checks. Both make .venv first, once.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
# The site is built where Python is new enough for mkdocs-material.
DOCS := $(shell $(PYTHON) -c 'import sys; print("docs" * (sys.version_info >= (3, 11)))')

.PHONY: demo bundle check static quick-tests test coverage mutate versions venv peers study study-slurm docs results

demo: venv
	$(BIN)/lopsided-demo -o demo

# One folder that installs this package where there is no internet; TORCH=1: with PyTorch; PART_MB=60: in parts too.
bundle: venv
	$(BIN)/python release/bundle.py -o bundle $(if $(filter-out 0,$(TORCH)),--torch) $(if $(PART_MB),--part-mb $(PART_MB))

# While you write: lint, types, which part imports which, and the quick tests, the tests beside the rest: two cores.
check: venv
	$(MAKE) --no-print-directory --jobs=2 static quick-tests

static: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/mypy

# Tests of single modules, which neither plan nor train with nnU-Net; a slow one there is marked so.
of = $(patsubst %,tests/$(1)/test_%.py,$(2))
QUICK_TESTS := $(wildcard tests/test_*.py) tests/documentation tests/files tests/pages tests/losses tests/nnunet \
	$(call of,audit,decisions miss_rate ranking scoring) \
	$(call of,evaluation,belief case confidence curves dilation intervals matching rules strata) \
	$(call of,planning,rules_25d) $(call of,study,jobs schema) $(call of,trainers,curves names) $(call of,variants,choosing)

quick-tests: venv
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow" $(QUICK_TESTS)

# Two at a time, whole files: what a file has prepared once stays with its worker.
test: static $(DOCS)
	$(BIN)/python -m pytest -n 2 --dist loadfile

# The documentation as a site, site/index.html; a warning is an error. Needs no PyTorch, so it has an environment of its own.
docs: .venv-docs/.installed
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --quiet

.venv-docs/.installed: docs/requirements.txt
	test -x .venv-docs/bin/python || $(PYTHON) -m venv .venv-docs
	.venv-docs/bin/python -m pip install --quiet --requirement docs/requirements.txt
	touch $@

# Every table and figure of measured results anew, from the files in benchmarks/results.
results: venv
	$(BIN)/python benchmarks/study_tables.py write
	$(BIN)/python benchmarks/study_figures.py
	$(BIN)/python docs/run_notebooks.py

# All tests once more, counted: fails below the floor in pyproject.toml. What commands started by tests run does not count.
coverage: static
	$(BIN)/python -m pytest -n 2 --dist loadfile --cov

# Which mistakes (tests/mutations.toml) does no test notice? ONLY="curve Dice": those whose name has one of the words.
mutate: venv
	$(BIN)/python tests/mutate.py $(ONLY)

# All tests with each nnU-Net that people have, laid over .venv. NNUNET="2.6.4 2.7.0": these; TESTS=tests/trainers: a part.
versions: venv
	$(BIN)/python tests/nnunet_versions.py $(if $(NNUNET),--nnunet "$(NNUNET)") $(TESTS)

# A whole small study with nnU-Net's real commands; minutes on an idle CPU.
study: venv
	$(BIN)/lopsided-study run quick -o study-quick

# The same engine on SLURM, with stand-ins for nnU-Net; as root, after apt-get install slurm-wlm munge.
study-slurm: venv
	tests/study/single_node_slurm.sh up
	$(BIN)/python -m pytest -m slurm tests/study; code=$$?; tests/study/single_node_slurm.sh down; exit $$code

venv: $(STAMP)

$(STAMP): pyproject.toml constraints.txt nnunet_lopsided.pth
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; (3, 10) <= v <= (3, 13) or sys.exit(f"make venv needs Python 3.10 to 3.13 (constraints.txt has no wheels for others), found {v[0]}.{v[1]}: make venv PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $@

# Other evaluation tools pin other versions than nnU-Net: they get an environment of their own, outside the repository.
PEERS ?= $(HOME)/.cache/nnunet-lopsided-peers
peers:
	test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet panoptica picai_eval brats-evaluation connected-components-3d SimpleITK nibabel tifffile \
		scipy tqdm matplotlib pytest hypothesis filelock pydantic jinja2 markupsafe
	PYTHONPATH=. $(PEERS)/bin/python -m pytest -p no:cacheprovider tests/evaluation/test_peers.py
