"""A machine without Java, or with an old version of it; the options of the JVM that a session starts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from catalog_enrichment.errors import ConfigError
from catalog_enrichment.spark import session

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


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


def test_the_jvm_that_a_session_starts_has_room_for_the_metadata_of_its_classes(tmp_path: Path) -> None:
    (tmp_path / "attributes.json").write_text('{"attributes": []}')
    (tmp_path / "config.toml").write_text(
        '[catalog]\npath = "catalog"\ndictionary = "attributes.json"\n[mlflow]\ntracking_uri = "sqlite:///mlflow.db"\n'
        '[spark]\nmaster = "local[1]"\n'
        '[spark.conf]\n"spark.driver.extraJavaOptions" = "-Dof.the.user=1"\n'
    )
    code = (
        "import json\nfrom catalog_enrichment.config.load import load_config\n"
        "from catalog_enrichment.spark import session\n"
        "started = session.start(load_config('config.toml'), 'test')\n"
        "management = started._jvm.java.lang.management.ManagementFactory\n"
        "print(json.dumps(list(management.getRuntimeMXBean().getInputArguments())))\n"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    options = json.loads(found.stdout.splitlines()[-1])
    assert {session._JAVA_OPTIONS, "-Dof.the.user=1"} <= set(options)


def test_pyspark_does_not_look_for_the_functions_of_columns_in_every_jar(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    from py4j.java_gateway import JVMView
    from pyspark.sql import functions as F

    looked_up, look_up = list[str](), JVMView.__getattr__

    def recorded(view: Any, name: str) -> Any:
        looked_up.append(name)
        return look_up(view, name)

    monkeypatch.setattr(JVMView, "__getattr__", recorded)
    F.coalesce("a", F.lit(1), F.col("a") == ~F.col("b"))
    assert looked_up == []
    assert spark.sparkContext._jvm.java
    assert looked_up == ["java"]
