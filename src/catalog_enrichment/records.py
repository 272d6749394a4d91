"""Enumerations that the whole package shares (decisions, modality paths, ledger operations), stable ids, ordered times
and the uses of certification labels.

Imports neither Spark nor torch, so that every room can use it, on the driver and on executors.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, TypeVar


class Decision(StrEnum):
    """The fate of a product's attribute after scoring. A scored product and attribute has a single decision (I7)."""

    PUBLISH = "publish"
    SUGGEST = "suggest"
    ABSTAIN = "abstain"


class Modality(StrEnum):
    """Which inputs the score was computed from. Each path has its own certificates (PRECISION, certificate 5)."""

    BOTH = "both"
    TEXT_ONLY = "text_only"


class Op(StrEnum):
    """The effect of a ledger event. ``retract`` and ``reinstate`` refer to the assert event they act on."""

    ASSERT = "assert"
    RETRACT = "retract"
    REINSTATE = "reinstate"


class Source(StrEnum):
    """Who gave a value, in order of precedence: the merchant, a human reviewer, a model."""

    MERCHANT = "merchant"
    HUMAN = "human"
    MODEL = "model"


class Cardinality(StrEnum):
    """How many values of an attribute one product can have."""

    ONE = "one"
    MANY = "many"


class QuarantineStage(StrEnum):
    """The job stage that sent a row to quarantine: column `stage` of the quarantine table."""

    IMPORT = "import"
    DECODE = "decode"


class RunKind(StrEnum):
    IMPORT = "import"
    IMPORT_PROPOSALS = "import_proposals"
    """Brought in answers that were made elsewhere."""
    ENRICH = "enrich"
    BACKFILL = "backfill"
    ROLLBACK = "rollback"
    SET_VALUE = "set_value"
    DELETE = "delete"
    """Deleted products and what is stored about them."""
    MAINTAIN = "maintain"
    SAMPLE = "sample"
    """Drew a sample for reviewers."""
    AUDIT = "audit"
    """Brought in what reviewers said."""
    REVOKE = "revoke"
    """Took back what a certificate had allowed."""
    RECERTIFY = "recertify"
    """Issued new certificates from audited values."""
    RENAME = "rename"
    """Gave values the names that the dictionary has for them now."""
    CERTIFY = "certify"
    """Issued certificates without training."""


class RunStatus(StrEnum):
    """How an attempt of a run ended (column `status` of the table `runs`)."""

    SUCCEEDED = "succeeded"
    REFUSED = "refused"
    """A gate refused it (GateRefused) before it published anything."""
    FAILED = "failed"
    """An error ended it; what it had published by then is visible. A killed attempt leaves no row."""


PRODUCTS_REMOVED = ("deleted", "gone")
"""Counts in `runs` of the products that an import removed: the source deleted them, or has them no longer."""

NOTHING_TO_DO, DRY_RUN = "nothing_to_do", "dry_run"
"""Statuses of a job's summary that change nothing and leave no row in the `runs` table."""


def stable_hash(*parts: Any) -> str:
    """Return hex SHA-256 over the JSON of ``parts``: equal parts give equal hashes everywhere."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def make_run_id(kind: RunKind, *identity: Any) -> str:
    """Return a run id: the kind and 20 hex digits of the hash of kind and ``identity`` (contract `runs`)."""
    return f"{kind.value}-{stable_hash(kind.value, *identity)[:20]}"


def event_id(run_id: str, product_id: str, attribute: str, value: str, op: Op, refers_to: str = "") -> str:
    """Return a ledger event id: SHA-256 over ``length:text`` of each part, in order. Repeating a run repeats its ids.

    With the lengths (in characters) no two different events join to the same text; Spark SQL computes the same id.
    ``refers_to`` is a part because one run can retract the same value of several earlier runs.
    """
    parts = (run_id, product_id, attribute, value, op.value, refers_to)
    return hashlib.sha256("".join(f"{len(part)}:{part}" for part in parts).encode()).hexdigest()


def strictly_later(now: datetime, newest: datetime | None) -> datetime:
    """Return ``now``, or the first microsecond after ``newest`` if that is later; in UTC.

    Times that are made so are an order that a clock set back does not reverse.
    """
    now = now.astimezone(UTC)
    return now if newest is None else max(now, newest + timedelta(microseconds=1))


ANY_VALUE = "(any value)"
"""Stands for all values of an attribute without a closed list: in the labels of a model's head and in the pool of a
certificate."""


def add_counts(*counts: dict[str, int]) -> dict[str, int]:
    """Return the sum of the counters, name by name, sorted by name."""
    total: dict[str, int] = {}
    for counter in counts:
        for name, number in counter.items():
            total[name] = total.get(name, 0) + number
    return dict(sorted(total.items()))


_Entry = TypeVar("_Entry")

MOST_BYTES = 16_384
"""Bytes that a list of names from a feed has in a summary or in a run's row."""


def within_bytes(entries: Iterable[_Entry], most: int = MOST_BYTES) -> list[_Entry]:
    """Return the first ``entries`` that have, as JSON, at most ``most`` bytes together.

    Their texts come from feeds: a limit of their number alone does not limit the size of a summary.
    """
    found: list[_Entry] = []
    for entry in entries:
        most -= len(json.dumps(entry, ensure_ascii=False, default=str).encode("utf-8", "replace")) + 2
        if most < 0:
            break
        found.append(entry)
    return found


def shortened(lines: Sequence[str], most: int = MOST_BYTES) -> list[str]:
    """Return the ``lines`` :func:`within_bytes`, and a last line that says how many more there are."""
    found = within_bytes(lines, most)
    return found if len(found) == len(lines) else [*found, f"and {len(lines) - len(found):,} more"]


def flatten_keys(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as a dict with dotted keys, as MLflow's params need them."""
    flat: dict[str, Any] = {}
    for name, value in content.items():
        flat |= flatten_keys(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat


GOLD_ROUND = -1
"""Certification round of the uses of gold samples. They are counted apart from those of merchants' labels."""


@dataclass(frozen=True, slots=True)
class LabelUse:
    """A use of certification labels by a candidate (PRECISION, certificate 6)."""

    number: int
    """How many candidates were certified on these labels, this candidate included: at least 1."""
    certification_round: int
    """Number of the certification fold, from 0; the next is drawn of products that never certified."""

    def __post_init__(self) -> None:
        if self.number < 1:
            raise ValueError(f"the number of a label use includes this use, so it is at least 1, not {self.number}")


@dataclass(frozen=True, kw_only=True, slots=True)
class EarlierUses:
    """The uses of certification labels by all earlier candidates, registered or not. Without arguments: none."""

    certification_round: int = 0
    """The newest certification round; 0 where nothing was certified yet."""
    uses: Mapping[str, int] = field(default_factory=dict)
    """Attribute -> the largest number of candidates that used one product's label in that certification round."""
    first_round: Mapping[str, int] = field(default_factory=dict)
    """Product id -> the first certification round in which a label of it was used, of any attribute."""

    def certified_before(self, certification_round: int) -> frozenset[str]:
        """Return the ids of the products that certified, for any attribute, in an earlier certification round."""
        return frozenset(product for product, first in self.first_round.items() if first < certification_round)
