"""Every figure can be drawn from plain data, also from none, and shows what it is about."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field
from io import BytesIO
from typing import TYPE_CHECKING, Any

import pytest

from catalog_enrichment.precision.certificate import Certificate
from catalog_enrichment.report import plots

from .report_samples import abstention, certificate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CURVE = {"thresholds": [0.99, 0.9, 0.8, 0.1], "precision": [1.0, 0.98, 0.96, 0.6], "recall": [0.1, 0.3, 0.5, 0.7]}
BINS = {"confidence": [0.3, 0.9], "accuracy": [0.25, 0.93], "count": [10, 90], "expected_error": 0.032}
HISTORY = [
    {"epoch": 1.0, "train_loss": 1.0, "validation_loss": 0.9, "learning_rate": 1e-4},
    {"epoch": 2.0, "train_loss": 0.5, "validation_loss": 0.7, "learning_rate": 1e-5},
]


@dataclass
class Trained:
    certificates: list[Certificate] = field(default_factory=list)
    curves: dict[str, dict[str, Any]] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)


def words(figure: Figure) -> str:
    (axes,) = figure.axes
    legend = axes.get_legend()
    texts = [axes.get_title(loc="left"), *(text.get_text() for text in axes.texts)]
    return " | ".join(texts + ([text.get_text() for text in legend.get_texts()] if legend else []))


def drawn(figure: Figure) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def test_a_training_has_a_figure_for_everything() -> None:
    modalities = {"both": CURVE, "text_only": CURVE, "image_only": CURVE, "both, picture masked": CURVE}
    trained = Trained(
        [certificate(), abstention()],
        {
            "precision_recall": {"color": modalities, "season": {"text_only": CURVE}},
            "reliability": {"color": BINS},
            "attention": {"color": {"edges": [0.0, 0.5, 1.0], "counts": [3, 7]}},
        },
        HISTORY,
    )
    figures = plots.training_figures(trained)
    assert sorted(figures) == [
        "color/attention", "color/both/fixed_sequence", "color/both/scores", "color/precision_recall",
        "color/reliability", "season/both/fixed_sequence", "season/both/scores", "season/precision_recall",
        "training_history",
    ]  # fmt: skip
    for figure in figures.values():
        assert drawn(figure).startswith(b"\x89PNG")


def test_the_certified_threshold_is_marked_where_it_accepts() -> None:
    figure = plots.precision_recall("color", {"both": CURVE}, certificate(threshold=0.85))
    assert "certified, score >= 0.850" in words(figure)
    (mark,) = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert (list(mark.get_xdata()), list(mark.get_ydata())) == ([0.3], [0.98])
    assert "certified" not in words(plots.precision_recall("color", {"both": CURVE}))


def test_the_fixed_sequence_shows_its_stop_or_why_it_abstains() -> None:
    assert "stop" in words(plots.fixed_sequence(certificate()))
    assert "9 of 153 wrong" in words(plots.fixed_sequence(abstention())).replace("\n", " ")


def test_the_kept_epoch_is_the_one_of_least_validation_loss() -> None:
    (mark,) = [line for line in plots.history(HISTORY).axes[0].lines if line.get_marker() == "o"]
    assert list(mark.get_xdata()) == [2.0]


def test_no_data_is_an_empty_figure_and_no_error() -> None:
    empty: dict[str, Any] = {"confidence": [], "accuracy": [], "count": [], "expected_error": 0.0}
    for figure in (plots.history([]), plots.reliability("x", empty), plots.precision_recall("x", {})):
        drawn(figure)


@pytest.mark.filterwarnings("error")
def test_names_may_hold_dollars() -> None:
    drawn(plots.precision_recall("price in $ or $_{", {"both": CURVE}))


def test_importing_the_room_imports_neither_matplotlib_nor_jinja() -> None:
    code = (
        "import sys\nfrom catalog_enrichment.report import html, plots, tables\n"
        "print([m for m in ('matplotlib', 'jinja2', 'torch', 'pyspark', 'mlflow', 'PIL') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
