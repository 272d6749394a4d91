"""Pictures that the catalog keeps: written once, by content, and read as any other picture."""

from __future__ import annotations

import hashlib
import os
import uuid
from pathlib import Path

import pandas as pd
import pytest

from catalog_enrichment.config.images import ImagesConfig
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.ingest.product_pictures import put_pictures
from catalog_enrichment.inputs.images import TOO_LARGE, first_usable, first_usable_of_each
from catalog_enrichment.inputs.square import Square
from catalog_enrichment.inputs.stored_pictures import StoredPictures
from catalog_enrichment.reasons import Reason

from ..sample_catalog import jpeg

RED, BLUE = jpeg((200, 0, 0)), jpeg((0, 0, 200))
ABSENT = "0" * 64


def version(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def files(folder: Path) -> list[str]:
    return sorted(file.name for file in StoredPictures(folder).files())


def test_a_picture_is_written_once_under_its_hash(tmp_path: Path) -> None:
    versions = [version(RED), version(BLUE), version(RED), None, f"{TOO_LARGE}999", version(RED)]
    put_pictures(pd.Series(versions), pd.Series([RED, BLUE, RED, None, None, None]), StoredPictures(tmp_path))
    store = StoredPictures(tmp_path)
    assert files(tmp_path) == sorted([version(RED), version(BLUE)])
    assert (store.get(version(RED)), store.get(version(BLUE))) == (RED, BLUE)


def test_a_picture_that_is_there_is_marked_as_used_and_not_written_again(tmp_path: Path) -> None:
    store = StoredPictures(tmp_path)
    store.put(version(RED), RED)
    path = store.path(version(RED))
    os.utime(path, (1, 1))
    before = path.stat()
    store.put(version(RED), b"x" * len(RED))  # never looked at
    assert path.read_bytes() == RED
    assert path.stat().st_ino == before.st_ino
    assert path.stat().st_mtime > 1


@pytest.mark.parametrize("left", [b"", RED[:-1]])
def test_a_picture_that_a_power_failure_cut_off_is_written_again(tmp_path: Path, left: bytes) -> None:
    store = StoredPictures(tmp_path)
    store.put(version(RED), RED)
    store.path(version(RED)).write_bytes(left)
    store.put(version(RED), RED)
    assert store.get(version(RED)) == RED


def test_a_picture_has_its_name_after_its_bytes_are_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[int, bool]] = []
    target = StoredPictures(tmp_path).path(version(RED))
    monkeypatch.setattr(os, "fsync", lambda number: synced.append((os.fstat(number).st_size, target.exists())))
    StoredPictures(tmp_path).put(version(RED), RED)
    assert (synced, target.exists()) == ([(len(RED), False)], True)


@pytest.mark.parametrize("name", ["", "..", "../../etc/passwd", "A" * 64, "0" * 63, "0" * 65, "0" * 64 + "\n"])
def test_only_a_hash_names_a_picture(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="SHA-256"):
        StoredPictures(tmp_path).path(name)


def test_models_see_the_kept_picture_and_the_reason_where_it_is_gone(tmp_path: Path) -> None:
    limits = ImagesConfig(store=str(tmp_path))
    StoredPictures(tmp_path).put(version(RED), RED)
    StoredPictures(tmp_path).put(version(b"no picture"), b"no picture")
    versions = [version(RED), ABSENT, "", f"{TOO_LARGE}999", version(b"no picture"), "../x"]
    pictures = [[{"bytes": None, "uri": None, "version": name}] for name in versions]
    decoded = first_usable_of_each(pictures, Square(8), limits)
    assert decoded[0].pixels is not None
    assert decoded[0].pixels[0, 0, 0] > 150
    assert [picture.reason for picture in decoded[1:]] == [
        *(Reason.IMAGE_MISSING, Reason.IMAGE_MISSING, Reason.IMAGE_TOO_LARGE, Reason.IMAGE_NOT_AN_IMAGE),
        Reason.IMAGE_MISSING,
    ]
    assert str(tmp_path) not in " ".join(picture.detail for picture in decoded)


def test_a_store_that_cannot_be_read_is_an_outage(tmp_path: Path) -> None:
    StoredPictures(tmp_path).path(version(RED)).mkdir(parents=True)  # reading a folder is an OSError for any user
    unreadable = [{"bytes": None, "uri": None, "version": version(RED)}]
    assert first_usable(unreadable, Square(8), ImagesConfig(store=str(tmp_path))).reason is Reason.IMAGE_UNREACHABLE


def test_only_what_the_store_wrote_is_among_its_files(tmp_path: Path) -> None:
    store = StoredPictures(tmp_path)
    store.put(version(RED), RED)
    store.claim(tmp_path / "catalog")
    own = store.path(version(RED))
    cut_off = own.with_name(f"{own.name}.{uuid.uuid4()}")
    elsewhere = tmp_path / "ab" / "cd" / own.name
    for file in (cut_off, elsewhere, own.with_name("summer-catalogue.jpg"), own.with_suffix(".jpg")):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    assert files(tmp_path) == [own.name, cut_off.name]


def test_a_store_belongs_to_one_catalog_wherever_both_are_moved(tmp_path: Path) -> None:
    first, second = tmp_path / "company" / "first", tmp_path / "company" / "second"
    shared = tmp_path / "company" / "pictures"
    StoredPictures(shared).claim(first)
    StoredPictures(shared).claim(first)
    with pytest.raises(ConfigError, match=r"pictures of the catalog .*/first, not of .*/second.*delete .*_catalog"):
        StoredPictures(shared).claim(second)
    (tmp_path / "company").rename(tmp_path / "moved")
    StoredPictures(tmp_path / "moved" / "pictures").claim(tmp_path / "moved" / "first")
