"""The shares of the folds into which labelled products are divided."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class FoldsConfig:
    """Shares of the labelled content groups; they must sum to 1."""

    train: float = 0.48
    """The weights are fitted on it."""
    choosing: float = 0.10
    """Everything that is chosen is chosen on it: the epoch, lambda, the late fusion's weights, models and recipes, the
    temperature, the pool of values, the suggestion threshold, the first threshold of the certification."""
    certification: float = 0.34
    """The certification uses it, once per candidate (PRECISION, certificate 6)."""
    test: float = 0.08
    """Not used to fit, choose or certify; gives the metrics in the report."""
    seed: int = 0
    """Another seed draws other folds."""
    stratify: bool = False
    """Iterative stratification of the content groups over all values (De la Comble et al. 2022, section 5; Sechidis et
    al. 2011) instead of a hash: rare values are in every fold, but added products may move others to another fold."""

    def __post_init__(self) -> None:
        shares = (self.train, self.choosing, self.certification, self.test)
        if min(shares[1:]) <= 0 or self.train < 0 or abs(sum(shares) - 1) > 1e-6:
            raise ValueError(f"folds must be positive and sum to 1, not {shares} (sum {sum(shares):g})")
