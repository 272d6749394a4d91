"""The config's `[compare]` section: which models are trained beside each other, and in which tables they stand."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

REFERENCES = ("reference_text", "reference_image", "reference_both")
"""Models of every comparison that no recipe describes; see `training/reference.py`."""

Metric = Literal[
    "accuracy", "f1_micro", "f1_macro", "f1_weighted", "f1_head", "f1_tail", "r_at_p95_micro", "r_at_p95_macro"
]  # fmt: skip
TableKind = Literal["plain", "modalities", "mergers", "label_shares"]

_RESERVED = ("job", "status", "exit_code", "error", "message", "report", "markdown", "mlflow_run_id")
"""Keys of the job's summary, in which every model stands under its own name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CompareRecipe:
    """One model. Either a recipe, or `members`: models of this list whose votes are counted."""

    name: str
    recipe: str = ""
    """`recipes:NAME.toml` or a path, of one model or of an ensemble; empty: `training.recipe`."""
    set: dict[str, Any] = field(default_factory=dict)
    """What is changed in it: "model.fusion.kind" = "late". In an ensemble, in every member."""
    members: list[str] = field(default_factory=list)
    note: str = ""
    """What stands in for what a paper used; shown with the model wherever it stands."""

    def __post_init__(self) -> None:
        if not self.name or self.name in REFERENCES or self.name in _RESERVED:
            raise ValueError(f"compare.recipes: {self.name!r} cannot be a model's name: it means something else")
        if self.members and (self.recipe or self.set):
            raise ValueError(f"compare.recipes: {self.name}: give either members or a recipe")
        if len(self.members) == 1:
            raise ValueError(f"compare.recipes: {self.name}: one member alone needs no vote")


@dataclass(frozen=True, kw_only=True, slots=True)
class CompareTable:
    title: str
    recipes: list[str]
    """Rows, in this order; the references are named `reference_text`, `reference_image` and `reference_both`."""
    metrics: list[Metric]
    paper: str = ""
    """What the table is after: paper and table."""
    kind: TableKind = "plain"
    """`modalities` says what each model sees; `mergers` needs a baseline; `label_shares` has a column per share of the
    labels, for `label_share_recipes` only."""
    baseline: str = ""
    """Model that the others are compared with, product by product (paired bootstrap)."""
    note: str = ""
    """What stands in for what the paper had: data, descriptions, weights."""

    def __post_init__(self) -> None:
        where = f"compare.tables: {self.title!r}"
        if not self.recipes or not self.metrics:
            raise ValueError(f"{where} needs at least one recipe and one metric")
        if self.kind == "mergers" and not self.baseline:
            raise ValueError(f"{where} is of the kind mergers, which needs a baseline")
        if self.baseline and self.baseline not in self.recipes:
            raise ValueError(f"{where}: the baseline {self.baseline!r} is not one of its recipes {self.recipes}")


@dataclass(frozen=True, kw_only=True, slots=True)
class CompareConfig:
    recipes: list[CompareRecipe]
    tables: list[CompareTable] = field(default_factory=list)
    seeds: list[int] = field(default_factory=lambda: [0])
    """Every model is fitted once per seed, which is added to the seeds of its recipe; several give mean and spread."""
    max_epochs: int = 0
    """The budget: no stage of any recipe has more epochs; 0: as the recipes say."""
    folds: list[Literal["calibration", "test"]] = field(default_factory=lambda: ["test"])
    """What the models are judged on. With `calibration` there are more products, and the temperature comes from the
    validation fold. Never the certification fold: whoever chose a recipe by it could certify nothing on it."""
    label_shares: list[float] = field(default_factory=list)
    """Shares of the train fold's labels that the models of `label_share_recipes` are fitted with."""
    label_share_recipes: list[str] = field(default_factory=list)
    resamples: int = 1000
    """Bootstrap resamples behind every interval."""

    def __post_init__(self) -> None:
        names = [recipe.name for recipe in self.recipes]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"compare.recipes must be models with different names, not {names}")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise ValueError(f"compare.seeds must be different numbers from 0 on, not {self.seeds}")
        if self.max_epochs < 0 or self.resamples < 100:
            raise ValueError("compare.max_epochs must not be negative and compare.resamples be at least 100")
        if not self.folds:
            raise ValueError("compare.folds must name at least one fold")
        if any(not 0 < share <= 1 for share in self.label_shares):
            raise ValueError(f"compare.label_shares must lie in (0, 1], not {self.label_shares}")
        self._check_names(names)

    def _check_names(self, names: list[str]) -> None:
        """Every name that is used is a model's."""
        alone = [recipe.name for recipe in self.recipes if not recipe.members]
        used = {"compare.label_share_recipes": (self.label_share_recipes, names)}
        for recipe in self.recipes:
            used[f"compare.recipes: members of {recipe.name}"] = (recipe.members, alone)
        for table in self.tables:
            shares = table.kind == "label_shares"
            if shares and not self.label_shares:
                raise ValueError(f"compare.tables: {table.title!r} is of the kind label_shares: give label_shares")
            allowed = self.label_share_recipes if shares else [*names, *REFERENCES]
            used[f"compare.tables: {table.title!r}"] = (table.recipes, allowed)
        for where, (mine, allowed) in used.items():
            if unknown := [name for name in mine if name not in allowed]:
                raise ValueError(f"{where}: no such recipe {unknown}. Available: {allowed}")
