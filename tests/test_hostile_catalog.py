"""A small catalog of hostile texts through the jobs, as a user runs them: nothing is executed, escapes or leaks.

The feed's ids, titles, categories, shops, languages, values and file name hold SQL, paths, HTML, formulas, terminal
sequences and secrets; the config holds secrets too.
"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from .report.report_samples import ParsedPage
from .sample_catalog import SampleCatalog, listing, run_job, table

HTML = '</style></title></bdi><script>alert("x")</script><img src=x onerror=alert(1)><a href="javascript:alert(1)">red'
SQL = "x'; DROP TABLE products; -- `y` ${spark.app.name} \\' OR 1=1"
PATH = "../../../escaped"
FORMULA = "=cmd|'/C calc'!A0"
TERMINAL = "\x1b]0;owned\x07\x1b[2J\u202egreen"
HOSTILE = [
    HTML, SQL, PATH, FORMULA, TERMINAL,
    *("/escaped", "%2e%2e/escaped", "nul\x00", "new\nline", '"><svg onload=alert(1)>'),
]  # fmt: skip
IN_FEED, SIGNED, IN_CONFIG, IN_ENVIRONMENT = "secret-of-feed", "secret-signature", "secret-of-config", "secret-of-env"
SETTINGS = [
    "--set", "source.min_volume_ratio=0",
    "--set", "images.max_unusable=1",
    "--set", "report.samples=50",
    "--set", "source.mapping.language=language",
    "--set", f"spark.conf={{'spark.hadoop.fs.s3a.secret.key' = '{IN_CONFIG}'}}",
]  # fmt: skip
FEED = "feed/a' OR 1=1 --; `x` $(id) <b>.jsonl"
OUTPUT, VALUES = "suggestions", "values.csv"


def hostile_rows() -> list[str]:
    """Three products per text, of which the third has the text in every place; and three rows for quarantine."""
    rows = []
    for number, text in enumerate(HOSTILE):
        # with a usable picture in a certified category: the values of the second are written
        rows.append(listing(100 + number, title=f"{text} red", description=text, shop=text, color=text))
        rows.append(listing(200 + number, title=f"{text} green", color=None))
        everywhere = dict.fromkeys(("product_id", "title", "shop", "category", "language"), text)
        image = f"https://u:{IN_FEED}@127.0.0.1/x.jpg?X-Amz-Signature={SIGNED}"
        rows.append(listing(300 + number, **everywhere, image=image, color=[text, None][number % 2]))
    text = [json.dumps(row) for row in rows]
    broken = f'{{"product_id": "b", "token": "{IN_FEED}", "image": "https://u:{IN_FEED}@h/?sig={SIGNED}"'
    return [*text, broken, json.dumps(listing(400, title="", image=f"s3a://a:{IN_FEED}@b/c")), "[]"]


@dataclass
class Ended:
    """The catalog after all jobs, their summaries, and all that they printed."""

    sample: SampleCatalog
    outside: Path
    summaries: dict[str, dict[str, Any]] = field(default_factory=dict)
    printed: str = ""

    def job(self, label: str, name: str, *arguments: str, code: int = 0) -> dict[str, Any]:
        given = ["--config", str(self.sample.file), *SETTINGS, "--set", f"source.path={json.dumps(FEED)}", *arguments]
        ended_with, summary, printed = run_job(name, *given)
        self.printed += printed
        assert ended_with == code, printed[-3000:]
        self.summaries[label] = summary
        return summary

    def written_texts(self) -> dict[Path, str]:
        """The files that the jobs wrote outside the tables, and MLflow's store, as text."""
        files = [path for path in self.sample.folder.rglob("*") if path.is_file()]
        ours = [path for path in files if "catalog" not in path.parts and "feed" not in path.parts]
        return {path: path.read_bytes().decode(errors="replace") for path in ours}


