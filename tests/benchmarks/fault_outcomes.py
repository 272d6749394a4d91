"""The outcomes of the faults, added up for the table and the JSON line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

BUG = 1
"""The exit code of an error that nobody foresaw."""


@dataclass(slots=True)
class Outcome:
    """The outcome of a kind of fault."""

    fault: str
    kind: str
    """`job`: kills of whole jobs; `publish`: of the small process; `rows`: hostile rows; `other`: no kill."""
    times: int = 0
    """How often it was done; for rows, how many."""
    equal: int = 0
    """After how many of them the job, run again, ended as an undisturbed job; for rows, how many are accounted for."""
    lost: int = 0
    duplicated: int = 0
    unexplained: int = 0
    """Rows without an outcome or a known reason, and jobs that ended as a bug."""
    exit_codes: dict[int, int] = field(default_factory=dict)
    """Exit code -> how many of the disturbed jobs that ended by themselves."""
    notes: list[str] = field(default_factory=list)

    def ended(self, code: int) -> None:
        self.exit_codes[code] = self.exit_codes.get(code, 0) + 1
        self.unexplained += code == BUG

    def row(self) -> str:
        codes = ", ".join(f"{code} ({n})" for code, n in sorted(self.exit_codes.items())) or "-"
        numbers = f"{self.equal:,} | {self.lost} | {self.duplicated} | {self.unexplained}"
        notes = "; ".join(self.notes[:4]).replace("|", "/").replace("\n", " ")
        return f"| {self.fault} | {self.times:,} | {codes} | {numbers} | {notes} |"


def table(outcomes: Sequence[Outcome]) -> str:
    """The table fault x outcome, in Markdown."""
    head = "| fault | times | exit codes | equal afterwards | lost | duplicated | unexplained | notes |"
    return "\n".join([head, "|---|---|---|---|---|---|---|---|", *[outcome.row() for outcome in outcomes]])


def delta(outcomes: Sequence[Outcome]) -> dict[str, int]:
    """The figures of the JSON line."""

    def total(name: str, *kinds: str) -> int:
        return sum(getattr(outcome, name) for outcome in outcomes if not kinds or outcome.kind in kinds)

    return {
        "kills": total("times", "job"),
        "reruns_equal": total("equal", "job"),
        "publish_kills": total("times", "publish"),
        "publish_equal": total("equal", "publish"),
        "hostile_rows": total("times", "rows"),
        **{name: total(name) for name in ("lost", "duplicated", "unexplained")},
    }
