"""What a sink is: a table outside of the catalog, to which the steps of the feed are applied exactly once.

The rule that every sink keeps: the rows of a step and the position that it leads to become visible together, and only
if the sink is still at the position that the step starts at. A job that is killed anywhere then leaves the step before
or the step after, and of two deliveries the second one applies nothing.

:mod:`catalog_enrichment.delivery.deliver` has the list of kinds. A new kind is a module with the functions of
:class:`SinkKind`, a class with the methods of :class:`Sink`, and its settings in `[delivery]`.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from catalog_enrichment.delivery.feed import Position, Step
from catalog_enrichment.errors import TemporaryFailure

if TYPE_CHECKING:
    import pyarrow as pa

    from catalog_enrichment.config.operations import DeliveryConfig

MOST_NAMED = 100
"""Rows left out that a step names."""

_NAME_CHARACTERS = 200
"""Characters of an id, an attribute and a sink's answer that name a row left out."""


@dataclass(slots=True)
class Applied:
    """The rows that a step changed in the sink; a row is a product's attribute."""

    staged: int = 0
    """All changes of the step."""
    upserted: int = 0
    deleted: int = 0
    skipped: int = 0
    """Rows that the sink refuses."""
    skipped_rows: list[dict[str, str]] = field(default_factory=list)
    """The first MOST_NAMED of them: product_id, attribute, why."""

    def skip(self, product_id: str, attribute: str, why: str) -> None:
        """Count and name a row that is left out."""
        self.skipped += 1
        if len(self.skipped_rows) < MOST_NAMED:
            names = {"product_id": product_id, "attribute": attribute, "why": why}
            self.skipped_rows.append({name: text[:_NAME_CHARACTERS] for name, text in names.items()})

    def numbers(self) -> dict[str, int]:
        return {name: number for name, number in asdict(self).items() if name != "skipped_rows"}


class Sink(Protocol):
    """An open sink. Its errors are this program's: ConfigError, DataContractError, TemporaryFailure."""

    def check(self) -> None:
        """Raise DataContractError unless the tables are those of this program, ConfigError for wrong rights."""

    def position(self) -> Position | None:
        """Return the position of what the sink holds; None if nothing was delivered yet."""

    def status(self) -> dict[str, Any]:
        """Return ``moved_at``, when the position was moved (ISO 8601 or None), and ``about_rows``."""

    def apply(self, step: Step, since: Position | None, batches: Iterable[pa.RecordBatch]) -> Applied:
        """Apply the ``batches`` of ``step`` to a sink at the position ``since``, all of them or none.

        The batches have the columns of differences.SCHEMA, each product and attribute at most once, ordered by both
        unless the step starts at feed's NOTHING. A step with a ``snapshot`` replaces everything that the sink has. A
        step without rows moves the position. A row that is the same in the sink is not written, and keeps its version.
        Raises TemporaryFailure, with nothing applied, if another delivery is at work or has moved the position.
        """


class SinkKind(Protocol):
    """The functions of a module that implements a kind of sink."""

    def where(self, config: DeliveryConfig) -> str:
        """Return the place without user and password; empty if the config names none."""

    def opened(self, config: DeliveryConfig) -> AbstractContextManager[Sink]:
        """Open the sink; inside the block foreign errors are raised as this program's."""

    def migrate(self, config: DeliveryConfig) -> tuple[str | None, str]:
        """Make or change the sink's tables; return their revisions before and after."""


def moved(since: Position | None, found: Position | None) -> TemporaryFailure:
    """Return the error for a sink that is no longer at ``since``, but at ``found``, if that is known."""
    now = f", now it is at {found}" if found else ""
    return TemporaryFailure(
        f"the table was at position {since or 'none'} when this delivery began{now}: another delivery or program "
        "changed it. Nothing was applied; run again"
    )
