from __future__ import annotations

import pytest

from catalog_enrichment.models.spec import ImageSpec, TextSpec


def test_a_spec_made_in_code_is_checked_too() -> None:
    with pytest.raises(ValueError, match="give either name"):
        TextSpec()
    with pytest.raises(ValueError, match="at least 32"):
        ImageSpec(size=8)
