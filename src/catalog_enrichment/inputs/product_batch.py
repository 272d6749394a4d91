"""The inputs of a model for several products: raw texts and decoded pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class ProductBatch:
    """B products as parallel columns. Raises ValueError if the columns differ in length."""

    titles: Sequence[str | None]
    descriptions: Sequence[str | None]
    pictures: Sequence[NDArray[np.uint8] | None]
    """(S, S, 3) RGB each, S the model's image size; None without a usable picture."""

    def __post_init__(self) -> None:
        if not len(self.titles) == len(self.descriptions) == len(self.pictures):
            raise ValueError(
                f"a batch needs columns of one length, not {len(self.titles)} titles, {len(self.descriptions)} "
                f"descriptions and {len(self.pictures)} pictures"
            )

    def __len__(self) -> int:
        return len(self.titles)

    def part(self, start: int, stop: int) -> ProductBatch:
        """Return the products at the positions from ``start`` to ``stop``, without ``stop``."""
        rows = slice(start, stop)
        return ProductBatch(self.titles[rows], self.descriptions[rows], self.pictures[rows])
