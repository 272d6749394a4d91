"""The config's `[catalog]` section: which places it takes, and what reaches the run's identity and the tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from catalog_enrichment.config.catalog import CatalogConfig
from catalog_enrichment.config.load import load_config
from catalog_enrichment.errors import ConfigError

SECRET = "a-secret-of-the-config"


def at(path: str, **storage: str) -> CatalogConfig:
    return CatalogConfig(path=path, dictionary="a.json", storage=storage)


@pytest.mark.parametrize("path", ["s3://bucket", "s3://bucket/a/b=c/", "gs://bucket/x", "az://container/x", "folder/a"])
def test_folders_and_three_kinds_of_stores_are_taken(path: str) -> None:
    assert at(path).path == path


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("s3a://bucket/x", r"begins with s3://, gs://, az://, not with s3a://; write s3://"),
        ("gcs://bucket/x", "write gs://"),
        ("hdfs://namenode/x", r"begins with s3://, gs://, az://, not with hdfs://$"),
        ("file:///data", "not with file://"),
        ("S3://bucket/x", "not with S3://"),
        ("s3://", "BUCKET"),
        ("s3://key:word@bucket/x", "credentials in the environment"),
        ("s3://bucket/a//b", "BUCKET/PATH"),
        ("s3://bucket/../b", "BUCKET/PATH"),
        ("s3://bucket/a?versionId=1", "BUCKET/PATH"),
    ],
)
def test_another_place_is_refused_with_those_that_are_taken(path: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as refused:
        at(path)
    assert "key:word" not in str(refused.value)


def test_settings_are_those_of_the_paths_store() -> None:
    with pytest.raises(ValueError, match=r"begin with aws_, or are of .*timeout.*it has \['google_application"):
        at("s3://bucket/x", google_application_credentials="/x")
    with pytest.raises(ValueError, match="not for a folder"):
        at("folder", aws_region="r")
    with pytest.raises(ValueError, match="lease_seconds"):
        CatalogConfig(path="s3://bucket/x", dictionary="a.json", lease_seconds=1)


def test_the_environment_gives_what_the_config_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_SESSION_TOKEN", "AWS_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "from-environment")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-from-environment")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "second")
    assert dict(at("s3://bucket/x", AWS_ACCESS_KEY_ID="from-config").store_settings()) == {
        "aws_access_key_id": "from-config",
        "aws_secret_access_key": "secret-from-environment",
        "aws_region": "second",
    }
    monkeypatch.setenv("AWS_REGION", "first")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    found = dict(at("s3://bucket/x").store_settings())
    assert (found["aws_region"], found["aws_endpoint"], found["allow_http"]) == ("first", "http://127.0.0.1:1", "true")
    assert at("gs://bucket/x").store_settings() == ()


def test_how_the_store_is_reached_is_not_part_of_a_runs_identity(file: Path) -> None:
    stored = ["catalog.path=s3://bucket/x"]
    plain, other = load_config(file, stored), [*stored, f"catalog.storage.aws_secret_access_key={SECRET}"]
    assert load_config(file, [*other, "catalog.lease_seconds=7"]).hash() == plain.hash()
    assert load_config(file, ["catalog.path=s3://bucket/y"]).hash("catalog") != plain.hash("catalog")


def test_secrets_of_the_store_are_masked_wherever_the_config_goes(file: Path) -> None:
    storage = [f"catalog.storage.aws_secret_access_key={SECRET}", "catalog.storage.aws_region=eu-west-1"]
    config = load_config(file, ["catalog.path=s3://bucket/x", *storage])
    assert SECRET in config.secrets()
    content: dict[str, Any] = config.without_secrets()
    assert SECRET not in json.dumps(content)
    assert content["catalog"]["storage"]["aws_region"] == "eu-west-1"
    assert SECRET not in repr(config.pictures())


def test_pictures_are_in_the_catalogs_store_unless_a_folder_is_named(file: Path) -> None:
    stored = load_config(file, ["catalog.path=s3://bucket/x/", "catalog.storage.aws_region=r"])
    pictures = stored.pictures()
    assert pictures.store == "s3://bucket/x/pictures"
    assert ("aws_region", "r") in pictures.store_settings
    named = load_config(file, ["catalog.path=s3://bucket/x", "images.store=shared"]).pictures()
    assert (named.store_settings, named.store) == ((), str(file.parent / "shared"))
    with pytest.raises(ConfigError, match=r"images\.store is a folder"):
        load_config(file, ["images.store=s3://bucket/pictures"])
