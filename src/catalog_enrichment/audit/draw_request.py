"""What a caller asks of audit_sample: which population, how many rows, by which probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from catalog_enrichment.audit.items import Purpose
from catalog_enrichment.errors import ConfigError

if TYPE_CHECKING:
    from catalog_enrichment.config.audit import AuditConfig
    from catalog_enrichment.dictionary import Dictionary


class Population(StrEnum):
    """What a sample is drawn of."""

    ACCEPTED = "accepted"
    """Written values that readers see."""
    SUGGESTIONS = "suggestions"
    """Open suggestions: disagreements with merchants and near misses."""
    ABSTENTIONS = "abstentions"
    """Products without a value whose score was too low."""
    PROPOSALS = "proposals"
    """The values that one model version proposes for products without a value, whatever was decided."""
    GOLD = "gold"
    """Products without a merchant value, with all attributes that they lack."""


PURPOSES = {
    Population.ACCEPTED: Purpose.AUDIT,
    Population.SUGGESTIONS: Purpose.LABEL,
    Population.ABSTENTIONS: Purpose.LABEL,
    Population.PROPOSALS: Purpose.PROPOSALS,
    Population.GOLD: Purpose.GOLD,
}
"""Population -> the purpose of a sample of it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DrawRequest:
    """What was asked for."""

    population: Population = Population.ACCEPTED
    run_id: str | None = None
    """Only what this run wrote or decided; None: all."""
    attributes: tuple[str, ...] = ()
    """None: every attribute of the dictionary."""
    uniform: int
    """How many values are drawn per attribute; for proposals how many products per attribute, for a gold sample how
    many products."""
    near: int
    near_share: float
    reviewers: int
    seed: int = 0
    """Another one draws another sample of the same catalog."""
    whole_products: bool = False
    """Also the other written values of each product of the uniform stratum."""
    model_version: str | None = None
    """The version whose proposals are drawn; None stands for the version that made the newest decision."""
    lowest: float = 0.0
    """The lowest score of a proposal that is drawn."""

    @classmethod
    def of(cls, config: AuditConfig, **given: Any) -> DrawRequest:
        """The config's numbers where ``given`` has None."""
        usual = {name: getattr(config, name) for name in ("uniform", "near", "near_share", "reviewers")}
        return cls(**usual | {name: value for name, value in given.items() if value is not None})

    @property
    def purpose(self) -> Purpose:
        return PURPOSES[self.population]

    def identity(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__} | {"purpose": self.purpose.value}

    def check(self, dictionary: Dictionary) -> None:
        """Raises ConfigError for an unknown attribute or a number that cannot be."""
        if unknown := sorted(set(self.attributes) - set(dictionary.attributes)):
            raise ConfigError(f"{unknown} is not in the dictionary, which has {sorted(dictionary.attributes)}")
        if self.population is Population.GOLD and self.uniform < 1:
            raise ConfigError(f"--gold must be at least 1, not {self.uniform}")
        if self.uniform < 1 or self.near < 0 or self.reviewers < 1:
            raise ConfigError("--uniform and --reviewers must be at least 1, --near at least 0")
        if self.whole_products and self.population is not Population.ACCEPTED:
            raise ConfigError(f"--whole-products is for written values, not for {self.population.value}")
        if self.run_id and self.population in (Population.GOLD, Population.PROPOSALS):
            raise ConfigError(
                f"--run is not for {self.population.value}: such a sample is drawn of all products without a value, "
                "and not of those that one run decided"
            )
        if self.population is not Population.PROPOSALS and (self.model_version or self.lowest):
            raise ConfigError("--model-version and --lowest are for --of proposals")
        if not 0 <= self.lowest <= 1:
            raise ConfigError(f"--lowest must lie in [0, 1], as scores do, not {self.lowest}")

    def names(self, dictionary: Dictionary) -> tuple[str, ...]:
        """Return the attributes to draw. Raises ConfigError for a gold sample of an attribute that is not enabled."""
        if self.population is not Population.GOLD:
            return self.attributes or tuple(dictionary.attributes)
        if off := sorted(set(self.attributes) - set(dictionary.enabled)):
            raise ConfigError(f"{off} is not enabled in the dictionary: nothing is predicted, and nothing to be asked")
        if not dictionary.enabled:
            raise ConfigError("no attribute of the dictionary is enabled: there is nothing to ask for")
        return tuple(name for name in dictionary.enabled if name in (self.attributes or dictionary.enabled))
