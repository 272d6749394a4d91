"""Which files and objects are opened for a feed that may name any, and what their versions tell."""

from __future__ import annotations

import errno
import os
import socket
import time
from pathlib import Path
from typing import Any

import fsspec
import pytest

from catalog_enrichment.config.images import FetchConfig, ImagesConfig, StoredImagesConfig
from catalog_enrichment.errors import TemporaryFailure
from catalog_enrichment.inputs import picture_sources as module
from catalog_enrichment.inputs.picture_sources import Fetched, PictureSources, without_secrets
from catalog_enrichment.reasons import Reason

PICTURE = b"an encoded picture"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "good.jpg").write_bytes(PICTURE)
    (tmp_path / "secret.txt").write_bytes(b"secret")
    return tmp_path / "pictures"


def sources(*folders: Path | str, max_bytes: int = 1000, **config: Any) -> PictureSources:
    fetch = FetchConfig(allowed_folders=tuple(map(str, folders)), **{"seconds": 0.3, **config})
    return PictureSources(ImagesConfig(max_bytes=max_bytes, fetch=fetch))


# ---- files


def test_a_file_in_an_allowed_folder_is_read(folder: Path) -> None:
    (folder / "a b#?%.jpg").write_bytes(PICTURE)
    (folder / "deep").mkdir()
    (folder / "deep" / "x::y.jpg").write_bytes(PICTURE)
    good = folder / "good.jpg"
    for uri in (
        *(str(good), good.as_uri(), f"file://localhost{good}", f"FILE://{good}", f"{good.as_uri()}?v=2#top"),
        *(str(folder / "a b#?%.jpg"), (folder / "a b#?%.jpg").as_uri(), str(folder / "deep" / "x::y.jpg")),
    ):
        assert sources(folder).fetch(uri) == Fetched(PICTURE), uri
        assert sources("/nowhere", folder).version(uri) == _version(folder / "good.jpg", uri), uri


def test_a_relative_path_starts_at_the_configs_root(folder: Path) -> None:
    """Wherever the process runs; also such a path has to lie in an allowed folder."""
    (folder.parent / "secret.jpg").write_bytes(PICTURE)
    fetch = FetchConfig(allowed_folders=(str(folder),))
    found = PictureSources(StoredImagesConfig(fetch=fetch, root=str(folder.parent), store=str(folder)))
    assert found.fetch(f"{folder.name}/good.jpg") == Fetched(PICTURE)
    assert found.version(f"{folder.name}/good.jpg") == _version(folder / "good.jpg", "")
    assert found.version(f"{folder.name}/nosuch.jpg") == "missing"
    for uri in ("secret.jpg", f"{folder.name}/../secret.jpg"):
        assert found.fetch(uri).reason is Reason.IMAGE_NOT_ALLOWED
        assert found.version(uri) == uri


def _version(file: Path, uri: str) -> str:
    path = Path(uri) if uri.startswith("/") and "://" not in uri else file
    path = file.with_name("a b#?%.jpg") if "a%20b" in uri else path
    status = path.stat()
    return f"{status.st_size}-{status.st_mtime_ns}"


def test_a_file_outside_is_neither_opened_nor_described(folder: Path) -> None:
    secret = folder.parent / "secret.txt"
    (folder / "link.jpg").symlink_to(secret)
    (folder / "folder").symlink_to(folder.parent)
    beside = folder.with_name("pictures-of-others")
    beside.mkdir()
    (beside / "good.jpg").write_bytes(PICTURE)
    for uri in (
        *(str(secret), secret.as_uri(), f"{folder}/../secret.txt", f"file://{folder}/%2e%2e/secret.txt"),
        *(str(folder / "link.jpg"), str(folder / "folder" / "secret.txt"), str(beside / "good.jpg")),
        *("/etc/passwd", "file:///etc/passwd", "etc/passwd", "/proc/self/environ", f"{folder}/..", str(folder.parent)),
        *(f"file://host{folder}/good.jpg", "file://[x", f"local://{folder}/good.jpg", f"{folder}/", "."),
    ):
        fetched = sources(folder).fetch(uri)
        assert fetched.reason is Reason.IMAGE_NOT_ALLOWED, (uri, fetched)
        assert fetched.detail.startswith(without_secrets(uri))
        assert sources(folder).version(uri) == uri
    assert sources().fetch(str(folder / "good.jpg")).reason is Reason.IMAGE_NOT_ALLOWED
    assert sources().version(str(folder / "good.jpg")) == str(folder / "good.jpg")


def test_a_link_inside_the_folders_is_followed(folder: Path) -> None:
    (folder / "link.jpg").symlink_to(folder / "good.jpg")
    (folder.parent / "other-name").symlink_to(folder)
    assert sources(folder).fetch(str(folder / "link.jpg")) == Fetched(PICTURE)
    assert sources(folder.parent / "other-name").fetch(str(folder / "good.jpg")) == Fetched(PICTURE)
    assert sources(folder).fetch(str(folder.parent / "other-name" / "good.jpg")) == Fetched(PICTURE)
    assert sources("/").fetch(str(folder / "good.jpg")) == Fetched(PICTURE)
    assert sources(folder).version(str(folder / "link.jpg")) == sources(folder).version(str(folder / "good.jpg"))