@pytest.fixture(scope="module")
def ended(template: SampleCatalog, tmp_path_factory: pytest.TempPathFactory) -> Ended:
    outside = tmp_path_factory.mktemp("hostile")
    done = Ended(template.copy_to(outside / "a" / "b" / "sample"), outside)
    (done.sample.folder / FEED).write_text("\n".join(hostile_rows()) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_SECRET_ACCESS_KEY", IN_ENVIRONMENT)
        done.job("import", "import_products")
        run_id = done.job("enrich", "enrich_catalog")["run_id"]
        for text in (HTML, SQL, FORMULA):
            done.job(f"explain {text}", "explain_value", "--product-id", text, "--attribute", "color")
        done.job("misspelled", "backfill", "--category", SQL[:-1], code=2)
        done.job("backfill", "backfill", "--category", SQL, "--category", PATH, "--dry-run")
        done.job("export", "export_suggestions", "--output", str(done.sample.folder / OUTPUT))
        done.job("values", "export_values", "--out", str(done.sample.folder / VALUES))
        for text in (PATH, SQL, HTML):
            done.job(f"roll back {text}", "rollback_run", "--run-id", text, code=2)
        bucket = f"source.path='s3a://k:{IN_CONFIG}@b/c.jsonl'"
        done.job("no such bucket", "import_products", "--set", bucket, code=2)
        done.job("rollback", "rollback_run", "--run-id", run_id)
    return done


def test_every_row_has_an_outcome_and_the_tables_are_there(ended: Ended) -> None:
    imported, enriched = ended.summaries["import"], ended.summaries["enrich"]
    assert imported["quarantined"] == {"empty_title": 1, "unparseable_row": 2}
    assert imported["products"] == len(hostile_rows())
    assert enriched["attributes"]["color"]["written"] > 0
    ids = {row["product_id"] for row in table(ended.sample, "products")}
    seen = {"nul\x00": "nul", TERMINAL: TERMINAL.removeprefix("\x1b")}  # invisible characters around an id do not count
    assert {seen.get(text, text) for text in HOSTILE} <= ids
    assert enriched["products"] == len(ids)
    assert ended.summaries["rollback"]["status"] == "succeeded"


def test_the_report_shows_hostile_titles_as_text(ended: Ended) -> None:
    report = Path(ended.summaries["enrich"]["report"])
    page = ParsedPage(report.read_text(encoding="utf-8"))
    assert HTML in page.text
    assert not page.tags & {"script", "a", "iframe", "object", "link", "base", "form"}
    assert page.handlers == []
    assert all(link.startswith("data:image/jpeg;base64,") for link in page.links)
    assert page.open == []
    assert "\x1b" not in report.read_text(encoding="utf-8")


def test_the_export_has_no_formula_and_a_file_of_its_own_for_each_shop(ended: Ended) -> None:
    folder = ended.sample.folder / OUTPUT
    manifest = json.loads((folder / "_shops.json").read_text())
    assert {*manifest, "_shops.json"} == {path.name for path in folder.iterdir()}
    assert {PATH, FORMULA, SQL, HTML} <= set(manifest.values())
    rows = []
    for file in folder.glob("*.csv"):
        with file.open(newline="", encoding="utf-8") as stream:
            rows += list(csv.DictReader(stream))
    assert len(rows) == ended.summaries["export"]["suggestions"]
    assert f"'{FORMULA} red" in {row["title"] for row in rows}
    formulas = [cell for row in rows for cell in row.values() if cell.lstrip().startswith(("=", "+", "-", "@"))]
    assert formulas == []


def test_the_exported_values_have_no_formula(ended: Ended) -> None:
    with (ended.sample.folder / VALUES).open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == ended.summaries["values"]["values"]
    cells = {cell for row in rows for cell in row.values()}
    assert cells >= {f"'{FORMULA}", SQL, HTML, TERMINAL}
    assert [cell for cell in cells if cell.lstrip().startswith(("=", "+", "-", "@"))] == []


def test_nothing_is_written_outside_the_folders_of_the_config(ended: Ended) -> None:
    folder = ended.sample.folder
    assert [path for path in ended.outside.rglob("*") if path.stem == "escaped"] == []
    assert [path for path in ended.outside.rglob("*") if folder not in (path, *path.parents)] == [
        ended.outside / "a", ended.outside / "a" / "b",
    ]  # fmt: skip
    assert not Path("/escaped").exists()
    assert {path.name for path in folder.iterdir() if not path.name.endswith(".lock")} <= {
        "catalog", "reports", OUTPUT, VALUES, "feed", "config.toml", "attributes.json", "mlflow.db", "mlartifacts",
    }  # fmt: skip


def test_categories_are_compared_as_texts(ended: Ended) -> None:
    assert ended.summaries["backfill"]["products"] == 2
    assert "DROP TABLE" in ended.summaries["misspelled"]["message"]
    assert ended.summaries[f"explain {SQL}"]["product_id"] == SQL


def test_no_secret_is_printed_stored_or_reported(ended: Ended) -> None:
    secrets = (IN_FEED, SIGNED, IN_CONFIG, IN_ENVIRONMENT)
    found = [secret for secret in secrets if secret in ended.printed]
    for name in ("runs", "quarantine", "predictions", "attribute_values", "current_values"):
        text = str(table(ended.sample, name))
        found += [f"{name}: {secret}" for secret in secrets if secret in text]
    for path, text in ended.written_texts().items():
        found += [f"{path.name}: {secret}" for secret in secrets if secret in text]
    assert found == []
    quarantined = [row["payload"] for row in table(ended.sample, "quarantine") if row["payload"]]
    assert any("://***@" in payload and "***" in payload for payload in quarantined)
    assert "spark.hadoop.fs.s3a.secret.key" in str(table(ended.sample, "runs"))


def test_no_control_character_reaches_the_terminal(ended: Ended) -> None:
    assert [character for character in ended.printed if ord(character) < 32 and character not in "\n\t"] == []
    assert "\u202e" not in ended.printed
