"""A small config file."""

from __future__ import annotations

from pathlib import Path

import pytest

MINIMAL = """
[catalog]
path = "catalog"
dictionary = "schemas:attributes/demo.v1.json"
[mlflow]
tracking_uri = "sqlite:///mlflow.db"
[training]
recipe = "recipes:demo.toml"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "config.toml").write_text(MINIMAL)
    return tmp_path / "config.toml"
