"""A clock that was set back, for tests of what must not depend on it."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta, tzinfo

import pytest


def set_back(patch: pytest.MonkeyPatch, days: float) -> None:
    """Set the clock of every module of the package back by ``days``."""

    class SetBack(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz or UTC) - timedelta(days=days)

    for name, module in list(sys.modules.items()):
        if name.startswith("catalog_enrichment.") and isinstance(getattr(module, "datetime", None), type):
            patch.setattr(module, "datetime", SetBack)
