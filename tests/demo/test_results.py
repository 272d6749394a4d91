"""What the demo wrote is compared with the truth, per certificate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from catalog_enrichment.catalog.base import Catalog
from catalog_enrichment.demo.results import PATH_COLUMNS, Written, path_results, precision_of, written_by_certificate
from catalog_enrichment.records import Modality
from catalog_enrichment.report.tables import aligned_table

from ..sample_certificate import abstention, certificate


class CurrentValues:
    """A catalog that has current values only."""

    def __init__(self, *rows: tuple[str, str, list[str], str, str | None]) -> None:
        self.rows = rows

    def scan(self, table: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        assert table == "current_values"
        yield pa.RecordBatch.from_pylist([dict(zip(columns, row, strict=True)) for row in self.rows])


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    rows = [{"product_id": f"p{n}", "attribute": "material", "values": ["Silk", "Wool"]} for n in range(6)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "truth.parquet")
    return tmp_path / "truth.parquet"


def test_a_product_is_right_if_every_value_of_the_run_is_true(truth: Path) -> None:
    catalog = CurrentValues(
        ("p0", "material", ["Silk", "Wool"], "run", "with"),
        ("p1", "material", ["Wool"], "run", "with"),
        ("p2", "material", ["Linen", "Wool"], "run", "with"),
        ("p3", "material", ["Silk"], "run", "without"),
        ("p4", "material", ["Linen"], "another run", "without"),
        ("p5", "material", ["Linen"], "run", "without"),
    )
    written = written_by_certificate(cast("Catalog", catalog), truth, "run")
    assert written == {"with": Written(3, 2), "without": Written(2, 1)}


def test_the_table_has_a_row_for_each_path() -> None:
    both = certificate(attribute="material")
    text_only = certificate(attribute="material", modality=Modality.TEXT_ONLY, accepted=200, wrong=2, lower_bound=0.968)
    paths = path_results(
        [both, text_only, abstention()],
        {both.certificate_id: Written(30, 27), text_only.certificate_id: Written(10, 10)},
    )
    assert aligned_table(paths, PATH_COLUMNS).splitlines()[2:] == [
        "material   with text and picture          30   90.0%  8 of 400 accepted certification products wrong: "
        "at least 96.4% right",
        "material   without a usable picture       10  100.0%  2 of 200 accepted certification products wrong: "
        "at least 96.8% right",
        "color      with text and picture           0       -  abstains: poor",
    ]
    shown: list[dict[str, Any]] = [{name: path[name] for name in ("modality", "certified", "right")} for path in paths]
    assert shown == [
        {"modality": "both", "certified": True, "right": 27},
        {"modality": "text_only", "certified": True, "right": 10},
        {"modality": "both", "certified": False, "right": 0},
    ]


def test_precision_of_an_attribute_is_over_both_paths() -> None:
    paths = [
        {"attribute": "material", "written": 30, "right": 27},
        {"attribute": "material", "written": 10, "right": 10},
        {"attribute": "color", "written": 0, "right": 0},
    ]
    assert precision_of(paths, "material") == 0.925
    assert precision_of(paths, "color") is None
