"""A config file is read strictly: keys, types, ranges, overrides, relative paths, hashes and secrets."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from catalog_enrichment.config.load import load_config
from catalog_enrichment.errors import ConfigError


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("training.epoch=3", "unknown key 'training.epoch'"),
        ("training.epoch=3", "min_label_count"),  # the keys there are
        ("training.folds.dev=0.1", "certification"),
        ("trainings.recipe=x", "unknown key 'trainings'"),
        ("training.min_label_count=many", "must be of type int"),
        ("training.min_label_count='20'", "must be of type int"),
        ("mlflow.timeout_seconds=1.5", "must be of type int"),
        ("mlflow.model_name=''", "mlflow.model_name must be letters"),
        ("mlflow.model_name=a/b", "mlflow.model_name must be letters"),
        ("mlflow.model_name=a:b", "mlflow.model_name must be letters"),
        ("mlflow.model_name=a@b", "mlflow.model_name must be letters"),
        ('mlflow.model_name="it\'s"', "mlflow.model_name must be letters"),
        ("mlflow.model_name=..", "mlflow.model_name must be letters"),
        ("mlflow.model_name=' shoes'", "mlflow.model_name must be letters"),
        (f"mlflow.model_name={'x' * 257}", "at most 256"),
        ("mlflow.experiment='  '", "mlflow.experiment must have 1 to 500"),
        (f"mlflow.experiment={'x' * 501}", "mlflow.experiment must have 1 to 500"),
        ("enrich.disabled_shops=acme", "must be a list"),
        ("precision.delta=1.5", "precision.delta must lie in"),
        ("training.folds.train=0.9", "sum to 1"),
        ("source.path=feed.csv", "missing key 'source.format'"),
        ("catalog.path.deeper=1", "is a value, not a section"),
        ("nonsense", "section.key=value"),
    ],
)
def test_a_bad_override_is_an_error_that_names_the_key(file: Path, override: str, says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        load_config(file, [override])


def test_overrides_take_toml_values_and_bare_words(file: Path) -> None:
    loaded = load_config(
        file,
        ["enrich.max_products=5", "mlflow.model_name=shoes", "enrich.disabled_shops=['a','b']", "precision.delta=0.01"],
    )
    assert loaded.enrich.max_products == 5
    assert loaded.mlflow.model_name == "shoes"
    assert loaded.enrich.disabled_shops == ["a", "b"]
    assert loaded.precision.delta == 0.01


def test_names_that_mlflow_takes_are_taken(file: Path) -> None:
    for name in ("x", "Größe 2", "main.shop.colours-v1_b", "x" * 256):
        assert load_config(file, [f"mlflow.model_name='{name}'"]).mlflow.model_name == name
    assert load_config(file, [f"mlflow.experiment={'x' * 500}"])


def test_a_missing_file_lists_what_is_there(tmp_path: Path, file: Path) -> None:
    with pytest.raises(ConfigError, match=r"config\.toml"):
        load_config(tmp_path / "confg.toml")


def test_broken_toml_is_a_config_error(file: Path) -> None:
    file.write_text("[catalog\n")
    with pytest.raises(ConfigError, match="not valid TOML"):
        load_config(file)


def test_relative_paths_start_at_the_root_which_starts_at_the_file(file: Path) -> None:
    assert load_config(file).path("x") == (file.parent / "x").resolve()
    assert load_config(file, ["root='sub'"]).path("x") == (file.parent / "sub" / "x").resolve()
    assert load_config(file).path("/abs") == Path("/abs")


def test_a_shipped_config_starts_at_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_config("config:demo.toml").path("x") == tmp_path / "x"
    assert load_config("config:demo.toml", ["root='/elsewhere'"]).path("x") == Path("/elsewhere/x")


@pytest.mark.parametrize(
    "override",
    [
        "backfill.chunk_products=0", "backfill.updated_from='2026-13-45'", "backfill.updated_until=yesterday",
        "backfill.updated_from='0001-01-01T00:00+10:00'",
        "enrich.batch_bytes=abc", "enrich.batch_rows=0", "enrich.max_changes=-1", "enrich.max_products=-1",
        "precision.step=1.0", "precision.valid_days=0", "precision.provisional_cap=-1",
        "training.threads=-1", "maintenance.retention_hours=169", "audit.uniform=0", "audit.near_share=1.1",
        "audit.reviewers=0", "drift.min_products=0", "drift.accept_rate_change=-0.1", "drift.masked_products=-1",
        "logs.progress_seconds=-1", "metrics.push_url=gateway:9091", "lineage.url=marquez:5000", "lineage.seconds=0",
    ],
)  # fmt: skip
def test_a_value_out_of_range_is_an_error_that_names_the_key(file: Path, override: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(override.partition("=")[0])):
        load_config(file, [override])


def test_the_hash_sees_values_and_only_the_sections_asked_for(file: Path) -> None:
    first, second = load_config(file), load_config(file, ["images.max_bytes=1"])
    assert first.hash() == load_config(file).hash()
    assert first.hash() != second.hash()
    assert first.hash("images") != second.hash("images")
    assert first.hash("enrich") == second.hash("enrich")


def test_passwords_are_not_stored(file: Path) -> None:
    loaded = load_config(
        file,
        [
            "mlflow.tracking_uri='https://user:hunter2@mlflow.example.com/x'",
            "spark.conf={'spark.hadoop.fs.s3a.secret.key' = 'hunter2', 'spark.x' = 'kept'}",
        ],
    )
    stored = str(loaded.without_secrets())
    assert "hunter2" not in stored
    assert "kept" in stored
    assert "mlflow.example.com/x" in stored


def test_pictures_may_be_in_the_sources_folders_or_where_the_config_says(file: Path) -> None:
    (file.parent / "shop.v2").mkdir()
    source = ["source.format=jsonl", "source.path=feed/products.jsonl"]

    def folders(*overrides: str) -> list[str]:
        allowed = load_config(file, overrides).pictures().fetch.allowed_folders
        return [folder.replace(str(file.parent.resolve()), "ROOT") for folder in allowed]

    assert folders() == []
    assert folders(*source) == ["ROOT/feed"]
    assert folders(*source, "source.path=feed") == ["ROOT/feed"]
    assert folders(*source, "source.path=shop.v2") == ["ROOT/shop.v2"]
    assert folders(*source, "source.path=products.jsonl") == ["ROOT"]
    assert folders(*source, "source.path=.") == ["ROOT"]
    assert folders(*source, "source.format=delta", "source.path=feed.delta") == ["ROOT/feed.delta"]
    assert folders(*source, "source.path=s3://shop/feed/a.jsonl") == ["s3://shop/feed"]
    assert folders(*source, "source.image_folder=pictures") == ["ROOT/pictures", "ROOT/feed"]
    assert folders(*source, "source.image_folder=s3://shop/pictures/") == ["s3://shop/pictures", "ROOT/feed"]
    assert folders(*source, "images.fetch.allowed_folders=['/data', 'here', 's3://x']") == [
        "/data",
        "ROOT/here",
        "s3://x",
    ]
    assert load_config(file, source).pictures().max_bytes == load_config(file).images.max_bytes
