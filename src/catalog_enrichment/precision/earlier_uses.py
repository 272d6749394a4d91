"""What is known of earlier certifications when a new certification fold may be drawn (PRECISION, certificate 6)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

GOLD_ROUND = -1
"""CertificationRound of the uses of gold samples. They are counted apart from those of merchants' labels."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EarlierUses:
    """The uses of certification labels by all earlier candidates, registered or not. Without arguments: none."""

    certification_round: int = 0
    """The newest certification round; 0 where nothing was certified yet."""
    uses: Mapping[str, int] = field(default_factory=dict)
    """Attribute -> the largest number of candidates that used one product's label in that certification_round."""
    first_round: Mapping[str, int] = field(default_factory=dict)
    """Product id -> the first certification round in which a label of it was used, of any attribute."""

    def certified_before(self, certification_round: int) -> frozenset[str]:
        """Ids of the products that certified, for any attribute, in a certification round before ``certification_round``."""
        return frozenset(product for product, first in self.first_round.items() if first < certification_round)
