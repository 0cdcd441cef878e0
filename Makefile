# Every task a person runs, by name. `make` without one lists them.

SHELL := bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

BASE := base_images/basefs.tar.gz
EXAMPLES := base_images/examples.tar
MOUNTABLES := $(patsubst images/%,mountables/%.tar,$(wildcard images/*))
INSTALLED := .venv/installed
BROWSER := .venv/browser
# PORT: that of the manager; 8080 if none is given. One in the environment means something else.
PORT :=
ROOT := scripts/as-root

.PHONY: help install download mountables manager stop clean test lint \
        api_tests cli_tests oci_tests ui_tests swarm_tests swarm_round vendor bench hostile soak endurance torture matrix lowest packages coverage wheel \
        peers \
        pictures examples examples_tests lessons_tests roots_tests demo demo-cluster demo-clean \
        install-service uninstall-service has-systemd

help: ## list these targets
	@sed -nE 's/^([a-z_-]+):.*## (.*)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 24

install: packages $(INSTALLED) ## install the packages and the Python environment that are missing

packages:
	@scripts/packages

$(INSTALLED): pyproject.toml scripts/make-venv | packages
	@scripts/step venv "Making the Python environment (.venv)" scripts/make-venv .venv
	@touch $@

download: $(BASE) ## make the base image once, or fetch it: BASE_URL=... BASE_SHA256=...
	@echo "$(BASE) is there."

ifdef BASE_URL
.PHONY: $(BASE)
$(BASE):
	@scripts/fetch "$(BASE_URL)" "$(BASE_SHA256)" $@
else
$(BASE): | packages
	@$(ROOT) scripts/step base "Making the base image ($@)" scripts/make-basefs $@
endif

mountables: ## make the mountable tarballs from images/ again
	@scripts/make-mountables $(MOUNTABLES)

# Those that are there stay as they are: they may be a person's own.
$(MOUNTABLES):
	@scripts/make-mountables $@

manager: install $(BASE) $(MOUNTABLES) ## start the manager on http://localhost:8080, or PORT=9090
	@$(ROOT) scripts/manager start $(PORT)

# Without state/ there is nothing to do, and so no need to be root.
stop: ## stop the manager; its containers go on running
	@if [ -e state ]; then $(ROOT) scripts/manager stop; fi

clean: ## remove all stacks and containers, stop the manager, remove the configs it stored
	@if [ -e state ]; then $(ROOT) scripts/demo close && $(ROOT) scripts/manager clean; fi

examples: install $(EXAMPLES) ## make the image and the tarball of examples/
	@scripts/make-mountables mountables/examples.tar

$(EXAMPLES): | packages
	@$(ROOT) scripts/step examples "Making the image of the examples ($@)" examples/make-image $@

demo: examples ## open the shop of examples/ on http://localhost:8000, until Ctrl-C
	@$(ROOT) scripts/demo open $(PORT)

demo-cluster: install ## three hosts on this machine, each with a Docker, and a shell beside them (docker.io, docker-registry)
	@$(ROOT) scripts/demo-cluster

demo-clean: ## close it, and remove all that it has made
	@if [ -e state ]; then $(ROOT) scripts/demo close; fi

install-service: has-systemd install $(BASE) $(MOUNTABLES) ## have systemd run the manager, from this folder, at each boot
	@$(ROOT) scripts/service install

uninstall-service: ## end that; its containers go on running
	@$(ROOT) scripts/service uninstall

has-systemd:
	@scripts/service check

$(BROWSER): $(INSTALLED)
	@scripts/packages browser
	@scripts/step browser "Installing what drives a browser" scripts/make-venv .venv browser
	@touch $@

# Not for each who runs the tests: the packages of Docker and Prometheus start services.
peers: ## install other programs that tests compare with: skopeo, umoci, buildah, a registry, Docker, Podman, Prometheus
	@scripts/packages peers

test: install $(BROWSER) $(BASE) $(MOUNTABLES) ## run all tests
	@$(ROOT) .venv/bin/python -m twisted.trial -j2 tests

lowest: install ## run the tests that need no real containers, with the lowest packages that are allowed
	@$(ROOT) .venv/bin/python -m tests.matrix lowest

matrix: install ## the same on several Pythons, in containers: PYTHONS="3.13 /path/of/a/python3.10", or all
	@$(ROOT) .venv/bin/python -m tests.matrix $(PYTHONS)

lint: install ## check the style, the format and the types
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check --quiet .
	@.venv/bin/mypy
	@! command -v node >/dev/null || for file in txcontain/ui/*.js; do \
	    node --check --input-type=module <$$file || exit 1; done

api_tests: install $(BASE) $(MOUNTABLES) ## test the REST API, from a clean start to a clean end
	@$(ROOT) scripts/contract-tests rest

cli_tests: install $(BASE) $(MOUNTABLES) ## test the CLI, from a clean start to a clean end
	@$(ROOT) scripts/contract-tests cli

oci_tests: install peers ## run images of buildah, skopeo and a registry, which it starts on loopback
	@$(ROOT) .venv/bin/python -m twisted.trial -j2 tests.integration.test_images tests.integration.test_oci

ui_tests: install $(BROWSER) ## test the web page in a real browser; SCREENSHOTS=1: take those of docs/pictures
	@$(ROOT) .venv/bin/python -m twisted.trial tests.integration.test_screen

# Not part of `test`: it takes a few minutes, most of them Docker's when it ends containers.
swarm_tests: install ## test the engine of many hosts with real Docker Swarms of one and of four nodes (docker.io, docker-registry)
	@$(ROOT) scripts/swarm-tests

swarm_round: install ## the most important of it, with three nodes, in two or three minutes
	@$(ROOT) timeout --kill-after=60 600 scripts/swarm-tests round

vendor: ## fetch the libraries of the web page anew, with npm
	@scripts/vendor

examples_tests: examples ## run the examples for real, and kill the manager meanwhile
	@$(ROOT) .venv/bin/python -m twisted.trial tests.examples

lessons_tests: install $(BASE) ## run each command of docs/lessons/ for real, and compare what it writes
	@$(ROOT) .venv/bin/python -m twisted.trial tests.lessons

roots_tests: install ## compare whole roots of Debian 12 and 13 with what is in a container of them
	@$(ROOT) .venv/bin/python -m twisted.trial tests.roots

bench: install $(BASE) $(MOUNTABLES) ## measure how fast it is
	@$(ROOT) .venv/bin/python -m bench

coverage: install $(BROWSER) $(BASE) $(MOUNTABLES) ## run all tests, and tell which lines and branches they leave out; at most 5 %
	@$(ROOT) scripts/coverage

pictures: install ## draw the pictures of docs/architecture.md, and the list of docs/walls.md, from the code
	@.venv/bin/python scripts/make-pictures

wheel: install ## build a wheel of this version into dist/
	@rm -rf build dist
	@.venv/bin/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .
	@rm -rf build
	@ls dist/*.whl

hostile: install $(BASE) $(MOUNTABLES) ## measure what a caller notices of attacks: ATTACK=keys, or all
	@$(ROOT) .venv/bin/python -m bench.hostile $(ATTACK)

soak: install $(BASE) $(MOUNTABLES) ## launch and destroy for a long time, and look for what is left
	@$(ROOT) .venv/bin/python -m tests.soak

endurance: install $(BASE) $(MOUNTABLES) ## launch and destroy 1,000 times, kill 100 managers: logs are bounded and whole
	@$(ROOT) .venv/bin/python -m tests.endurance

torture: install $(BASE) $(MOUNTABLES) ## have system calls of the manager fail, for TORTURE_SECONDS
	@TORTURE_SEED=$${TORTURE_SEED:-$$RANDOM} TORTURE_SECONDS=$${TORTURE_SECONDS:-1800} $(ROOT) .venv/bin/python -m twisted.trial tests.integration.test_torture
