"""A lock whose holder slept past its lease: what it guards must not be written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from catalog_enrichment.errors import TemporaryFailure

WHY = "no sign of life"


@contextmanager
def lost_lock(*_: Any) -> Iterator[Callable[[], None]]:
    """Stands for `catalog.locked` and `Store.promoting`: the function that it yields refuses."""

    def lost() -> None:
        raise TemporaryFailure(WHY)

    yield lost
