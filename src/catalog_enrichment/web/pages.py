"""HTML pages, of the reports and of the review server: the Jinja environment and the formatters of both.

Titles and values are untrusted input: templates escape every value, and control characters are replaced.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment

_REPLACED = {code: "\N{REPLACEMENT CHARACTER}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}
"""Control characters, which HTML does not allow -> the replacement character."""


def render(folder: str, template: str, values: Mapping[str, Any]) -> bytes:
    """Return the page of ``template`` in UTF-8. ``folder``: of the templates, a path inside this package."""
    text = _environment(folder).get_template(template).render(values).translate(_REPLACED)
    return text.encode("utf-8", errors="replace")  # a lone surrogate cannot be encoded


def write(path: Path, page: bytes) -> Path:
    """Write ``page`` to ``path`` atomically and return ``path``. Its folder is created."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".part")
    unfinished.write_bytes(page)
    return unfinished.replace(path)


@cache
def _environment(folder: str) -> Environment:
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    templates = files("catalog_enrichment").joinpath(*folder.split("/"))
    environment = Environment(
        loader=FunctionLoader(lambda name: (templates / name).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=number, percent=percent, when=when, words=words)
    return environment


def number(value: float | None) -> str:
    """Return the number with thousands separators; a small number that is not whole with a decimal."""
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.1f}" if value < 10 else f"{value:,.0f}"


def percent(share: float | None, decimals: int = 1) -> str:
    return "–" if share is None else f"{share:.{decimals}%}"


def when(time: datetime | str | None) -> str:
    """Return a time in UTC, to the minute. ``time``: a string in ISO format; without a zone, the machine's time."""
    if not time:
        return "–"
    moment = datetime.fromisoformat(time) if isinstance(time, str) else time
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def words(name: str) -> str:
    return name.replace("_", " ")
