"""The section `[source]`: what is refused, and that no message has a secret."""

from __future__ import annotations

from typing import Any

import pytest

from catalog_enrichment.config import strict
from catalog_enrichment.config.remote_sources import ApiConfig, PostgresConfig
from catalog_enrichment.config.source import MappingConfig, SourceConfig, VariantsConfig
from catalog_enrichment.errors import ConfigError

DATABASE = "postgresql://reader@db.example:5432/shop"
API = "https://api.example/v1/products?lang=de"


def source(kind: str, path: str = "", **given: Any) -> SourceConfig:
    usual = {"postgres": (DATABASE, {"postgres": PostgresConfig(table="t")}), "http_api": (API, {"api": ApiConfig()})}
    usual_path, section = usual.get(kind, ("feed", {}))
    return SourceConfig(format=kind, path=path or usual_path, **section | given)  # type: ignore[arg-type]


def test_formats_and_their_sections_belong_together() -> None:
    assert source("postgres").picture_folders is not None
    with pytest.raises(ValueError, match=r'source.format = "postgres" needs a section \[source.postgres\]'):
        SourceConfig(format="postgres", path=DATABASE)
    with pytest.raises(ValueError, match=r'source.format = "http_api" needs a section \[source.api\]'):
        SourceConfig(format="http_api", path=API)
    with pytest.raises(ValueError, match=r'source.api is for source.format = "http_api", not for "jsonl"'):
        source("jsonl", api=ApiConfig())
    with pytest.raises(ValueError, match=r"source.postgres is for"):
        source("http_api", postgres=PostgresConfig(table="t"))


@pytest.mark.parametrize(
    ("kind", "path", "says"),
    [
        ("postgres", "postgresql://reader:hunter2@db/shop", "must not have a password"),
        ("postgres", "postgresql://reader@db/shop?password=hunter2", "must not have a password"),
        ("postgres", "mysql://db/shop", "is a URI like postgresql://"),
        ("postgres", "shop", "is a URI like postgresql://"),
        ("http_api", "ftp://api/x", "is a URI like https://"),
        ("http_api", "/etc/passwd", "is a URI like https://"),
        ("http_api", "https://hunter2@api.example/x", "must not have a user or password"),
        ("http_api", "https://api.example/x?access_token=hunter2", "must not have a token in its query"),
        ("http_api", "https:///x", "has no host"),
        ("http_api", "https://api.example/x#items", "must not have a fragment"),
        ("http_api", "https://api.example:port/x", "no valid URI"),
    ],
)
def test_a_path_that_does_not_fit_is_refused_without_its_secret(kind: str, path: str, says: str) -> None:
    with pytest.raises(ValueError, match=says) as refused:
        source(kind, path)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"size_param": "n"}, "page_size is needed for size_param"),
        ({"total": "n"}, "page_size is needed for total"),
        ({"total": "n", "paging": "offset"}, "page_size is needed for total"),
        ({"auth_env": "Bearer abc"}, "the name of an environment variable, not its value"),
        ({"auth_header": "X Key"}, "no names of headers"),
        ({"headers": {"Authorization": "Bearer hunter2"}}, "cannot have"),
        ({"headers": {"X-Api-Key": "hunter2-secret"}}, "looks like a secret"),
        ({"headers": {"X-Shop": "a\r\nHost: b"}}, "printable ASCII"),
        ({"private_hosts": ("10.0.0.1/8",)}, "source.api.private_hosts"),
        ({"requests_per_second": 0.0}, "source.api.requests_per_second must lie in"),
        ({"retries": 21}, "source.api.retries must lie in"),
        ({"pages_folder": "s3://bucket/x"}, "is a folder, not a URI"),
    ],
)
def test_an_api_that_cannot_be_asked_is_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says) as refused:
        ApiConfig(**given)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "either table or query"),
        ({"table": "t", "query": "SELECT 1"}, "either table or query"),
        ({"table": "  "}, "either table or query"),
        ({"table": "t", "partitions": 0}, "source.postgres.partitions must lie in"),
        ({"table": "t", "auth_env": "pass word"}, "the name of an environment variable"),
    ],
)
def test_a_database_that_cannot_be_read_is_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        PostgresConfig(**given)


def test_a_total_is_fetched_in_parallel_where_pages_can_be_asked_for_alone() -> None:
    assert ApiConfig(total="n", page_size=10).in_parallel
    assert ApiConfig(total="n", page_size=10, paging="offset").in_parallel
    assert not ApiConfig(total="n", paging="cursor").in_parallel
    assert not ApiConfig(page_size=10).in_parallel


