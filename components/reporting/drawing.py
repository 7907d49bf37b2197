"""Inline SVG that takes its colours from the page.

matplotlib draws in placeholder colours, which then become the page's CSS variables: one drawing serves light, dark and
print. A drawing is `WIDTH` units wide and is shown at about that width, on a phone too, so that its text stays legible.
No text of an experiment goes into a drawing. This module is the only one that knows matplotlib.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from typing import Any
from xml.etree import ElementTree

from markupsafe import Markup
from matplotlib import style
from matplotlib.axes import Axes as Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

WIDTH = 430
HEIGHT = 300
INK, MUTED, RULE, POLICY, OPPONENT, PAPER = (f"#a1b2c{digit}" for digit in range(6))
MOST_SERIES = 8
SERIES = tuple(f"#b1a2c{digit}" for digit in range(MOST_SERIES))
"""Colours of many lines in one drawing; `page.css` has them as series-0, series-1, ..."""
DASHED, DOTTED = (0, (4, 3)), (0, (2, 1.5))

_CSS = {INK: "ink", MUTED: "muted", RULE: "rule", POLICY: "policy", OPPONENT: "opponent", PAPER: "paper"}
_CSS |= {color: f"series-{place}" for place, color in enumerate(SERIES)}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 12.5,
    "text.parse_math": False,
    "text.color": MUTED,
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.ymargin": 0.18,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "xtick.color": RULE,
    "ytick.left": False,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
}
_MOST_MARKERS = 40


def draw(name: str, paint: Callable[[Axes], None], height: int = HEIGHT) -> Markup:
    """Let `paint` fill one pair of axes; the same painting gives the same text. `name` keeps ids apart on a page."""
    with style.context(["default", _STYLE, {"svg.hashsalt": name}]):
        figure = Figure(figsize=(WIDTH / 72, height / 72), layout="constrained")
        paint(figure.add_subplot())
        drawn = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(drawn, format="svg", transparent=True, metadata=nothing)
    return Markup(_inline(drawn.getvalue()))


def line(
    axes: Axes, labels: Sequence[int], values: Sequence[float], color: str, marker: str, dashes: Any = "-"
) -> None:
    """Draw a line, with its points marked while there are few enough to tell apart."""
    shown = marker if len(labels) <= _MOST_MARKERS else ""
    axes.plot(
        labels, values, color=color, linestyle=dashes, linewidth=2.2, marker=shown, markersize=7,
        markeredgecolor=PAPER, markeredgewidth=1.2, clip_on=False, zorder=5,
    )  # fmt: skip


def end_label(axes: Axes, point: tuple[float, float], text: str, color: str, shift: int = 0) -> None:
    """Write a value beside the last point, `shift` units higher."""
    axes.annotate(
        text, point, (9, shift), textcoords="offset points", color=color, weight="bold", va="center",
        annotation_clip=False,
    )  # fmt: skip


def over_labels(axes: Axes, labels: Sequence[int], name: str) -> None:
    """Make the axes read: labels from 0, called `name`, values on a few quiet lines."""
    axes.set_xlim(0, max(labels) * 1.02 or 1)
    axes.xaxis.set_major_locator(_round_numbers(6, integer=True))
    axes.yaxis.set_major_locator(_round_numbers(6))
    axes.set_xlabel(name)
    axes.grid(axis="y", color=RULE, linewidth=0.8)
    axes.set_axisbelow(True)


def bars(
    axes: Axes, names: Sequence[str], first: Sequence[float], then: Sequence[float], labels: Sequence[str]
) -> None:
    """Draw one bar a name, top down: a hollow part, a filled part, and a label at the end."""
    places, ends = range(len(names)), [sum(parts) for parts in zip(first, then, strict=True)]
    outline: dict[str, Any] = {"edgecolor": POLICY, "linewidth": 1.2, "height": 0.56}
    axes.barh(places, first, color=PAPER, **outline)
    axes.barh(places, then, left=first, color=POLICY, **outline)
    for place, end, label in zip(places, ends, labels, strict=True):
        axes.annotate(label, (end, place), (6, 0), textcoords="offset points", va="center", color=INK)
    axes.set_yticks(places, names, color=INK)
    axes.set_xlim(0, max(ends) * 1.34 or 1)
    axes.margins(y=0.02)
    axes.invert_yaxis()
    axes.xaxis.set_visible(False)
    axes.spines.bottom.set_visible(False)


def _round_numbers(most: int, **options: bool) -> MaxNLocator:
    return MaxNLocator(most, steps=[1, 2, 2.5, 5, 10], **options)


def _inline(svg: str) -> str:
    """Make a drawing part of the page: the page's colours and fonts; no namespaces, no style sheet, no stray ids."""
    svg = re.sub(r"font-family: [^;\"]+", "font-family: inherit", svg)
    for placeholder, name in _CSS.items():
        svg = svg.replace(placeholder, f"var(--{name})")
    root = ElementTree.fromstring(svg)
    used = set(re.findall(r"#([\w-]+)", svg))
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        kept = {key: value for key, value in element.attrib.items() if key != "id" or value in used}
        element.attrib = {key.rpartition("}")[2]: " ".join(value.split()) for key, value in kept.items()}
    for definitions in root.findall("defs[style]"):
        root.remove(definitions)
    root.attrib = {"viewBox": root.attrib["viewBox"], "aria-hidden": "true"}
    return ElementTree.tostring(root, encoding="unicode")
