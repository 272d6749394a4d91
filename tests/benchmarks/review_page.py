"""The review page over the demo's catalog: time per verdict by keyboard, weight, first question, axe, screenshots.

    python -m tests.benchmarks.review_page [--folder var/demo] [--verdicts 40] [--images docs/images] [--set KEY=VALUE]

After `make demo`. Prints a line per figure and one JSON line last. A person's time is not in it: the keys are pressed
as soon as the next question is shown, so it is what the page adds to every verdict.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from catalog_enrichment.audit.review_records import Answer, Verdict
from catalog_enrichment.audit.review_store import ReviewStore
from catalog_enrichment.config.load import load_config
from catalog_enrichment.demo.audit_demo import draw

from ..audit.review_server import served
from .benchmark import arguments, chromium, print_json

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PHONE: dict[str, Any] = {
    "viewport": {"width": 390, "height": 844},
    "device_scale_factor": 2,
    "has_touch": True,
    "is_mobile": True,
}
DESKTOP: dict[str, Any] = {"viewport": {"width": 1180, "height": 800}}


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--folder", type=Path, default=Path("var/demo"))
    parser.add_argument("--verdicts", type=int, default=40)
    parser.add_argument("--images", type=Path, help="folder for the screenshots")
    parser.add_argument("--set", action="append", default=[])
    args = parser.parse_args()
    program = chromium()
    config = load_config("config:demo.toml", [f"root={json.dumps(str(args.folder.resolve()))}", *args.set])
    from playwright.sync_api import sync_playwright

    with (
        tempfile.TemporaryDirectory() as folder,
        ReviewStore(Path(folder) / "review.sqlite") as store,
        sync_playwright() as playwright,
    ):
        sample = store.sample(draw(config, store, 200)["sample_id"])
        items = store.items(sample.sample_id)
        with served(config, store) as port:
            browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
            own = f"http://127.0.0.1:{port}"
            figures = _measured(browser, own, sample.sample_id, args.verdicts)
            if args.images:
                for number, item in enumerate(items[:60]):  # so that the overview has something to say
                    answer, now = Answer.NO if number % 12 == 0 else Answer.YES, datetime.now(UTC)
                    store.add_verdict(
                        Verdict(item_id=item.item_id, reviewer="Ben", answer=answer, answered_at=now, seconds=4.0)
                    )
                figures["images"] = _pictured(browser, own, sample.sample_id, items[0].product_id, args.images)
            browser.close()
    for name, figure in figures.items():
        print(f"{name}: {figure}", file=sys.stderr)
    print_json(figures)
    return 0


def _page(browser: Browser, own: str, path: str, **options: Any) -> Page:
    context = browser.new_context(**options)
    context.add_cookies([{"name": "audit_name", "value": "Ana", "url": own}])
    page = context.new_page()
    page.goto(own + path)
    return page


def _measured(browser: Browser, own: str, sample_id: str, verdicts: int) -> dict[str, Any]:
    from axe_playwright_python.sync_playwright import Axe

    began = time.monotonic()
    page = _page(browser, own, f"/samples/{sample_id}/review", **DESKTOP)
    page.locator("#card").wait_for()
    first = time.monotonic() - began
    page.wait_for_load_state("networkidle")
    resources = page.evaluate(
        "performance.getEntriesByType('resource').concat(performance.getEntriesByType('navigation'))"
        ".map((entry) => [entry.name, entry.transferSize])"
    )
    weight = {kind: sum(size for name, size in resources if ("/pictures/" in name) == kind) for kind in (False, True)}
    seconds = []
    for number in range(verdicts):
        page.locator("#card").wait_for()
        title = page.locator("#numbers").inner_text()
        shown = time.monotonic()
        page.keyboard.press("yn"[number % 5 == 4])
        while page.locator("#numbers").inner_text() == title:  # the server has it and the next question is shown
            page.wait_for_timeout(2)
        seconds.append(time.monotonic() - shown)
    return {
        "first question, s": round(first, 2),
        "kB without pictures": round(weight[False] / 1000, 1),
        "kB of pictures, three questions": round(weight[True] / 1000, 1),
        "verdict by keyboard until saved, median s": round(statistics.median(seconds), 3),
        "slowest s": round(max(seconds), 3),
        "axe violations": len(Axe().run(page).response["violations"]),
    }


def _pictured(browser: Browser, own: str, sample_id: str, product_id: str, folder: Path) -> list[str]:
    """Write the screenshots; return their names and sizes."""
    folder.mkdir(parents=True, exist_ok=True)
    review = f"/samples/{sample_id}/review"
    for name, path, options in (
        ("review", review, DESKTOP),
        ("review_phone", review, PHONE),
        ("review_dark", review, DESKTOP | {"color_scheme": "dark"}),
        ("review_samples", "/", DESKTOP),
        ("review_product", f"/products?product_id={product_id}", DESKTOP),
    ):
        page = _page(browser, own, path, **options)
        page.wait_for_load_state("networkidle")
        if path == review:
            page.locator("#card").wait_for()
        file = folder / f"{name}.png"
        page.screenshot(path=file)
        with Image.open(file) as image:  # a palette of 128 colours: a third of the bytes
            small = image.convert("RGB").quantize(128)
        small.save(file, optimize=True)
    return [f"{file.name} {file.stat().st_size // 1000} kB" for file in sorted(folder.glob("review*.png"))]


if __name__ == "__main__":
    sys.exit(main())
