"""The picture of a run, as SVG text that stands in the report itself."""

from __future__ import annotations

import io
from collections.abc import Sequence

from agentloop.report.summary import Point


def success_plot(points: Sequence[Point], title: str = "success") -> str:
    """Value and 95 % interval of each measurement, one series a split, in order of time; "" if there is nothing to draw.

    Returns:
        An `<svg>` element without a document head, with fonts as text, so that it can be searched and needs no file beside it.
    """
    if not points:
        return ""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    splits = list(dict.fromkeys(point.split for point in points))
    figure = Figure(figsize=(7.2, 3.4), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.add_subplot()
    labels = sorted(dict.fromkeys(point.label for point in points), key=lambda label: label != "base")  # the base stands first
    for number, split in enumerate(splits):
        series = [point for point in points if point.split == split]
        shift = 0.12 * (number - (len(splits) - 1) / 2)
        x = [labels.index(point.label) + shift for point in series]
        value = [point.value for point in series]
        below = [max(0.0, point.value - (point.value if point.low is None else point.low)) for point in series]
        above = [max(0.0, (point.value if point.high is None else point.high) - point.value) for point in series]
        marker = "s" if split == "test" else "o"
        bars = axes.errorbar(x, value, yerr=[below, above], fmt=marker, capsize=4, label=f"{split} (n = {series[0].n})")
        if split != "test":
            latest = {labels.index(point.label) + shift: point.value for point in series}  # the base may be measured every iteration
            axes.plot(sorted(latest), [latest[at] for at in sorted(latest)], color=bars[0].get_color())
    axes.set_xticks(range(len(labels)), labels)
    axes.set_xlim(-0.5, len(labels) - 0.5)
    axes.set_ylim(-0.02, 1.02)
    axes.set_ylabel(f"{title}, 95 % interval")
    axes.grid(axis="y", alpha=0.3)
    axes.legend(frameon=False)
    text = io.StringIO()
    with _plain_text_fonts():
        figure.savefig(text, format="svg", metadata={"Date": None})
    svg = text.getvalue()
    return svg[svg.index("<svg") :]


def _plain_text_fonts():  # type: ignore[no-untyped-def]  # matplotlib's context manager has no public type
    import matplotlib

    return matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "agentloop"})
