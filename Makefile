# `make` alone lists what can be made. The tools come from .venv, which any of scripts/lab, `make check` and
# `make test-netns` makes.
.DEFAULT_GOAL := help
.PHONY: help fmt lint type imports test test-netns test-web test-vm test-package kernel chaos chaos-vm check bench bench-smoke bench-vm lab golden state-files docs lock audit package clean

BIN := .venv/bin

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1	\2/p' Makefile | expand -t 14

fmt: ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint: ## look for mistakes
	$(BIN)/ruff check .

type: ## check the types
	$(BIN)/mypy

imports: ## check who imports whom
	$(BIN)/lint-imports

test: ## run the tests that need no network: unit, golden, scenario, property, contract
	$(BIN)/pytest -m "not netns and not guest and not package and not machine and not web" --numprocesses auto

test-netns: ## run the tests that send real packets, in private namespaces
	@scripts/test netns

test-web: ## look at the page in a browser, against a running lab; screenshots in build/screenshots
	@scripts/test web

test-vm: ## run those that need another kernel than this one, in a guest (make kernel makes one)
	@scripts/test vm

test-package: ## build the Debian package and install it into Debian systems in folders (root; some minutes)
	@scripts/test package

kernel: ## build a kernel for guests, some 7 minutes; see docs/design/guest.md
	@$(BIN)/python -I scripts/vm --build

chaos: ## accidents under load, drawn from a seed: make chaos [SEED=7] [SECONDS=120]; see docs/design/chaos.md
	@scripts/test chaos $(if $(SEED),--seed $(SEED)) $(if $(SECONDS),--seconds $(SECONDS))

chaos-vm: ## the same on a kernel with flowtables, where the fast path is on, in a guest: make chaos-vm [SEED=7] [SECONDS=120]
	PYTHONPATH=$(CURDIR)/tests $(BIN)/python -I scripts/vm --seconds 1500 $(BIN)/python -s -m chaos $(if $(SEED),--seed $(SEED)) $(if $(SECONDS),--seconds $(SECONDS))

check: ## all that must be good before a commit, in less than a minute: format, lint, types, imports, test
	@scripts/test check

bench: ## measure everything in private namespaces, less than ten minutes; see bench/README.md
	$(BIN)/python bench/run.py

bench-smoke: ## the same for a moment: does it work, are the counts right?
	@scripts/test bench

bench-vm: ## what a packet costs and how fast a loss is mended on a kernel with flowtables, in a guest
	@mkdir -p build/bench-vm
	$(BIN)/python -I scripts/vm --seconds 3000 --rw build/bench-vm $(BIN)/python -E -s bench/run.py --only dataplane,failover --out build/bench-vm

lab: ## try polywan without hardware
	@scripts/lab

golden: ## write the golden files anew; read the difference before you commit it
	$(BIN)/pytest tests/golden --update-golden

state-files: ## write the files that this version keeps between two starts; once before each release
	PYTHONPATH=tests $(BIN)/python -m support.state_files

docs: ## write docs/config.md from the descriptions in the code, and docs/licences.md from the installed packages
	$(BIN)/python -m polywan.config.reference.markdown docs/config.md
	$(BIN)/python scripts/supply/licences.py

lock: ## renew the lock files in packaging/; see docs/design/supply.md
	@scripts/lock

audit: ## look for known vulnerabilities in the locked packages
	@scripts/audit

package: ## build the Debian package into dist/; see scripts/package --help
	@scripts/package

clean: ## remove what was made, but for .venv
	rm -rf .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build dist
	find src tests bench scripts -name __pycache__ -type d -prune -exec rm -rf {} +
