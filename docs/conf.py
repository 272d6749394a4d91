"""Sphinx: the pages of this folder, docs/reference/ made again from the code, and the repository's own documents."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import reference_pages

ROOT = Path(__file__).resolve().parents[1]
REPOSITORY_PAGES = {
    "repository/readme": "README.md",
    "repository/runbook": "deploy/RUNBOOK.md",
    "repository/contributing": "CONTRIBUTING.md",
    "repository/changelog": "CHANGELOG.md",
    "repository/examples": "examples/README.md",
    "measurements/results": "tests/benchmarks/README.md",
}
"""Page -> document of the repository whose text it shows."""

project = "catalog-enrichment"
extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = project
html_show_sphinx = False
myst_enable_extensions: list[str] = []
myst_heading_anchors = 3
default_role = "code"  # single backticks in docstrings
autodoc_default_options = {"members": True, "undoc-members": True, "member-order": "bysource"}
autodoc_typehints = "signature"
autodoc_preserve_defaults = True


def show_repository_document(_: Any, page: str, source: list[str]) -> None:
    """Fill a page of REPOSITORY_PAGES, and make links between documents links between pages; pictures stay."""
    file = ROOT / REPOSITORY_PAGES.get(page, f"docs/{page}.md")
    if page in REPOSITORY_PAGES:
        source[0] = file.read_text(encoding="utf-8")
    folder = (ROOT / "docs" / page).parent
    source[0] = re.sub(
        r"!\[([^\]]*)\]\((?!https?:)([^)\s]+)\)",
        lambda match: f"![{match[1]}]({os.path.relpath((file.parent / match[2]).resolve(), folder)})",
        source[0],
    )
    source[0] = re.sub(
        r"(?<!!)\[([^\]\[]*)\]\((?!https?:|#)([^)#\s]+)(#[^)\s]*)?\)",
        lambda match: _link(match[1], (file.parent / match[2]).resolve(), match[3] or "", page),
        source[0],
    )


def _link(text: str, target: Path, anchor: str, page: str) -> str:
    """A link to the page that shows ``target``; the text alone where none does."""
    if not target.exists():
        raise FileNotFoundError(f"{page}: a link to {target}, which does not exist")
    shown = {ROOT / document: f"{other}.md" for other, document in REPOSITORY_PAGES.items()}
    if target.is_relative_to(ROOT / "docs"):
        shown[target] = str(target.relative_to(ROOT / "docs"))
    if target not in shown:
        return text
    return f"[{text}]({os.path.relpath(shown[target], Path(page).parent)}{anchor})"


def setup(app: Any) -> None:
    reference_pages.main([])
    app.connect("source-read", show_repository_document)