def test_what_does_not_change_the_pages_is_not_in_what_they_are_known_by() -> None:
    usual = ApiConfig().content_keys()
    assert ApiConfig(requests_per_second=1, retries=1, auth_env="X", keep_hours=1, tasks=2).content_keys() == usual
    for other in ({"paging": "offset"}, {"items": "x"}, {"headers": {"X": "1"}}, {"first_page": 0}, {"next": "x"}):
        assert ApiConfig(**other).content_keys() != usual


def test_the_secret_of_the_named_variable_is_known_for_masking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP", "hunter2")
    assert source("http_api", api=ApiConfig(auth_env="SHOP")).secrets() == {"hunter2"}
    assert source("postgres", postgres=PostgresConfig(table="t", auth_env="SHOP")).secrets() == {"hunter2"}
    monkeypatch.setenv("SHOP", "")
    assert source("http_api", api=ApiConfig(auth_env="SHOP")).secrets() == frozenset()
    assert source("http_api").secrets() == frozenset()


def test_pictures_of_a_remote_source_are_in_no_folder_unless_the_config_names_one(tmp_path: Any) -> None:
    assert source("postgres").picture_folders(tmp_path) == ()
    assert source("http_api", image_folder="pictures").picture_folders(tmp_path) == (str(tmp_path / "pictures"),)


@pytest.mark.parametrize(
    ("kind", "given", "says"),
    [
        ("parquet", {"pair_texts": ["a"]}, "source.pair_texts is for the formats csv, tsv, xlsx, json_list, xml"),
        ("jsonl", {"variants": VariantsConfig()}, "source.variants is for the formats"),
        ("xml", {"header_row": 2}, "source.header_row is for the formats csv, tsv, xlsx"),
        ("jsonl", {"decimal": ","}, "source.decimal is for the formats"),
        ("tsv", {"separator": ";"}, "source.separator is for the formats csv, not for tsv"),
        ("jsonl", {"encoding": "cp1252"}, "source.encoding is for the formats csv, tsv, json_list"),
        ("csv", {"sheet": "A"}, "source.sheet is for the formats xlsx"),
        ("csv", {"encoding": "nonsense"}, "source.encoding 'nonsense' is not known"),
        ("csv", {"encoding": "utf-16"}, "its letters are not those of ASCII"),
        ("csv", {"separator": ";;"}, "must be a single character"),
        ("csv", {"separator": '"'}, "no quote or line end"),
        ("csv", {"header_row": 0}, "source.header_row must lie in"),
        ("csv", {"header_row": 2, "columns": ["a"]}, "files without a header"),
        ("csv", {"min_attribute_ratio": 1.5}, "source.min_attribute_ratio must lie in"),
    ],
)
def test_keys_that_the_format_cannot_follow_are_refused(kind: str, given: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        source(kind, **given)


def test_a_mapping_takes_a_column_or_a_list_of_them() -> None:
    mapping = strict.build(MappingConfig, {"product_id": ["SKU", "id:{ID}"], "title": "Name"}, where="test")
    assert (mapping.product_id, mapping.title) == (["SKU", "id:{ID}"], "Name")
    with pytest.raises(ConfigError, match="title must be of type str, not 3"):
        strict.build(MappingConfig, {"title": 3}, where="test")
    with pytest.raises(ConfigError, match=r"title\.0 must be of type str, not 3"):
        strict.build(MappingConfig, {"title": [3]}, where="test")
    with pytest.raises(ValueError, match=r"separators names \['size'\]"):
        MappingConfig(separators={"size": "|"})
    assert MappingConfig(separators={"category": ","}).separators


def test_a_decimal_mark_is_a_point_or_a_comma_of_a_mapped_attribute() -> None:
    mapped = {"width": "Width"}
    assert MappingConfig(attributes=mapped, decimal_marks={"width": ","}).decimal_marks == {"width": ","}
    with pytest.raises(ValueError, match=r"decimal_marks names \['height'\], which are not in"):
        MappingConfig(attributes=mapped, decimal_marks={"height": "."})
    with pytest.raises(ValueError, match="""decimal_marks must be "\\." or ",", not '\\|'"""):
        MappingConfig(attributes=mapped, decimal_marks={"width": "|"})
    with pytest.raises(ValueError, match="both kind and product_kinds"):
        VariantsConfig(kind="Item Type")
