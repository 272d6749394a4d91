"""A small config file."""

from __future__ import annotations

from pathlib import Path

import pytest

from ..config_texts import WITH_DEMO_DICTIONARY

MINIMAL = f"""{WITH_DEMO_DICTIONARY}[training]
recipe = "recipes:demo.toml"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "config.toml").write_text(MINIMAL)
    return tmp_path / "config.toml"
