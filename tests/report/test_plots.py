"""Every figure can be drawn from plain data and from empty data, and its title names what it shows."""

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
class TrainingResult:
    certificates: list[Certificate] = field(default_factory=list)
    curves: dict[str, dict[str, Any]] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)


def value(name: str, support: int, f1: float = 0.8, r_at_p95: float = 0.4, attribute: str = "color") -> dict[str, Any]:
    return {"attribute": attribute, "value": name, "support": support, "f1": f1, "r_at_p95": r_at_p95}


def pair(true: str, predicted: str, products: int, attribute: str = "color") -> dict[str, Any]:
    return {"attribute": attribute, "true": true, "said": predicted, "products": products}


def bar_names(figure: Figure) -> list[str]:
    return [label.get_text() for label in figure.axes[0].get_yticklabels()]


def bar_lengths(figure: Figure) -> list[list[float]]:
    """Per series of bars."""
    return [[float(bar.get_width()) for bar in bars] for bars in figure.axes[0].containers]


def shown_text(figure: Figure) -> str:
    (axes,) = figure.axes
    legend = axes.get_legend()
    texts = [axes.get_title(loc="left"), *(text.get_text() for text in axes.texts)]
    return " | ".join(texts + ([text.get_text() for text in legend.get_texts()] if legend else []))


def drawn(figure: Figure) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def test_a_training_has_every_figure() -> None:
    modalities = {"both": CURVE, "text_only": CURVE, "image_only": CURVE, "both, picture masked": CURVE}
    trained = TrainingResult(
        [certificate(), abstention()],
        {
            "precision_recall": {"color": modalities, "season": {"text_only": CURVE}},
            "reliability": {"color": BINS},
            "attention": {"color": {"edges": [0.0, 0.5, 1.0], "counts": [3, 7]}},
        },
        HISTORY,
        {
            "values": [value("Red", 9), value("Cotton", 5, attribute="material")],
            "confusions": [pair("Red", "Blue", 3)],
            "certified": [{"attribute": "season"}],
        },
    )
    figures = plots.training_figures(trained)
    assert sorted(figures) == [
        "color/attention", "color/both/fixed_sequence", "color/both/scores", "color/confusions",
        "color/precision_recall", "color/reliability", "color/values", "material/values",
        "season/both/fixed_sequence", "season/both/scores", "season/precision_recall",
        "training_history",
    ]  # fmt: skip
    for figure in figures.values():
        assert drawn(figure).startswith(b"\x89PNG")


def test_the_certified_threshold_is_marked_where_it_accepts() -> None:
    figure = plots.precision_recall("color", {"both": CURVE}, certificate(threshold=0.85))
    assert "certified, score >= 0.850" in shown_text(figure)
    (mark,) = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert (list(mark.get_xdata()), list(mark.get_ydata())) == ([0.3], [0.98])
    assert "certified" not in shown_text(plots.precision_recall("color", {"both": CURVE}))


def test_the_fixed_sequence_shows_where_it_stops_or_why_it_abstains() -> None:
    assert "stop" in shown_text(plots.fixed_sequence(certificate()))
    assert "9 of 153 wrong" in shown_text(plots.fixed_sequence(abstention())).replace("\n", " ")


def test_the_kept_epoch_is_the_one_with_the_lowest_validation_loss() -> None:
    (mark,) = [line for line in plots.history(HISTORY).axes[0].lines if line.get_marker() == "o"]
    assert list(mark.get_xdata()) == [2.0]


def test_values_are_ordered_by_support_with_f1_and_r_at_p95() -> None:
    figure = plots.values("color", [value("Blue", 20, 0.5, 0.1), value("Red", 1200, 0.9, 0.7)])
    assert bar_names(figure) == ["Red (1,200)", "Blue (20)"]
    assert bar_lengths(figure) == [[0.9, 0.5], [0.7, 0.1]]
    assert [text.get_text() for legend in figure.legends for text in legend.get_texts()] == ["F1", "R@P95"]
    bottom, top = figure.axes[0].get_ylim()
    assert bottom > top  # inverted axis: the first bar is at the top
    drawn(figure)


def test_a_figure_of_too_many_values_shows_the_most_frequent_and_the_title_says_so() -> None:
    figure = plots.values("color", [value(f"v{n}", n) for n in range(45)])
    assert bar_names(figure)[0] == "v44 (44)"
    assert len(bar_names(figure)) == 30
    assert shown_text(figure) == "color: values, the 30 most frequent of 45"


def test_the_worst_confusions_come_first_with_their_counts() -> None:
    figure = plots.confusions("color", [pair("Navy", "Blue", 3), pair("Red", "Pink", 8)])
    assert bar_names(figure) == ["Red > Pink", "Navy > Blue"]
    assert bar_lengths(figure) == [[8, 3]]
    assert shown_text(figure) == "color: worst confusions (true > predicted) | 8 | 3"


def test_long_names_of_a_confused_pair_are_shortened() -> None:
    (name,) = bar_names(
        plots.confusions("color", [pair("A colour with a very long name", "Another with a long one", 1)])
    )
    assert name == "A colour with a ver... > Another with a long..."


def test_the_box_plot_of_the_attention_is_above_the_bars() -> None:
    bins = {"edges": [0.0, 0.5, 1.0], "counts": [3, 40]}
    figure = plots.attention("color", bins | {"quantiles": [0.3, 0.6, 0.8, 0.9, 1.0]})
    axes = figure.axes[0]
    _, (box,) = axes.containers
    assert (box.get_x(), box.get_x() + box.get_width()) == pytest.approx((0.6, 0.9))
    assert box.get_y() > 40
    assert box.get_y() + box.get_height() < axes.get_ylim()[1]
    assert [list(line.get_xdata()) for line in axes.lines] == [[0.3, 1.0], [0.8, 0.8]]
    assert "median 0.80" in shown_text(figure)
    assert not plots.attention("color", bins).axes[0].lines  # older histograms have no quantiles
    drawn(figure)


def test_no_data_is_an_empty_figure_and_no_error() -> None:
    empty: dict[str, Any] = {"confidence": [], "accuracy": [], "count": [], "expected_error": 0.0}
    for figure in (
        plots.history([]), plots.reliability("x", empty), plots.precision_recall("x", {}),
        plots.values("x", []), plots.confusions("x", []),
    ):  # fmt: skip
        drawn(figure)


@pytest.mark.filterwarnings("error")
def test_names_may_hold_dollars() -> None:
    drawn(plots.precision_recall("price in $ or $_{", {"both": CURVE}))
    drawn(plots.values("price", [value("$1 to $_{", 3)]))
    drawn(plots.confusions("price", [pair("$1", "$_{", 3)]))


def test_importing_the_room_imports_neither_matplotlib_nor_jinja() -> None:
    code = (
        "import sys\nfrom catalog_enrichment.report import html, plots, tables\n"
        "print([m for m in ('matplotlib', 'jinja2', 'torch', 'pyspark', 'mlflow', 'PIL') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
