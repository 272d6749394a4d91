"""Files in a folder: whole or not there, also after a power failure or a kill."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from catalog_enrichment.catalog.lake import Catalog
from catalog_enrichment.catalog.storage import FolderStorage

from .catalog_rows import product


class PowerFailureError(Exception):
    pass


@pytest.mark.parametrize("call", ["link", "fsync"])
def test_a_new_file_has_its_content_or_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def fail(*_: object) -> None:
        raise PowerFailureError

    place = FolderStorage(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(PowerFailureError):
            place.put_new("store/_catalog", b"../catalog")
    assert place.size("store/_catalog") is None
    assert place.put_new("store/_catalog", b"../catalog")
    assert not place.put_new("store/_catalog", b"another")
    assert place.read("store/_catalog") == b"../catalog"
    assert "_catalog" in [file.name for file in place.files("store")]  # beside what the failure left, in any order


def test_a_new_file_leaves_no_other(tmp_path: Path) -> None:
    place = FolderStorage(tmp_path)
    for _ in range(2):
        place.put_new("a", b"1")
    place.put("a", b"2")
    assert [(file.name, file.size) for file in place.files()] == [("a", 1)]


def test_data_files_are_on_the_disk_before_the_commit_and_the_log_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake, synced = Catalog(tmp_path / "lake"), []
    lake.tables.create("products")
    real, log = os.fsync, tmp_path / "lake/products/_delta_log"

    def fsync(descriptor: int) -> None:
        where = Path(f"/proc/self/fd/{descriptor}").readlink()
        synced.append((where.name, where.is_dir() or where.stat().st_size > 0, len(list(log.glob("*.json")))))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    lake.append_rows("products", [product("a")], "import-1")
    (part,) = lake.tables.open("products").file_uris()
    names = (Path(part).name, "products", f"{1:020}.json", "_delta_log")
    assert synced == [(name, True, commits) for name, commits in zip(names, (1, 1, 2, 2), strict=True)]
