"""The words of the house: decisions, reasons, modality paths, ledger operations, stable ids.

Imports neither Spark nor torch: every room may use it, on every machine.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any


class Decision(StrEnum):
    """What happens to a product's attribute after scoring. Exactly one per scored product and attribute (I7)."""

    PUBLISH = "publish"
    SUGGEST = "suggest"
    ABSTAIN = "abstain"


class Modality(StrEnum):
    """Which inputs the score was computed from. Each path has its own certificates (PRECISION, certificate 5)."""

    BOTH = "both"
    TEXT_ONLY = "text_only"


class Op(StrEnum):
    """What a ledger event does. ``retract`` and ``reinstate`` refer to the assert event they act on."""

    ASSERT = "assert"
    RETRACT = "retract"
    REINSTATE = "reinstate"


class Source(StrEnum):
    """Who stands behind a value, strongest first: the merchant, a human reviewer, a model."""

    MERCHANT = "merchant"
    HUMAN = "human"
    MODEL = "model"


class Cardinality(StrEnum):
    """How many values of an attribute one product can have."""

    ONE = "one"
    MANY = "many"


class Stage(StrEnum):
    """Where a row was sent to quarantine."""

    IMPORT = "import"
    VALIDATE = "validate"
    DECODE = "decode"


class RunKind(StrEnum):
    IMPORT = "import"
    ENRICH = "enrich"
    BACKFILL = "backfill"
    ROLLBACK = "rollback"


SUCCEEDED = "succeeded"
"""Status of a run in the `runs` table: a run gets its row when all of it has landed."""


class Reason(StrEnum):
    """Why a row was quarantined, a picture was not used, a product was skipped, or a value was not written."""

    # quarantine: the row
    UNPARSEABLE_ROW = "unparseable_row"
    MISSING_ID = "missing_id"
    DUPLICATE_ID = "duplicate_id"
    EMPTY_TITLE = "empty_title"
    TEXT_TOO_LONG = "text_too_long"
    SCORING_FAILED = "scoring_failed"
    # a picture that cannot be used: the product takes the text-only path
    NO_IMAGE = "no_image"
    IMAGE_MISSING = "image_missing"
    IMAGE_EMPTY = "image_empty"
    IMAGE_TRUNCATED = "image_truncated"
    IMAGE_NOT_AN_IMAGE = "image_not_an_image"
    IMAGE_TOO_LARGE = "image_too_large"
    IMAGE_UNREADABLE = "image_unreadable"
    # skipped: not scored in this run
    OPTED_OUT = "opted_out"
    NOT_APPLICABLE = "not_applicable"
    SHOP_DISABLED = "shop_disabled"
    ALREADY_SCORED = "already_scored"
    ALREADY_QUARANTINED = "already_quarantined"
    OVER_LIMIT = "over_limit"
    # decisions
    CERTIFIED = "certified"
    DISAGREES_WITH_MERCHANT = "disagrees_with_merchant"
    AGREES_WITH_MERCHANT = "agrees_with_merchant"
    HUMAN_VALUE_STANDS = "human_value_stands"
    NEAR_MISS = "near_miss"
    BELOW_THRESHOLD = "below_threshold"
    VALUE_NOT_IN_POOL = "value_not_in_pool"
    NO_CERTIFICATE = "no_certificate"
    CERTIFICATE_MISMATCH = "certificate_mismatch"
    CERTIFICATE_EXPIRED = "certificate_expired"
    UNSEEN_SLICE = "unseen_slice"
    # ledger events that no assertion explains
    CONTENT_CHANGED = "content_changed"
    ROLLED_BACK = "rolled_back"


def stable_hash(*parts: Any) -> str:
    """Hex SHA-256 over the JSON of ``parts``: equal inputs give equal ids on every machine and every day."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def make_run_id(kind: RunKind, *identity: Any) -> str:
    """Run id: the kind, then 20 hex digits of the hash of what makes the run the run it is (contract `runs`)."""
    return f"{kind.value}-{stable_hash(kind.value, *identity)[:20]}"


def event_id(run_id: str, product_id: str, attribute: str, value: str, op: Op, refers_to: str = "") -> str:
    """Ledger event id: SHA-256 over ``length:text`` of each part, in order. Repeating a run repeats its ids.

    Lengths (in characters) keep apart what plain joining would confuse, and Spark SQL can compute the same id.
    ``refers_to`` is a part because one run may take the same value back from several earlier runs.
    """
    parts = (run_id, product_id, attribute, value, op.value, refers_to)
    return hashlib.sha256("".join(f"{len(part)}:{part}" for part in parts).encode()).hexdigest()


def add_counts(*counts: dict[str, int]) -> dict[str, int]:
    """Counters merge by addition, so that a chunk's report and the whole backfill's are one code path."""
    total: dict[str, int] = {}
    for name, number in _pairs(counts):
        total[name] = total.get(name, 0) + number
    return dict(sorted(total.items()))


def _pairs(counts: Iterable[dict[str, int]]) -> Iterable[tuple[str, int]]:
    for one in counts:
        yield from one.items()


def flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as dotted names: what MLflow calls params."""
    found: dict[str, Any] = {}
    for name, value in content.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return found
