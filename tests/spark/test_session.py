"""A machine without Java, or with an old version of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from catalog_enrichment.errors import ConfigError
from catalog_enrichment.spark import session


def installed(folder: Path, release: str | None) -> Path:
    """A folder of a Java runtime, whose java does nothing."""
    program = folder / "bin" / "java"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    if release is not None:
        (folder / "release").write_text(f'IMPLEMENTOR="x"\nJAVA_VERSION="{release}"\nOS_NAME="Linux"\n')
    return program


@pytest.mark.parametrize(("release", "major"), [("1.8.0_292", 8), ("11.0.2", 11), ("16.0.1", 16)])
def test_a_java_that_is_too_old_is_refused_with_the_ways_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, release: str, major: int
) -> None:
    installed(tmp_path, release)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(ConfigError, match=rf"is Java {major}\. Spark needs Java 17 or newer.*apt-get install openjdk"):
        session.require_java()


@pytest.mark.parametrize("release", ["17.0.15", "25", None])
def test_a_java_that_is_new_enough_or_does_not_say_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, release: str | None
) -> None:
    program = installed(tmp_path / "jdk", release)
    (tmp_path / "usr").mkdir()
    (tmp_path / "usr" / "java").symlink_to(program)  # as Debian's /usr/bin/java is
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "usr"))
    session.require_java()
    assert "JAVA_HOME" not in os.environ


def test_a_wrong_java_home_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "nosuch"))
    with pytest.raises(ConfigError, match=f"no java in JAVA_HOME={tmp_path}/nosuch"):
        session.require_java()
