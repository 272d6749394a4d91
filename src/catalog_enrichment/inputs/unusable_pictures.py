"""How many products have pictures of which none can be used, and when that is too many to go on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from catalog_enrichment.records import Reason

MIN_TRIED = 20
"""With fewer products with pictures, a share says little: it is a warning at most."""

_HINTS = {
    Reason.IMAGE_MISSING: "Is source.image_folder the right folder, and is it there?",
    Reason.IMAGE_NOT_ALLOWED: "images.fetch says from where pictures may be fetched.",
    Reason.IMAGE_UNREACHABLE: "Do network, DNS, certificates and the store's client work on this machine?",
    Reason.IMAGE_TOO_LARGE: "images.max_bytes and images.max_pixels are the limits.",
}


@dataclass(slots=True)
class UnusablePictures:
    """Counts of products that have pictures."""

    tried: int = 0
    by_reason: Counter[str] = field(default_factory=Counter)
    """Reason -> products without a usable picture."""
    examples: dict[str, str] = field(default_factory=dict)
    """Reason -> detail of the first of these products."""

    def add(self, outcomes: Iterable[tuple[str | None, str]]) -> None:
        """Count products by (reason or None, detail); those without any picture (NO_IMAGE) do not count."""
        for reason, detail in outcomes:
            if reason == Reason.NO_IMAGE:
                continue
            self.tried += 1
            if reason is not None:
                self.by_reason[str(reason)] += 1
                self.examples.setdefault(str(reason), detail)

    @property
    def unusable(self) -> int:
        return self.by_reason.total()

    def too_many(self, max_unusable: float) -> bool:
        """Whether more than this share of at least MIN_TRIED products have no usable picture."""
        return self.tried >= MIN_TRIED and self.unusable > max_unusable * self.tried

    def sentence(self) -> str:
        """How many, the most frequent reason, and an example; "" if all are usable."""
        if not self.by_reason:
            return ""
        [(reason, count)] = self.by_reason.most_common(1)
        hint = _HINTS.get(Reason(reason), "")
        return (
            f"{self.unusable:,} of {self.tried:,} products with pictures have no usable one, most often {reason} "
            f"({count:,}), for example {self.examples[reason]}. {hint}"
        ).rstrip()
