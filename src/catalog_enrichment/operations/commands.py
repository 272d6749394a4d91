"""Commands that a job prints for people to run next, quoted for a shell, and the commands that undo a value."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from catalog_enrichment.monitoring.stages import Say, to_stderr
from catalog_enrichment.records import RunStatus

if TYPE_CHECKING:
    from catalog_enrichment.catalog.lake import Catalog

ANY_CONFIG = ("--config", "FILE")
"""Options of a command whose config file is not known."""


def command(job: str, options: Sequence[str], positionals: Sequence[str] = ()) -> str:
    """Return the command line of ``job``. Positional arguments that begin with a dash are not taken for options."""
    separator = ["--"] if any(word.startswith("-") for word in positionals) else []
    return " ".join(map(quoted, [job, *options, *separator, *positionals]))


def quoted(word: str) -> str:
    """Return ``word`` as a single shell word. Control and invisible characters are escaped by $'...' (bash, zsh)."""
    return shlex.quote(word) if word.isprintable() else f"$'{''.join(map(_escaped, word))}'"


def _escaped(character: str) -> str:
    if character in "\\'":
        return f"\\{character}"
    if character.isprintable():
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x80 else f"\\U{code:08x}"


# --- undo -----------------------------------------------------------------------------------------------------------


class OtherValues(NamedTuple):
    """How many values readers see of a run, without those of the product and attribute that are to be undone."""

    of_attribute: int = 0
    """Values of the same attribute."""
    of_attribute_products: int = 0
    of_all: int = 0
    """Values of all attributes."""
    of_all_products: int = 0


@dataclass(frozen=True, slots=True)
class UndoOption:
    does: str
    """What the command does, after "to "."""
    command: str
    other_values: int = 0
    """How many other values readers would not see any more."""
    other_products: int = 0
    """How many products have these values."""

    def in_words(self) -> str:
        if not self.other_values:
            return f"to {self.does}: {self.command}"
        values = f"{self.other_values:,} other value{'s' * (self.other_values > 1)}"
        products = f"{self.other_products:,} product{'s' * (self.other_products > 1)}"
        return f"to {self.does}: {self.command} (takes back {values} of {products}, too)"


def count_others(catalog: Catalog, run_id: str, product_id: str, attribute: str) -> OtherValues:
    """Count what readers see of ``run_id``, without the values of this product and attribute."""
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
    return OtherValues(*(int(number or 0) for number in row or ()))


def with_undo(summary: dict[str, Any], config: Sequence[str] = ANY_CONFIG, say: Say = to_stderr) -> dict[str, Any]:
    """Return the summary of a rollback or a revocation with the commands that undo it as ``undo``, and print them.

    ``undo`` is None after a dry run, and where there was nothing to do. ``config``: options of the commands.
    """
    if summary["status"] != RunStatus.SUCCEEDED:
        return summary | {"undo": None}
    run_ids = summary["run_id"] if isinstance(summary["run_id"], list) else [summary["run_id"]]
    undoing = [command("rollback_run", [*config, "--run-id", run_id]) for run_id in run_ids]
    if "certificate_id" in summary:  # first: a run in between would take the values back again
        on = [*config, "--state", "on", "--reason", "the revocation is undone"]
        undoing.insert(0, command("set_switch", on, ["certificate", summary["certificate_id"]]))
    undo = " && ".join(undoing)
    say(f"to undo this: {undo}")
    return summary | {"undo": undo}


def undo_of_rollback(run_id: str, config: Sequence[str] = ANY_CONFIG) -> UndoOption:
    """Return the command that brings back what the rollback ``run_id`` took."""
    return UndoOption(f"bring back what {run_id} took", command("rollback_run", [*config, "--run-id", run_id]))


def undo_options(
    key: tuple[str, str], run_id: str, by_person: bool, others: OtherValues, config: Sequence[str] = ANY_CONFIG
) -> list[UndoOption]:
    """Return the commands that undo the value of ``key``, a product id and an attribute: the value alone first.

    ``run_id``: the run that gave the value; ``by_person``: a person gave it; ``config``: options of the commands.
    """
    whole_run = command("rollback_run", [*config, "--run-id", run_id])
    if by_person and not others.of_all:
        return [UndoOption("undo what the person said", whole_run)]
    of_attribute = command("rollback_run", [*config, "--run-id", run_id, "--attribute", key[1]])
    options = [
        UndoOption("remove this value alone", command("set_value", [*config, "--remove"], key)),
        UndoOption("correct this value alone", command("set_value", config, [*key, "VALUE"])),
        UndoOption(f"take back {key[1]} in its whole run", of_attribute, *others[:2]),
    ]
    if others.of_all > others.of_attribute:
        options.append(UndoOption("take back its whole run", whole_run, *others[2:]))
    return options
