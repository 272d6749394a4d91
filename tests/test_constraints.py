"""Everything that is installed is pinned and has hashes, and a build says what it was built with."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import tomllib
from importlib.metadata import distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MAKEFILE = (ROOT / "Makefile").read_text()
BLOCKS = [block.split(" \\\n    ") for block in re.split(r"\n(?=\S)", (ROOT / "constraints.txt").read_text().strip())]
"""A pin and its hashes for each package."""
PINS = [Requirement(pin) for pin, *_ in BLOCKS]
"""Several for a package whose newest version some of the supported Pythons cannot use."""


def test_every_pin_is_a_version_with_hashes_and_names_no_host() -> None:
    assert len(BLOCKS) > 200
    for pin, (_, *hashes) in zip(PINS, BLOCKS, strict=True):
        assert [specifier.operator for specifier in pin.specifier] == ["=="]
        assert pin.url is None
        assert hashes
        assert [given for given in hashes if not re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", given)] == []


def test_every_dependency_is_pinned_within_its_bounds() -> None:
    extras = PROJECT["optional-dependencies"].values()
    wanted = [Requirement(text) for texts in (PROJECT["dependencies"], *extras) for text in texts]
    for requirement in wanted:
        if requirement.name != PROJECT["name"]:
            name = canonicalize_name(requirement.name)
            versions = [specifier.version for pin in PINS if pin.name == name for specifier in pin.specifier]
            assert versions, requirement
            assert all(map(requirement.specifier.contains, versions)), requirement


def test_setup_verifies_the_hashes_of_all_that_it_installs() -> None:
    pinned = re.search(r"^PINNED := (.+)$", MAKEFILE, re.MULTILINE)
    assert pinned
    wanted = ["--verify-hashes", "--constraint", "constraints.txt", "--build-constraint", "constraints.txt"]
    assert pinned[1].split() == wanted
    (recipe,) = re.findall(r"^\$\(READY\):.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)
    installs = [line for line in recipe.splitlines() if "pip install" in line]
    assert len(installs) == 2
    assert all("--require-hashes" in line or "$(PINNED)" in line for line in installs)
    assert "--generate-hashes" in MAKEFILE


@pytest.mark.slow
def test_a_build_lists_what_is_installed(tmp_path: Path) -> None:
    command = re.search(r"^\t\$\(BIN\)/cyclonedx-py (.+)$", MAKEFILE, re.MULTILINE)
    assert command
    file = tmp_path / "sbom.json"
    written = command[1].replace("dist/sbom.cdx.json", str(file)).replace("$(BIN)/python", sys.executable)
    subprocess.run([sys.executable, "-m", "cyclonedx_py", *shlex.split(written)], cwd=ROOT, check=True)
    sbom = json.loads(file.read_text())
    assert sbom["metadata"]["component"]["name"] == PROJECT["name"]
    installed = {canonicalize_name(found.metadata["Name"]): found.version for found in distributions()}
    listed = {canonicalize_name(part["name"]): part["version"] for part in sbom["components"]}
    pinned = {pin.name for pin in PINS} & installed.keys()
    assert {name: listed.get(name) for name in pinned} == {name: installed[name] for name in pinned}
    assert sum(bool(part.get("licenses")) for part in sbom["components"]) > 0.9 * len(listed)
