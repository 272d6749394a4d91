"""Config sections [audit] and [drift]: what people check of what was written, and what every run checks by itself."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditConfig:
    store: str = "review.sqlite"
    """File with the samples and the verdicts of reviewers. Relative paths start at `root`."""
    uniform: int = 200
    """Values per attribute that a sample has of all written ones, each with the same probability: the alarm rests on
    these."""
    near: int = 100
    """Further values per attribute near the threshold, about as many of each value."""
    near_share: float = 0.2
    """The share of an attribute's written values that counts as near the threshold: those with the smallest distance
    between score and threshold."""
    reviewers: int = 2
    """Verdicts of different people that an item needs; where they differ, an adjudicator decides."""

    def __post_init__(self) -> None:
        _within("audit.uniform", self.uniform, 1, 1_000_000)
        _within("audit.near", self.near, 0, 1_000_000)
        _within("audit.near_share", self.near_share, 0.0, 1.0)
        _within("audit.reviewers", self.reviewers, 1, 9)


@dataclass(frozen=True, kw_only=True, slots=True)
class DriftConfig:
    """A stratum is an attribute on one modality path, in one language and first-level category. Where one of its
    numbers differs from the model version's reference by more than the bound, and by more than chance explains, the
    stratum pauses: nothing new is written there until set_switch says otherwise."""

    enabled: bool = True
    """Compare the scores of every run with those that the model version had when it was certified."""
    min_products: int = 200
    """A stratum with fewer products in the run, or in the reference, is not compared."""
    accept_rate_change: float = 0.15
    """Largest difference of the share of products with a score at or above the threshold."""
    histogram_change: float = 0.25
    """Largest population stability index of the top scores, in 20 bins; by custom .1 is small and .25 is large."""
    modality_change: float = 0.15
    """Largest difference of the share of products whose top value changes when the picture is masked, or the text."""
    masked_products: int = 200
    """Products with a picture that a run scores again without it, and once more without the text, at most; 0: none."""

    def __post_init__(self) -> None:
        _within("drift.min_products", self.min_products, 1, 2**31)
        for name in ("accept_rate_change", "modality_change"):
            _within(f"drift.{name}", getattr(self, name), 0.0, 1.0)
        _within("drift.histogram_change", self.histogram_change, 0.0, 100.0)
        _within("drift.masked_products", self.masked_products, 0, 1_000_000)


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name} must lie in [{low:g}, {high:g}], not {value!r}")
