"""Virtual environments with a part of the installed packages: what pip would install for a list of requirements.

Nothing is downloaded: a package is a link to the running environment's. Neither the repository nor any other package
can be imported there.
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]


def requirements(*extras: str) -> list[str]:
    """Return what the distribution needs with ``extras``, as pyproject.toml says now."""
    return [*PROJECT["dependencies"], *(text for extra in extras for text in EXTRAS[extra])]


def needed_by(texts: Iterable[str]) -> dict[str, Distribution]:
    """Return name -> installed distribution of all that pip installs for these requirements."""
    found: dict[str, Distribution] = {}
    waiting = [(Requirement(text), "") for text in texts]
    seen = set()
    while waiting:
        requirement, extra = waiting.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        for wanted in ("", *requirement.extras):
            if (name, wanted) not in seen:
                seen.add((name, wanted))
                found[name] = distribution(name)
                waiting += [(Requirement(text), wanted) for text in found[name].requires or []]
    return found


def environment(folder: Path, texts: Iterable[str]) -> Path:
    """Make a virtual environment in ``folder`` with the packages that ``texts`` need; return its Python."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    for found in needed_by(texts).values():
        for name in {file.parts[0] for file in found.files or []} - {"..", "__pycache__"}:
            link, target = site / name, Path(str(found.locate_file(name)))
            if not link.exists() and target.exists():
                link.symlink_to(target)
    return folder / "bin" / "python"