@pytest.mark.parametrize("name", ["no.jpg", "no/such.jpg", "good.jpg/inside", "n\0.jpg", "x" * 300, "\ud800.jpg"])
def test_a_file_that_is_not_there_is_missing(folder: Path, name: str) -> None:
    uri = f"{folder}/{name}"
    assert sources(folder).fetch(uri).reason is Reason.IMAGE_MISSING
    assert sources(folder).version(uri) == "missing"


def test_a_link_to_itself_is_missing(folder: Path) -> None:
    (folder / "loop").symlink_to(folder / "loop")
    assert sources(folder).fetch(str(folder / "loop")).reason is Reason.IMAGE_MISSING


def test_pipes_devices_sockets_and_folders_are_not_waited_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(folder / "pipe.jpg")
    (folder / "folder.jpg").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        monkeypatch.chdir(folder)  # the path of a socket must be short
        listener.bind("socket.jpg")
    for name in ("pipe.jpg", "folder.jpg", "socket.jpg"):
        fetched = sources(folder).fetch(str(folder / name))
        assert (fetched.reason, "regular file" in fetched.detail) == (Reason.IMAGE_MISSING, True)
        assert sources(folder).version(str(folder / name)) == "missing"
    assert sources("/dev").fetch("/dev/zero").reason is Reason.IMAGE_MISSING


def test_a_file_that_became_a_pipe_or_a_link_meanwhile_is_not_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at it and its opening."""
    good = folder / "good.jpg"
    looked_at = good.lstat()
    monkeypatch.setattr(PictureSources, "_stat", lambda *_: (str(good), looked_at))
    good.unlink()
    os.mkfifo(good)
    assert sources(folder).fetch(str(good)).reason is Reason.IMAGE_MISSING
    good.unlink()
    good.symlink_to(folder.parent / "secret.txt")
    assert sources(folder).fetch(str(good)).data is None


def test_a_file_in_proc_that_may_never_end_is_not_read() -> None:
    assert sources("/proc").fetch("/proc/version") == Fetched(b"")


def test_a_large_file_is_not_read(folder: Path) -> None:
    with (folder / "huge.jpg").open("wb") as file:
        file.truncate(1 << 40)  # sparse: a terabyte that no memory holds
    assert sources(folder).fetch(str(folder / "huge.jpg")).reason is Reason.IMAGE_TOO_LARGE
    assert sources(folder, max_bytes=len(PICTURE)).fetch(str(folder / "good.jpg")).data == PICTURE
    assert sources(folder, max_bytes=len(PICTURE) - 1).fetch(str(folder / "good.jpg")).data is None


def test_a_disk_that_does_not_answer_is_an_outage(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "open", broken)
    assert sources(folder).fetch(str(folder / "good.jpg")).reason is Reason.IMAGE_UNREACHABLE


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO, errno.ETIMEDOUT])
def test_no_version_is_told_where_the_disk_does_not_answer(
    number: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(path: Any, **_: Any) -> None:
        raise OSError(number, "the disk says no", path)

    opened = sources(folder)
    monkeypatch.setattr(os, "lstat", broken)
    with pytest.raises(TemporaryFailure, match=r"good\.jpg has changed cannot be told"):
        opened.version(str(folder / "good.jpg"))


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EINVAL])
def test_one_path_that_may_not_be_looked_at_stops_no_import_but_a_whole_folder_does(
    number: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`lost+found/x.jpg` on a volume of pictures, named by a merchant; and a volume whose rights were changed."""

    def forbidden(path: Any, **_: Any) -> None:
        raise OSError(number, "no", path)

    uri = str(folder / "lost+found" / "x.jpg")
    opened = sources(folder)
    monkeypatch.setattr(os, "lstat", forbidden)
    assert opened.version(uri) == uri
    monkeypatch.setattr(os, "access", lambda path, _: str(path) != str(folder))
    with pytest.raises(TemporaryFailure, match="cannot be told"):
        opened.version(uri)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("part", ["://a:b/", "secret", "http://u:p", "?token"])
