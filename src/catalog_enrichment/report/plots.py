"""Figures of a training: matplotlib Figure objects without pyplot's global state. Input is plain data.

The training page (:mod:`training_page`) draws some of the same numbers itself, in the colours of the page.
Add a new figure to :func:`training_figures` or :func:`evaluation_figures`: MLflow stores what these return.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from textwrap import fill
from typing import TYPE_CHECKING, Any, Protocol

from catalog_enrichment.precision.certificate import Certificate
from catalog_enrichment.report.charts import certified_point, kept_epoch

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, SOFT, ACCENT, WARN = "#334155", "#cbd5e1", "#0f766e", "#b45309"
_TEXT, _IMAGE = "#4f46e5", "#be185d"
MODALITY_COLORS = {
    "both": ACCENT,
    "text_only": _TEXT,
    "image_masked": _TEXT,
    "image_only": _IMAGE,
    "text_masked": _IMAGE,
}
"""Colour of a line by the modalities used; with a masked input the line is dashed."""

OTHER_COLORS = ("#64748b", "#a16207", "#0369a1", "#7c2d12")

MOST_VALUES = 30
MOST_PAIRS = 12
"""Largest number of bars in one figure that can be read."""


class TrainingResult(Protocol):
    """The part of a trained model that the figures show."""

    @property
    def certificates(self) -> Sequence[Certificate]: ...

    @property
    def curves(self) -> Mapping[str, Mapping[str, Any]]:
        """``precision_recall`` by attribute and modality, ``reliability`` and ``attention`` by attribute."""

    @property
    def tables(self) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        """``values`` and ``confusions``: rows with `attribute`, the largest count first."""

    @property
    def history(self) -> Sequence[Mapping[str, float]]:
        """Per epoch: epoch, train_loss, validation_loss, learning_rate."""


def training_figures(trained: TrainingResult) -> dict[str, Figure]:
    """Every figure of a training by name: ``training_history``, ``ATTRIBUTE/precision_recall``, ..."""
    figures = {"training_history": history(trained.history)}
    first_path = next((one.compute_type for one in trained.certificates), "")  # the one that is evaluated
    evaluated = [one for one in trained.certificates if one.compute_type == first_path]
    by_attribute = {c.attribute: c for c in evaluated if c.modality == "both"}
    figures |= evaluation_figures(trained.curves, trained.tables, by_attribute)
    for certificate in trained.certificates:
        prefix = f"{certificate.attribute}/{certificate.modality.value}"
        if certificate.compute_type != first_path:
            prefix = f"{prefix}/{certificate.compute_type}"
        figures[f"{prefix}/fixed_sequence"] = fixed_sequence(certificate)
        figures[f"{prefix}/scores"] = score_histogram(certificate)
    return figures


def evaluation_figures(
    curves: Mapping[str, Mapping[str, Any]],
    tables: Mapping[str, Sequence[Mapping[str, Any]]],
    certificates: Mapping[str, Certificate] | None = None,
) -> dict[str, Figure]:
    """The figures of an evaluation by name: ``ATTRIBUTE/reliability``, ...

    ``curves`` and ``tables`` as in :class:`TrainingResult`. ``certificates``: attribute -> the one for both modalities.
    """
    figures = {}
    for name, modalities in curves.get("precision_recall", {}).items():
        figures[f"{name}/precision_recall"] = precision_recall(name, modalities, (certificates or {}).get(name))
    for name, bins in curves.get("reliability", {}).items():
        figures[f"{name}/reliability"] = reliability(name, bins)
    for name, counts in curves.get("attention", {}).items():
        figures[f"{name}/attention"] = attention(name, counts)
    for name, rows in _by_attribute(tables.get("values", [])).items():
        figures[f"{name}/values"] = values(name, rows)
    for name, rows in _by_attribute(tables.get("confusions", [])).items():
        figures[f"{name}/confusions"] = confusions(name, rows)
    return figures


def precision_recall(
    attribute: str, modalities: Mapping[str, Mapping[str, Sequence[float]]], certificate: Certificate | None = None
) -> Figure:
    """Precision against recall per modality; the certified threshold is marked on the curve of `both`."""
    figure, axes = _new_figure(f"{attribute}: precision and recall", "recall", "precision")
    other_colors = iter(OTHER_COLORS * len(modalities))
    for modality, curve in modalities.items():
        color = MODALITY_COLORS.get(modality) or next(other_colors)
        style = "--" if modality.endswith("_masked") else "-"
        axes.plot(curve["recall"], curve["precision"], color=color, lw=1.6, ls=style, label=modality.replace("_", " "))
    target = certificate.target if certificate else 0.95
    axes.axhline(target, color=INK, lw=0.8, ls=":")
    axes.annotate(f"{target:.0%}", (1, target), (-2, 3), textcoords="offset points", ha="right", color=INK, fontsize=8)
    if certificate and certificate.threshold is not None and "both" in modalities:
        _mark_threshold(axes, modalities["both"], certificate.threshold)
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    _legend(axes)
    return figure


def _mark_threshold(axes: Axes, curve: Mapping[str, Sequence[float]], threshold: float) -> None:
    if point := certified_point(curve, threshold):
        (recall, precision), label = point, f"certified, score >= {threshold:.3f}"
        axes.plot(recall, precision, "o", ms=8, mfc="white", mec=WARN, mew=2, ls="none", label=label)


def reliability(attribute: str, bins: Mapping[str, Any]) -> Figure:
    """Accuracy against confidence; the area of a point is the share of its bin."""
    figure, axes = _new_figure(f"{attribute}: calibration", "score", "accuracy")
    axes.plot([0, 1], [0, 1], color=SOFT, lw=1)
    largest = max(bins["count"], default=1)
    areas = [20 + 180 * count / largest for count in bins["count"]]
    axes.plot(bins["confidence"], bins["accuracy"], color=ACCENT, lw=1)
    axes.scatter(bins["confidence"], bins["accuracy"], s=areas, color=ACCENT, alpha=0.75, linewidths=0)
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    axes.text(0.03, 0.95, f"expected calibration error {bins['expected_error']:.3f}", color=INK, fontsize=9)
    return figure


def fixed_sequence(certificate: Certificate) -> Figure:
    """Number accepted against the lower bound of the precision, at every tested threshold until the test stops."""
    name = f"{certificate.attribute}, {certificate.modality.value.replace('_', ' ')}"
    figure, axes = _new_figure(f"{name}: fixed sequence", "accepted on the certification fold (N)", "precision")
    steps = certificate.steps
    accepted = [step.accepted for step in steps]
    observed = [1 - step.wrong / step.accepted if step.accepted else 0.0 for step in steps]
    axes.plot(accepted, observed, color=SOFT, lw=1.4, label="observed")
    axes.plot(accepted, [step.lower_bound for step in steps], ".-", color=ACCENT, lw=1.2, label="lower bound")
    axes.axhline(certificate.target, color=INK, lw=0.8, ls=":", label=f"target {certificate.target:.0%}")
    for step in steps:
        if not step.passed:
            axes.plot(step.accepted, step.lower_bound, "x", color=WARN, ms=10, mew=2, ls="none", label="stop")
    if certificate.threshold is not None:
        label = f"certified, score >= {certificate.threshold:.3f}"
        axes.plot(
            certificate.accepted,
            certificate.lower_bound,
            "o",
            ms=9,
            mfc="none",
            mec=WARN,
            mew=2,
            ls="none",
            label=label,
        )
    else:
        axes.text(0.5, 0.5, fill(certificate.why_abstains, 48), transform=axes.transAxes, ha="center", color=WARN)
    _legend(axes)
    return figure


def attention(attribute: str, counts: Mapping[str, Sequence[float]]) -> Figure:
    """Histogram of the weight on the text (0: only the picture, 1: only the text), with a box plot above it.

    ``counts``: `edges`, `counts` and optionally `quantiles` (5%, 25%, 50%, 75%, 95%). The box is from the 25% to the
    75% quantile, the line through it from the 5% to the 95% quantile.
    """
    figure, axes = _new_figure(
        f"{attribute}: modality attention", "weight on the text (1 - weight on the picture)", "products"
    )
    axes.bar(*_bars(counts["edges"], counts["counts"]), color=ACCENT, align="edge", edgecolor="white", linewidth=0.5)
    if "quantiles" in counts:
        _box_plot(axes, counts["quantiles"], top=max(counts["counts"], default=0) or 1)
    axes.set_xlim(0, 1)
    return figure


def _box_plot(axes: Axes, quantiles: Sequence[float], top: float) -> None:
    """A horizontal box plot above bars of at most the height ``top``."""
    lowest, low, median, high, highest = quantiles
    middle, height = 1.14 * top, 0.09 * top
    axes.plot([lowest, highest], [middle, middle], color=INK, lw=1.2)
    axes.barh(middle, high - low, height, left=low, color=SOFT, edgecolor=INK, linewidth=1.2, zorder=3)
    axes.plot([median, median], [middle - height / 2, middle + height / 2], color=WARN, lw=2, zorder=4)
    axes.annotate(
        f"median {median:.2f}", (median, middle + height / 2), (0, 3), textcoords="offset points",
        ha="left" if median < 0.5 else "right", color=INK, fontsize=8,
    )  # fmt: skip
    axes.set_ylim(0, 1.3 * top)


def values(attribute: str, rows: Sequence[Mapping[str, Any]]) -> Figure:
    """F1 and R@P95 of each value, the most frequent at the top; in brackets its number of test products."""
    shown = sorted(rows, key=lambda row: -row["support"])[:MOST_VALUES]
    shown_of = f", the {len(shown)} most frequent of {len(rows)}" if len(shown) < len(rows) else ""
    figure, axes = _new_figure(f"{attribute}: values{shown_of}", "share", "", bars=len(shown))
    for series, (column, label, color) in enumerate((("f1", "F1", SOFT), ("r_at_p95", "R@P95", ACCENT))):
        positions = [bar + 0.4 * series - 0.2 for bar in range(len(shown))]
        axes.barh(positions, [row[column] for row in shown], 0.38, color=color, label=label)
    _name_bars(axes, [f"{_short(row['value'], 36)} ({row['support']:,})" for row in shown])
    axes.set_xlim(0, 1)
    if shown:
        figure.legend(loc="outside lower right", ncols=2, frameon=False, fontsize=9, labelcolor=INK)
    return figure


def confusions(attribute: str, rows: Sequence[Mapping[str, Any]]) -> Figure:
    """The pairs of values that are confused most often, with the number of test products of each."""
    from matplotlib.ticker import MaxNLocator

    shown = sorted(rows, key=lambda row: -row["products"])[:MOST_PAIRS]
    figure, axes = _new_figure(f"{attribute}: worst confusions (true > predicted)", "products", "", bars=len(shown))
    bars = axes.barh(range(len(shown)), [row["products"] for row in shown], 0.7, color=WARN)
    axes.bar_label(bars, padding=3, color=INK, fontsize=8)
    _name_bars(axes, [f"{_short(row['true'])} > {_short(row['said'])}" for row in shown])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.margins(x=0.08)
    return figure


def history(rows: Sequence[Mapping[str, float]]) -> Figure:
    """Loss per epoch on the train and choosing folds; the kept epoch is marked."""
    from matplotlib.ticker import MaxNLocator

    figure, axes = _new_figure("training", "epoch", "loss")
    epochs = [row["epoch"] for row in rows]
    for column, color in (("train_loss", SOFT), ("validation_loss", ACCENT)):
        axes.plot(epochs, [row[column] for row in rows], ".-", color=color, label=column.replace("_", " "))
    if best := kept_epoch(rows):
        axes.plot(
            best["epoch"], best["validation_loss"], "o", ms=9, mfc="none", mec=WARN, mew=2, ls="none", label="kept"
        )
        _legend(axes)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def score_histogram(certificate: Certificate) -> Figure:
    """Top scores of the unlabelled products that the certificate was issued for, with its thresholds."""
    name = f"{certificate.attribute}, {certificate.modality.value.replace('_', ' ')}"
    figure, axes = _new_figure(f"{name}: scores of unlabelled products", "top score", "products")
    counts = certificate.histogram
    edges = [edge / len(counts) for edge in range(len(counts) + 1)]
    axes.bar(*_bars(edges, counts), color=SOFT, align="edge", edgecolor="white", linewidth=0.5)
    if certificate.suggest_threshold is not None:
        axes.axvline(certificate.suggest_threshold, color=INK, lw=1, ls="--", label="suggest")
    if certificate.threshold is not None:
        axes.axvline(certificate.threshold, color=WARN, lw=1.6, label="certified")
    axes.set_xlim(0, 1)
    _legend(axes)
    return figure


def _by_attribute(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    grouped: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        grouped.setdefault(row["attribute"], []).append(row)
    return grouped


def _name_bars(axes: Axes, names: Sequence[str]) -> None:
    """Label horizontal bars, the first at the top."""
    axes.set_yticks(range(len(names)), names, parse_math=False)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")


def _short(name: str, length: int = 22) -> str:
    """``name``, cut to ``length`` characters."""
    return name if len(name) <= length else f"{name[: length - 3]}..."


def _new_figure(title: str, x: str, y: str, bars: int = 0) -> tuple[Figure, Axes]:
    """An empty figure with labelled axes. ``bars``: number of horizontal bars; the height grows with it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, max(4.2, 1.2 + 0.28 * bars)), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", color=INK, fontsize=11, fontweight="bold", parse_math=False)
    axes.set_xlabel(x, color=INK)
    axes.set_ylabel(y, color=INK)
    axes.grid(color=SOFT, lw=0.4, alpha=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, labelsize=9)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(SOFT)
    return figure, axes


def _legend(axes: Axes) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=9, labelcolor=INK)


def _bars(edges: Sequence[float], counts: Sequence[float]) -> tuple[Sequence[float], Sequence[float], list[float]]:
    """Left edges, heights and widths, the arguments of ``Axes.bar``."""
    return edges[:-1], counts, [right - left for left, right in pairwise(edges)]
