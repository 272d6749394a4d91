"""A year of a shop in one run: 52 imports and nights, with everything that happens to a catalog in between.

    python -m tests.lifecycle.year [--weeks 52] [--events-only] [--products 2000] [--folder FOLDER] [--table]

All jobs run in this process, in one Spark session, as their console scripts do. After every night the checks of
checks.py are made, and no job may end with another exit code than planned. The clock is that of the machine: a week
takes seconds, so no certificate expires. ``--table`` prints a row per night; the last line is a JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from catalog_enrichment.monitoring.text_tables import aligned_table

from . import checks
from .checks import Seen, Tables
from .project import Ended, Project
from .table import COLUMNS, Night
from .world import Key, World

CANDIDATES = 4
"""Most candidates that are trained for a promotion."""
PRECISION = 0.95
"""What is promised of the model values that readers see."""


class Year:
    """The shop, its project, and the events of a year."""

    def __init__(self, folder: Path, products: int, say: Callable[[str], None]) -> None:
        self.project, self.world, self.say = Project(folder), World(products), say
        self.nights: list[Night] = []
        self.tables = Tables([], [], [], [], {})
        self.version = ""
        """The champion; empty before the first training."""
        self.gone: list[str] = []
        """Products that were removed."""
        self.enriched: Ended | None = None
        """How tonight's enrichment ended."""
        self.after_night: list[Callable[[], None]] = []
        """What is to be checked after tonight's enrichment."""
        self._codes: list[str] = []

    def run(self, weeks: Iterable[int]) -> None:
        """Run the ``weeks``, in order. Raises AssertionError at the first check that fails."""
        for week in weeks:
            started, events = time.monotonic(), []
            self._codes = []
            if week > 1:
                self.world.usual_week()
            if week in BEFORE:
                events.append(BEFORE[week](self))
            self.night()
            if week in AFTER:
                events.append(AFTER[week](self))
            self._record(week, "; ".join(events), time.monotonic() - started)

    def job(self, name: str, *arguments: str, expected: int = 0) -> Ended:
        """Run a job, which has to end with the ``expected`` exit code."""
        started = time.monotonic()
        ended = self.project.run(name, *arguments)
        self.say(f"  {name} {' '.join(arguments)}: exit {ended.code}, {time.monotonic() - started:.1f} s")
        self._codes.append(str(ended.code))
        assert ended.code == expected, f"{name} ended with {ended.code}: {ended.printed[-4000:]}"
        return ended

    def night(self) -> None:
        """Import and enrich, and check; no enrichment before there is a model."""
        self.project.write(self.world)
        rows = self.world.write_feed(self.project.feed)
        checks.check_import(self.job("import_products"), rows)
        self.enriched = self.job("enrich_catalog", "--no-report") if self.version else None
        self.look()
        if self.enriched and self.enriched.summary["run_id"]:
            checks.check_enrichment(self.enriched, self.tables)
        while self.after_night:
            self.after_night.pop()()

    def look(self) -> None:
        """Read the tables again, and check them."""
        self.tables = Tables.of(self.project)
        checks.check(self.tables, self.project, self.world)
        shops = {row["product_id"]: row["shop_id"] for row in self.tables.products}
        if self.project.settings:
            assert not [key for key in self.tables.model_values() if shops[key[0]] == "birch"]

    def _record(self, week: int, event: str, seconds: float) -> None:
        numbers = self.enriched.summary["attributes"].values() if self.enriched else []
        seen = self.tables.model_values()
        right = sum(self.world.true_value(*key) == value for key, value in seen.items())
        known = set(self.world.words.values)
        with_value = sum(attribute in known for _, attribute in self.tables.view)
        self.nights.append(
            Night(
                week=week,
                event=event,
                exit_codes=" ".join(self._codes),
                products=len(self.tables.products),
                published=sum(row["written"] for row in numbers),
                retracted=sum(row["retracted"] for row in numbers),
                visible=len(seen),
                precision=round(right / len(seen), 4) if seen else None,
                coverage=round(with_value / (len(self.tables.products) * len(known)), 4),
                seconds=round(seconds, 1),
            )
        )
        assert not seen or right >= PRECISION * len(seen), f"{right} of {len(seen)} visible model values are right"
        self.say(f"week {week}: {asdict(self.nights[-1])}")

    def summary(self) -> dict[str, Any]:
        """Return the year in numbers."""
        last, known = self.nights[-1], [night.precision for night in self.nights if night.precision is not None]
        return {
            "nights": len(self.nights),
            "events": sum(bool(night.event) for night in self.nights),
            "exit_codes": dict(Counter(code for night in self.nights for code in night.exit_codes.split())),
            "products": last.products,
            "published": sum(night.published for night in self.nights),
            "retracted": sum(night.retracted for night in self.nights),
            "visible": last.visible,
            "precision": last.precision,
            "lowest_precision": min(known, default=None),
            "coverage": last.coverage,
            "seconds": round(sum(night.seconds for night in self.nights)),
        }

    # --- events -------------------------------------------------------------------------------------------------------

    def train(self) -> str:
        """Train, promote and enrich: the new version decides every product.

        By bad luck labelled and unlabelled products seem unlike: about each tenth certificate abstains for it. Such a
        candidate is not promoted, and other folds are drawn.
        """
        for seed in range(CANDIDATES):
            trained = self.job("train_model", "--set", f"training.folds.seed={seed}").summary
            certified = {known["attribute"] for known in trained["certificates"] if known["threshold"] is not None}
            if certified == set(self.world.words.values):
                break
        assert certified == set(self.world.words.values), trained["certificates"]
        version = trained["model_version"]
        self.job("promote_model", "--to-version", version, "--override", "so few test products decide nothing")
        self.version = version
        self.enriched = self.job("enrich_catalog", "--no-report")
        self.look()
        checks.check_enrichment(self.enriched, self.tables)
        return f"version {version} trained and promoted"

    def again(self) -> str:
        """Start the night again: it changes nothing and says so (I5)."""
        before = self.tables
        for name in ("import_products", "enrich_catalog"):
            ended = self.job(name)
            assert ended.summary["status"] == "nothing_to_do", ended.printed
        self.look()
        assert self.tables.view == before.view
        assert self.tables.by_id == before.by_id
        assert len(self.tables.predictions) == len(before.predictions)
        return "the night again"

    def audit(self) -> str:
        """Draw written values, let people who know the truth judge them, and take their verdicts in."""
        drawn = self.job("audit_sample", "--uniform", "100", "--near", "20", "--reviewers", "1").summary
        wrong = self.project.judge(drawn["sample_id"], self.world)
        self.job("audit_ingest")
        self.look()
        return f"audit: {drawn['items']} judged, {wrong} wrong"

    def rename(self) -> str:
        self.world.words.rename("color", "Grey", "Gray")
        return "Grey is called Gray"

    def merge(self) -> str:
        self.world.words.rename("color", "Charcoal", "Gray")
        return "Charcoal is merged into Gray"

    def remove_value(self) -> str:
        self.world.words.values["color"].remove("Beige")
        return "the value Beige is removed"

    def add_value(self) -> str:
        self.world.words.values["color"].append("Teal")
        self.expects("color", "Teal", "train")
        return "the value Teal is added"

    def remove_attribute(self) -> str:
        self.world.words.remove("season")
        self.after_night.append(lambda: self.explained("season"))
        return "the attribute season is removed"

    def add_attribute(self) -> str:
        self.world.words.add("pattern")
        self.expects("pattern", "train")
        return "the attribute pattern is added"

    def move_category(self) -> str:
        moved = [listing for listing in self.world.listings.values() if listing.category == MOVED[0]]
        for listing in moved:
            self.world.change(listing, category=MOVED[1])
        return f"{len(moved)} products move to {MOVED[1]}"

    def leave_out(self) -> str:
        gone = [listing.product_id for listing in self.world.some(12)]
        self.world.leave_out(gone)
        self.gone += gone
        return f"{len(gone)} products are not in the feed any more"

    def delete_by_feed(self) -> str:
        gone = [listing.product_id for listing in self.world.some(5)]
        self.world.delete(gone)
        self.gone += gone
        return f"the feed deletes {len(gone)} products"

    def delete_by_job(self) -> str:
        gone = [listing.product_id for listing in self.world.some(4)]
        self.world.forget(gone)
        self.gone += gone
        self.job("delete_products", *gone)
        self.look()
        return f"delete_products of {len(gone)} products"

    def come_back(self) -> str:
        back, self.gone = self.gone[:3], self.gone[3:]
        for product_id in back:
            self.world.put_back(product_id)
        return f"{len(back)} products come back, as new ones"

    def switch_shop_off(self) -> str:
        self.project.settings.append('enrich.disabled_shops=["birch"]')
        return "the shop birch is switched off"

    def switch_shop_on(self) -> str:
        self.project.settings.clear()
        return "the shop birch is switched on"

    def set_values(self) -> str:
        """Correct a value, say that there is none, and take both back."""
        keys = sorted(key for key, seen in self.tables.view.items() if seen.source == "model")[:2]
        before, runs = self.tables.view, []
        (first, name), (second, other) = keys
        runs.append(self.job("set_value", first, name, self.world.words.values[name][0]).summary["run_id"])
        runs.append(self.job("set_value", second, other, "--remove").summary["run_id"])
        self.look()
        assert self.tables.view[first, name].source == "human"
        assert (second, other) not in self.tables.view
        for run_id in runs:
            self.job("rollback_run", "--run-id", run_id)
        self.look()
        assert self.tables.view == before
        return "two corrections, taken back"

    def roll_back(self) -> str:
        """Run another night, take its enrichment back, and take that back (I6)."""
        for listing in self.world.some(30):
            self.world.change(listing, noun="cardigan")
        rows = self.world.write_feed(self.project.feed)
        checks.check_import(self.job("import_products"), rows)
        before = Tables.of(self.project).view
        run_id = self.job("enrich_catalog", "--no-report").summary["run_id"]
        self.look()
        after = self.tables.view
        assert after != before
        self._undo_twice(before, after, "--run-id", run_id)
        return "a run rolled back, and the rollback"

    def roll_back_version(self) -> str:
        """Take back all that the newest version wrote, and take that back (I6)."""
        after = self.tables.view
        undone = self._undo_twice(None, after, "--model-version", self.version)
        return f"version {self.version} rolled back ({undone} values), and the rollback"

    def _undo_twice(self, before: dict[Key, Seen] | None, after: dict[Key, Seen], *what: str) -> int:
        run_id = self.job("rollback_run", *what).summary["run_id"]
        self.look()
        undone = self.tables.view
        assert undone == before if before is not None else undone != after
        self.job("rollback_run", "--run-id", run_id)
        self.look()
        assert self.tables.view == after
        return sum(after.get(key) != undone.get(key) for key in after.keys() | undone.keys())

    def maintain(self) -> str:
        self.job("maintain_catalog")
        view = self.tables.view
        self.look()
        assert self.tables.view == view
        return "maintain_catalog"

    def expects(self, *words: str) -> None:
        """Expect tonight's enrichment to print a line with all of ``words``."""

        def check() -> None:
            lines = self.enriched.printed.splitlines() if self.enriched else []
            assert any(all(word in line for word in words) for line in lines), f"no line with {words}: {lines}"

        self.after_night.append(check)

    def explained(self, attribute: str) -> None:
        """Check that no model value of ``attribute`` is seen any more, and that explain_value knows those of before."""
        assert not [key for key in self.tables.model_values() if key[1] == attribute]
        event = next(event for event in self.tables.events if event["attribute"] == attribute)
        self.job("explain_value", "--product-id", event["product_id"], "--attribute", attribute)


