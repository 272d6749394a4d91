"""The commands that take a value back: the one value first, then all that its run wrote, with how much that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from catalog_enrichment.operations.commands import ANY_CONFIG, command
from catalog_enrichment.operations.lookup import PersonSet

if TYPE_CHECKING:
    from catalog_enrichment.catalog.base import Catalog


class Others(NamedTuple):
    """Values that readers see of a run, beside those of one product and attribute."""

    attribute_values: int = 0
    """Of the same attribute."""
    attribute_products: int = 0
    values: int = 0
    """Of all attributes."""
    products: int = 0


@dataclass(frozen=True, slots=True)
class UndoOption:
    does: str
    """What the command does, after "to "."""
    command: str
    other_values: int = 0
    """How many other values readers would not see any more."""
    other_products: int = 0
    """Of how many products."""

    def in_words(self) -> str:
        if not self.other_values:
            return f"to {self.does}: {self.command}"
        values = f"{self.other_values:,} other value{'s' * (self.other_values > 1)}"
        products = f"{self.other_products:,} product{'s' * (self.other_products > 1)}"
        return f"to {self.does}: {self.command} (takes back {values} of {products}, too)"


def run_to_undo(current: Mapping[str, Any] | None, person: PersonSet | None) -> str | None:
    """The run that gave what readers see, or by which a person said that there is no value; None: no run did.

    ``current``: the row of `current_values`.
    """
    if current is not None:
        run_id: str | None = current["run_id"]
        return run_id
    return person.run_id if person is not None and not person.values else None


def others_of(catalog: Catalog, run_id: str, product_id: str, attribute: str) -> Others:
    """What readers see of ``run_id`` beside the values of this product and attribute."""
    from pyspark.sql import functions as F

    same = F.col("attribute") == attribute
    values = F.size("values")
    row = (
        catalog.read("current_values")
        .where((F.col("run_id") == run_id) & ~((F.col("product_id") == product_id) & same))
        .agg(
            F.sum(F.when(same, values)),
            F.count_distinct(F.when(same, F.col("product_id"))),
            F.sum(values),
            F.count_distinct("product_id"),
        )
        .first()
    )
    return Others(*(int(number or 0) for number in row or ()))


def undo_options(
    key: tuple[str, str], run_id: str, by_person: bool, others: Others, config: Sequence[str] = ANY_CONFIG
) -> list[UndoOption]:
    """How to take back what stands about ``key``, a product id and an attribute; the one value first.

    ``run_id``: :func:`run_to_undo`; ``by_person``: whether a person ran it; ``config``: options of the commands.
    """
    whole_run = command("rollback_run", [*config, "--run-id", run_id])
    if by_person and not others.values:
        return [UndoOption("undo what the person said", whole_run)]
    of_attribute = command("rollback_run", [*config, "--run-id", run_id, "--attribute", key[1]])
    ways = [
        UndoOption("remove this value alone", command("set_value", [*config, "--remove"], key)),
        UndoOption("correct this value alone", command("set_value", config, [*key, "VALUE"])),
        UndoOption(f"take back {key[1]} in its whole run", of_attribute, *others[:2]),
    ]
    if others.values > others.attribute_values:
        ways.append(UndoOption("take back its whole run", whole_run, *others[2:]))
    return ways
