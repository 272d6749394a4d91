"""The config's `[compare]` section: the models to compare, and the tables that list their metrics."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

REFERENCES = ("reference_text", "reference_image", "reference_both")
"""Models without a recipe that every comparison fits (`comparison/reference.py`)."""

Metric = Literal[
    "accuracy", "f1_micro", "f1_macro", "f1_weighted", "f1_head", "f1_tail", "r_at_p95_micro", "r_at_p95_macro"
]  # fmt: skip
TableKind = Literal["plain", "modalities", "mergers", "label_shares"]

_RESERVED = ("job", "status", "exit_code", "error", "message", "report", "markdown", "mlflow_run_id")
"""Keys of the job's summary that are not models: each model's results are there under the model's name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CompareRecipe:
    """A model: either a recipe, or a vote of `members`, other models of the same list."""

    name: str
    """Its name in the tables."""
    recipe: str = ""
    """`recipes:NAME.toml` or a path, for a model or an ensemble; empty: `training.recipe`."""
    set: dict[str, Any] = field(default_factory=dict)
    """Changed keys of the recipe, "model.fusion.kind" = "late". For an ensemble, they change every member."""
    members: list[str] = field(default_factory=list)
    """Names of at least two other models, which vote; instead of `recipe` and `set`."""
    note: str = ""
    """Replacement of something that a paper used; shown with the model in every table."""

    def __post_init__(self) -> None:
        if not self.name or self.name in REFERENCES or self.name in _RESERVED:
            reserved = sorted((*REFERENCES, *_RESERVED))
            raise ValueError(f"name: {self.name!r} cannot be a model's name: it is empty or one of {reserved}")
        if self.members and (self.recipe or self.set):
            raise ValueError(f"{self.name}: give either members or a recipe with set, not both")
        if len(self.members) == 1:
            raise ValueError(f"{self.name}: members must be at least two models, not {self.members}")


@dataclass(frozen=True, kw_only=True, slots=True)
class CompareTable:
    title: str
    """Heading of the table."""
    recipes: list[str]
    """Rows, in this order: names of models, also `reference_text`, `reference_image` and `reference_both`."""
    metrics: list[Metric]
    """Columns, in this order."""
    paper: str = ""
    """The paper, and its table, that this table reproduces."""
    kind: TableKind = "plain"
    """`modalities` adds the modalities that each model uses; `mergers` needs a baseline; `label_shares` has a column
    per share of the labels, and takes `label_share_recipes` only."""
    baseline: str = ""
    """Model that the others are compared with, product by product (paired bootstrap)."""
    note: str = ""
    """Replacement of the paper's data, descriptions or weights."""

    def __post_init__(self) -> None:
        where = f"table {self.title!r}"
        if not self.recipes or not self.metrics:
            raise ValueError(
                f"{where} needs at least one recipe and one metric, not recipes = {self.recipes}, "
                f"metrics = {self.metrics}"
            )
        if self.kind == "mergers" and not self.baseline:
            raise ValueError(f"{where} has kind mergers, which needs a baseline")
        if self.baseline and self.baseline not in self.recipes:
            raise ValueError(f"{where}: the baseline {self.baseline!r} is not one of its recipes {self.recipes}")


@dataclass(frozen=True, kw_only=True, slots=True)
class CompareConfig:
    recipes: list[CompareRecipe]
    tables: list[CompareTable] = field(default_factory=list)
    seeds: list[int] = field(default_factory=lambda: [0])
    """Every model is fitted once per seed, which is added to its recipe's seeds. Several give mean and spread."""
    max_epochs: int = 0
    """Upper limit on the epochs of every stage of every recipe; 0: no limit."""
    folds: list[Literal["choosing", "test"]] = field(default_factory=lambda: ["choosing"])
    """Folds that the models are evaluated on. With `choosing`, half of its content groups are evaluated on and the fits
    choose the epoch, lambda and the temperature on the other half. Not for choosing a recipe: `test`, on which the
    promotion gate compares versions. Never allowed: the certification fold, on which a recipe that was chosen by it
    could not be certified."""
    label_shares: list[float] = field(default_factory=list)
    """Shares of the train fold's labels that the models of `label_share_recipes` are fitted with."""
    label_share_recipes: list[str] = field(default_factory=list)
    """Names of the models that are also fitted on `label_shares`."""
    resamples: int = 1000
    """Bootstrap resamples behind every interval."""

    def __post_init__(self) -> None:
        names = [recipe.name for recipe in self.recipes]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"compare.recipes must be models with different names, not {names}")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise ValueError(f"compare.seeds must be different numbers from 0 on, not {self.seeds}")
        if self.max_epochs < 0 or self.resamples < 100:
            raise ValueError(
                "compare.max_epochs must not be negative and compare.resamples must be at least 100, not "
                f"{self.max_epochs} and {self.resamples}"
            )
        if not self.folds:
            raise ValueError("compare.folds must name at least one of 'choosing' and 'test', not []")
        if any(not 0 < share <= 1 for share in self.label_shares):
            raise ValueError(f"compare.label_shares must lie in (0, 1], not {self.label_shares}")
        self._check_names(names)

    def _check_names(self, names: list[str]) -> None:
        """Raise ValueError if a list names a model that does not exist."""
        names_with_recipe = [recipe.name for recipe in self.recipes if not recipe.members]
        used = {"compare.label_share_recipes": (self.label_share_recipes, names)}
        for recipe in self.recipes:
            used[f"compare.recipes: members of {recipe.name}"] = (recipe.members, names_with_recipe)
        for table in self.tables:
            shares = table.kind == "label_shares"
            if shares and not self.label_shares:
                raise ValueError(
                    f"compare.tables: {table.title!r} has kind label_shares, which needs compare.label_shares"
                )
            allowed = self.label_share_recipes if shares else [*names, *REFERENCES]
            used[f"compare.tables: {table.title!r}"] = (table.recipes, allowed)
        for where, (used_names, allowed) in used.items():
            if unknown := [name for name in used_names if name not in allowed]:
                raise ValueError(f"{where}: no such recipe {unknown}. Available: {allowed}")