MOVED = ("Home/Textiles", "Living/Textiles")
"""A category, and the category that its products move to, which no certificate has seen."""

BEFORE: dict[int, Callable[[Year], str]] = {
    6: Year.rename,
    11: Year.merge,
    15: Year.remove_value,
    17: Year.move_category,
    20: Year.leave_out,
    24: Year.delete_by_feed,
    27: Year.come_back,
    29: Year.remove_attribute,
    31: Year.add_attribute,
    40: Year.add_value,
    43: Year.switch_shop_off,
    45: Year.switch_shop_on,
}
"""Week -> what happens before its import."""

AFTER: dict[int, Callable[[Year], str]] = {
    1: Year.train,
    2: Year.again,
    4: Year.audit,
    7: Year.again,
    9: Year.roll_back,
    13: Year.set_values,
    18: Year.again,
    25: Year.delete_by_job,
    33: Year.train,
    36: Year.audit,
    41: Year.again,
    47: Year.roll_back_version,
    50: Year.maintain,
    52: Year.again,
}
"""Week -> what happens after its night."""


_JVM_OPTIONS = "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=256m -XX:+UseSerialGC"
"""As in tests/conftest.py: the second compiler costs more than it saves on a few rows."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m tests.lifecycle.year", description=__doc__)
    parser.add_argument("--weeks", type=int, default=52)
    parser.add_argument("--events-only", action="store_true", help="leave out the weeks in which nothing else happens")
    parser.add_argument("--products", type=int, default=2000)
    parser.add_argument("--folder", type=Path, help="an empty folder that is kept; default: a temporary one")
    parser.add_argument("--table", action="store_true", help="print a row per night")
    args = parser.parse_args(argv)
    # as in tests/conftest.py: the second compiler costs more than it saves on a few rows
    os.environ.setdefault(
        "SPARK_SUBMIT_OPTS", "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=256m -XX:+UseSerialGC"
    )
    with TemporaryDirectory() as temporary:
        year = Year(args.folder or Path(temporary), args.products, lambda line: print(line, file=sys.stderr))
        weeks = range(1, args.weeks + 1)
        year.run([week for week in weeks if week in BEFORE or week in AFTER or not args.events_only])
    if args.table:
        print(f"{aligned_table([asdict(night) for night in year.nights], COLUMNS)}\n")
    print(json.dumps(year.summary()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