def test_a_uri_of_a_megabyte_is_refused_and_takes_no_hours(part: str, folder: Path) -> None:
    uri = "ftp" + part * (2**20 // len(part))
    fetched = sources(folder).fetch(uri)
    assert fetched.data is None
    assert fetched.reason is Reason.IMAGE_NOT_ALLOWED
    assert len(without_secrets(uri)) <= 200


def test_the_version_changes_with_the_file_and_a_web_picture_has_its_uri(folder: Path) -> None:
    before = sources(folder).version(str(folder / "good.jpg"))
    (folder / "good.jpg").write_bytes(b"other")
    assert sources(folder).version(str(folder / "good.jpg")) != before
    for uri in ("https://cdn.test/1.jpg", "s3://bucket/1.jpg", "http://[::1", "https://a\u2100b/x", "file://[x", ""):
        assert sources(folder).version(uri) in (uri, "missing")


# ---- objects, and schemes that open other URIs


@pytest.fixture
def store() -> str:
    for path in ("memory://shop/pictures/good.jpg", "memory://shop/private/secret.jpg"):
        with fsspec.open(path, "wb") as file:
            file.write(PICTURE)
    return "memory://shop/pictures"


def test_an_object_below_an_allowed_uri_is_read(store: str) -> None:
    pictures = sources(store, schemes=("memory",))
    assert pictures.fetch(f"{store}/good.jpg") == Fetched(PICTURE)
    assert pictures.fetch(f"{store}/none.jpg").reason is Reason.IMAGE_MISSING
    for uri in ("memory://shop/private/secret.jpg", f"{store}/../private/secret.jpg", f"{store}-2/good.jpg"):
        assert pictures.fetch(uri).reason is Reason.IMAGE_NOT_ALLOWED, uri
    assert len(sources(store, schemes=("memory",), max_bytes=5).fetch(f"{store}/good.jpg").data or b"") == 6


@pytest.mark.parametrize(
    "uri",
    [
        *("simplecache::http://127.0.0.1:1/x", "zip://*.jpg::file:///etc/x.zip", "reference://a::/etc/passwd"),
        *("memory://shop/pictures/x::file:///etc/passwd", "s3://bucket/x::http://127.0.0.1/", "memory://shop/good.jpg"),
        *("local:///etc/passwd", "ftp://host/x", "data:image/png;base64,AAAA", "hdfs://x/y", "://", "a b://c", ""),
    ],
)
def test_chains_and_other_schemes_are_refused(uri: str, store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fsspec, "open", lambda *_: pytest.fail("it was opened"))
    fetched = sources(store, "s3://bucket", "/pictures").fetch(uri)
    assert fetched.reason in (Reason.IMAGE_NOT_ALLOWED, Reason.IMAGE_MISSING)
    chained = sources(store, schemes=("memory", "file")).fetch("memory://shop/pictures/x::file:///etc/passwd")
    assert chained.reason is Reason.IMAGE_NOT_ALLOWED


def test_only_the_schemes_of_the_config_are_opened(folder: Path) -> None:
    good = folder / "good.jpg"
    for uri in (str(good), good.as_uri(), "http://127.0.0.1:1/x", "s3://bucket/x"):
        fetched = sources(folder, "s3://bucket", schemes=("https",)).fetch(uri)
        assert (fetched.reason, "images.fetch.schemes" in fetched.detail) == (Reason.IMAGE_NOT_ALLOWED, True)


def test_schemes_that_open_other_uris_cannot_be_allowed() -> None:
    with pytest.raises(ValueError, match=r"cannot have \['reference', 'zip'\]"):
        FetchConfig(schemes=("https", "zip", "reference"))


def test_a_store_that_does_not_answer_is_an_outage(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_read_object", lambda *_: time.sleep(3))
    began = time.monotonic()
    fetched = sources(store, schemes=("memory",)).fetch(f"{store}/good.jpg")
    assert (fetched.reason, time.monotonic() - began < 2) == (Reason.IMAGE_UNREACHABLE, True)


def test_a_store_without_a_client_is_an_outage_that_says_so() -> None:
    fetched = sources("s3://bucket", seconds=10).fetch("s3://bucket/a.jpg?X-Amz-Signature=secret")
    assert fetched.reason is Reason.IMAGE_UNREACHABLE
    assert "s3fs" in fetched.detail
    assert "secret" not in fetched.detail


@pytest.mark.parametrize("value", [{"seconds": 0}, {"threads": 0}, {"retries": -1}, {"connect_seconds": 1e9}])
def test_limits_out_of_range_are_refused(value: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"images.fetch.{next(iter(value))} must lie in"):
        FetchConfig(**value)


def test_messages_have_no_passwords_and_no_signatures() -> None:
    text = "GET https://user:pass@cdn.test/a.jpg?sig=secret failed, see s3://key:secret@bucket/x#secret"
    assert without_secrets(text) == "GET https://cdn.test/a.jpg failed, see s3://bucket/x"
    assert without_secrets("no https://u:p@ssw0rd@cdn.test/a@2x.jpg") == "no https://cdn.test/a@2x.jpg"


def test_messages_have_one_line_and_no_control_characters() -> None:
    fetched = sources().fetch("/a\nINFO all is well\x1b[2J\ud800\u2028.jpg")
    assert fetched.detail.startswith("/a?INFO all is well?[2J??.jpg: ")
    assert len(sources().fetch("/" + "x" * 9999).detail) < 400
