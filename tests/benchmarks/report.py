"""How long a browser takes to open a run report with many samples, and whether it fits a phone.

    python -m tests.benchmarks.report [--samples 5000] [--folder FOLDER]
    python -m tests.benchmarks.report --page REPORT.html --screenshots FOLDER

Opens the page three times in headless Chromium at 1280 and at 390 pixels, each time in a new browser, and prints a
JSON line: seconds from the request to the first painted frame after the load event (the median), whether the body is
wider than the window, and whether the first coverage bar is inside it. Chromium is a tool of this benchmark alone.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

from .benchmark import arguments, chromium, print_json

WIDTHS = {"desktop": (1280, 800), "phone": (390, 844)}
REPEATS = 3

_PAINTED = """new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => {
  const bar = document.querySelector('.coverage .bar')?.getBoundingClientRect();
  done({wider: document.documentElement.scrollWidth > document.documentElement.clientWidth,
        bar: !bar || (bar.left >= 0 && bar.right <= innerWidth && bar.width > 20)});
})))"""


def open_page(program: str, page: Path, width: int, height: int, screenshot: Path | None) -> tuple[float, Any]:
    """Return the seconds to open ``page`` in a new browser of ``width`` x ``height`` CSS pixels, and what was seen."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--hide-scrollbars"])
        opened = browser.new_page(viewport={"width": width, "height": height}, is_mobile=width < 600)
        started = time.perf_counter()
        opened.goto(page.resolve().as_uri())
        seen = opened.evaluate(_PAINTED)
        seconds = time.perf_counter() - started
        if screenshot is not None:
            opened.screenshot(path=screenshot)
        browser.close()
    return seconds, seen


def write_page(path: Path, samples: int) -> Path:
    """Write a report with ``samples`` samples of two attributes, each with a picture of its own."""
    import numpy as np
    from PIL import Image

    from catalog_enrichment.report.run_page import Sample, write_run_report

    from ..report.report_samples import full_report

    draw = np.random.default_rng(1)

    def picture() -> bytes:
        coarse = Image.fromarray(draw.integers(0, 255, (9, 9, 3), dtype=np.uint8)).resize((160, 160))
        noisy = np.asarray(coarse, np.int16) + draw.integers(-8, 8, (160, 160, 3))
        buffer = BytesIO()
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG")
        return buffer.getvalue()

    many = [
        Sample(product_id=f"p{n:05}", attribute=("color", "season")[n % 2], value=f"value {n % 40}", score=0.9,
               title=f"Product number {n} with a title of the usual length, in words", modality="both",
               attention=n % 100 / 100, picture=picture())
        for n in range(samples)
    ]  # fmt: skip
    third = samples // 3
    report = replace(
        full_report(), published=many[:third], near_misses=many[third : 2 * third], disagreements=many[2 * third :]
    )
    return write_run_report(path, report)


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--samples", type=int, default=5000)
    parser.add_argument("--page", type=Path, help="an existing report, instead of a generated report")
    parser.add_argument("--folder", type=Path, help="where the generated report is kept")
    parser.add_argument("--screenshots", type=Path, help="folder for desktop.png and phone.png")
    args = parser.parse_args()
    program = chromium()
    with tempfile.TemporaryDirectory() as temporary:
        page = args.page or write_page((args.folder or Path(temporary)) / "report.html", args.samples)
        figures: dict[str, Any] = {"samples": None if args.page else args.samples}
        figures["megabytes"] = round(page.stat().st_size / 1e6, 1)
        for name, size in WIDTHS.items():
            screenshot = args.screenshots and args.screenshots / f"{name}.png"
            opened = [open_page(program, page, *size, screenshot) for _ in range(REPEATS)]
            figures[f"{name}_seconds"] = round(statistics.median(seconds for seconds, _ in opened), 2)
            figures[f"{name}_wider_than_window"] = opened[0][1]["wider"]
            figures[f"{name}_coverage_bar_visible"] = opened[0][1]["bar"]
    print_json(figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
