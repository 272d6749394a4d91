"""The versions of local pictures while their storage does not answer."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest

from catalog_enrichment import failures
from catalog_enrichment.errors import TemporaryFailure
from catalog_enrichment.ingest import feeds, unchanged

from ..sample_catalog import PRODUCTS, SampleCatalog, listing, table


def stale(versions: Callable[..., pd.Series]) -> Callable[..., pd.Series]:
    """``versions`` while no file's status can be read; pickled by value, for Spark's workers."""

    def broken(path: Any, **_: Any) -> None:
        raise OSError(errno.ESTALE, "Stale file handle", path)

    def versions_while_stale(*arguments: Any) -> pd.Series:
        lstat, os.lstat = os.lstat, broken  # type: ignore[assignment]
        try:
            return versions(*arguments)
        finally:
            os.lstat = lstat

    return versions_while_stale


@pytest.mark.parametrize("changed", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_an_import_while_the_pictures_folder_does_not_answer_ends_and_changes_nothing(
    sample: SampleCatalog, changed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample.import_products()  # from the folder of the copy
    if changed:
        sample.feed([listing(number, title=f"another title {number}") for number in range(PRODUCTS)])
    names = ("products", "quarantine", "current_values", "attribute_values")
    before = [table(sample, name) for name in names]
    with monkeypatch.context() as patch:
        for module in (feeds, unchanged):
            patch.setattr(module, "uri_versions", stale(feeds.uri_versions))
        with pytest.raises(Exception, match=r"Stale file handle|cannot be told") as failed:
            sample.import_products()
    found = failures.recognised(failed.value)
    assert type(found) is TemporaryFailure
    assert "whether the picture" in str(found)
    assert [table(sample, name) for name in names] == before
    assert sample.import_products()["status"] == ("succeeded" if changed else "nothing_to_do")
