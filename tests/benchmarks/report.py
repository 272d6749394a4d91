"""How long a browser takes to open a run report with many samples, and whether it fits a phone.

    python -m tests.benchmarks.report [--samples 5000] [--folder FOLDER] [--chromium PROGRAM]
    python -m tests.benchmarks.report --page REPORT.html --screenshots FOLDER

Opens the page three times in headless Chromium at 1280 and at 390 pixels, each time in a new browser, and prints one
JSON line: seconds from the request to the first painted frame after the load event (the median), whether the body is
wider than the window, and whether the first coverage bar is inside it. Chromium is a tool of this benchmark alone.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

WIDTHS = {"desktop": (1280, 800), "phone": (390, 844)}
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
REPEATS = 3

_PAINTED = """new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => {
  const bar = document.querySelector('.coverage .bar')?.getBoundingClientRect();
  done({wider: document.documentElement.scrollWidth > document.documentElement.clientWidth,
        bar: !bar || (bar.left >= 0 && bar.right <= innerWidth && bar.width > 20)});
})))"""


class Browser:
    """Chromium over its DevTools protocol, on pipes."""

    def __init__(self, program: str, profile: str) -> None:
        to_browser, self._send = os.pipe()
        self._receive, from_browser = os.pipe()
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"]
        command = [program, *options, f"--user-data-dir={profile}", "--remote-debugging-pipe", "about:blank"]
        script = f'exec "$@" 3<&{to_browser} 4>&{from_browser}'
        self.process = subprocess.Popen(
            ["bash", "-c", script, "bash", *command], pass_fds=(to_browser, from_browser), stderr=subprocess.DEVNULL
        )
        os.close(to_browser)
        os.close(from_browser)
        self._unread, self._number, self._events = b"", 0, list[str]()
        self._session: str | None = None
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The result of a command. Raises RuntimeError if the browser refuses it or ends."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        message |= {"sessionId": self._session} if self._session else {}
        os.write(self._send, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return dict(answer["result"])

    def wait_for(self, event: str) -> None:
        while event not in self._events:
            self._next()

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._unread:
            if not (read := os.read(self._receive, 1 << 20)):
                raise RuntimeError("the browser has ended")
            self._unread += read
        message, _, self._unread = self._unread.partition(b"\0")
        content: dict[str, Any] = json.loads(message)
        self._events += [content["method"]] if "method" in content else []
        return content


@contextmanager
def browser(program: str) -> Iterator[Browser]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        opened = Browser(program, profile)
        try:
            yield opened
        finally:
            opened.process.kill()
            opened.process.wait()


@dataclass(frozen=True, slots=True)
class Opened:
    """What was seen when the page was opened once."""

    seconds: float
    wider: bool
    """Whether the body is wider than the window."""
    bar_visible: bool
    screenshot: bytes
    """PNG of the first screen."""


def open_page(program: str, page: Path, width: int, height: int, dark: bool = False) -> Opened:
    """Open ``page`` in a new browser with a window of ``width`` x ``height`` CSS pixels."""
    with browser(program) as one:
        one.ask("Page.enable")
        one.ask(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        one.ask(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}],
        )
        started = time.perf_counter()
        one.ask("Page.navigate", url=page.resolve().as_uri())
        one.wait_for("Page.loadEventFired")
        found = one.ask("Runtime.evaluate", expression=_PAINTED, awaitPromise=True, returnByValue=True)
        seconds = time.perf_counter() - started
        seen = found["result"]["value"]
        screenshot = base64.b64decode(one.ask("Page.captureScreenshot", format="png")["data"])
    return Opened(seconds, seen["wider"], seen["bar"], screenshot)


def write_page(path: Path, samples: int) -> Path:
    """A report with ``samples`` samples of two attributes, each with a picture of its own."""
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
    report = full_report()
    third = samples // 3
    return write_run_report(
        path,
        replace(report, published=many[:third], near_misses=many[third : 2 * third], disagreements=many[2 * third :]),
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--samples", type=int, default=5000)
    parser.add_argument("--page", type=Path, help="an existing report, instead of a generated one")
    parser.add_argument("--folder", type=Path, help="where the generated report is kept")
    parser.add_argument("--screenshots", type=Path, help="folder for desktop.png and phone.png")
    parser.add_argument("--chromium", help=f"by default the first of {', '.join(PROGRAMS)} that is installed")
    args = parser.parse_args()
    program = shutil.which(args.chromium) if args.chromium else next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        print("no Chromium was found: apt-get install chromium, or name it with --chromium", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as temporary:
        page = args.page or write_page((args.folder or Path(temporary)) / "report.html", args.samples)
        results: dict[str, Any] = {"samples": None if args.page else args.samples}
        results["megabytes"] = round(page.stat().st_size / 1e6, 1)
        for name, (width, height) in WIDTHS.items():
            opened = [open_page(program, page, width, height) for _ in range(REPEATS)]
            results[f"{name}_seconds"] = round(statistics.median(one.seconds for one in opened), 2)
            results[f"{name}_wider_than_window"] = opened[0].wider
            results[f"{name}_coverage_bar_visible"] = opened[0].bar_visible
            if args.screenshots:
                args.screenshots.mkdir(parents=True, exist_ok=True)
                (args.screenshots / f"{name}.png").write_bytes(opened[0].screenshot)
    print(json.dumps(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
