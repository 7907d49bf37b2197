"""Inline SVG that takes its colours from the page.

matplotlib draws in placeholder colours, which then become the page's CSS variables: one drawing serves light, dark and
print. A drawing is `WIDTH` units wide and is shown at about that width, on a phone too, so that its text stays legible.
No text of an experiment goes into a drawing. This module is the only one that knows matplotlib.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
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


@dataclass(frozen=True, slots=True)
class Look:
    """How a curve looks: colour, marker and dashes, so that any one of them may be missing.

    `sign`: the marker as a character, for the key. `css`: the page's class of that colour.
    """

    color: str
    marker: str
    dashes: Any
    sign: str

    @property
    def css(self) -> str:
        """Name of the colour in the page's style sheet."""
        return "plain" if self.color == MUTED else _CSS[self.color]


OF_POLICY, OF_OPPONENT = Look(POLICY, "o", "-", "●"), Look(OPPONENT, "s", DOTTED, "■")
OF_EQUAL_LENGTH, OF_ENSEMBLE = Look(SERIES[4], "D", DASHED, "◆"), Look(SERIES[3], "s", DOTTED, "■")
OF_ALL = Look(MUTED, "s", DOTTED, "■")
LOOKS = tuple(
    Look(SERIES[color], marker, dashes, sign)
    for color, marker, dashes, sign in (
        (1, "o", "-", "●"), (2, "s", DASHED, "■"), (4, "^", "-", "▲"), (3, "D", DOTTED, "◆"),
        (5, "v", DASHED, "▼"), (6, "P", "-", "✚"), (7, "X", DOTTED, "✖"), (0, "*", DASHED, "★"),
    )
)  # fmt: skip
"""Looks of experiments that are compared, the first named first."""
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
_PLOTTED = 235.0
"""About how high a pair of axes is, of `HEIGHT`."""
_LINE = 14.0


def draw_svg(name: str, paint: Callable[[Axes], None], height: int = HEIGHT) -> Markup:
    """Let `paint` fill one pair of axes; the same painting gives the same text. `name` keeps ids apart on a page."""
    with style.context(["default", _STYLE, {"svg.hashsalt": name}]):
        figure = Figure(figsize=(WIDTH / 72, height / 72), layout="constrained")
        paint(figure.add_subplot())
        drawn = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(drawn, format="svg", transparent=True, metadata=nothing)
    return Markup(_inline_svg(drawn.getvalue()))


def line(axes: Axes, labels: Sequence[float], values: Sequence[float], look: Look) -> None:
    """Draw a line, with its points marked while there are few enough to tell apart."""
    shown = look.marker if len(labels) <= _MOST_MARKERS else ""
    axes.plot(
        labels, values, color=look.color, linestyle=look.dashes, linewidth=2.2, marker=shown, markersize=7,
        markeredgecolor=PAPER, markeredgewidth=1.2, clip_on=False, zorder=5,
    )  # fmt: skip


def draw_band(
    axes: Axes, labels: Sequence[float], lows: Sequence[float], highs: Sequence[float], color: str, filled: bool
) -> None:
    """Draw intervals: as a filled band, and as a stroke at each point while there are few enough to tell apart."""
    if filled:
        axes.fill_between(labels, lows, highs, color=color, alpha=0.16, linewidth=0)
    if len(labels) <= _MOST_MARKERS:
        axes.vlines(labels, lows, highs, color=color, linewidth=1.2, alpha=0.55)


def level_line(axes: Axes, level: float) -> None:
    """Draw a dashed line across at a value that means something."""
    axes.axhline(level, color=MUTED, linewidth=1, linestyle=DASHED)


def end_labels(axes: Axes, points: Sequence[tuple[float, float]], texts: Sequence[str], colors: Sequence[str]) -> None:
    """Write values beside last points, moved apart where they would lie on each other. Call it with limits set."""
    low, high = axes.get_ylim()
    unit = _PLOTTED / ((high - low) or 1)
    wanted = [value * unit for _, value in points]
    for (at, value), text, color, place in zip(points, texts, colors, _move_apart(wanted), strict=True):
        axes.annotate(
            text, (at, value), (9, place - value * unit), textcoords="offset points", color=color, weight="bold",
            va="center", annotation_clip=False,
        )  # fmt: skip


def over_labels(axes: Axes, labels: Sequence[int], name: str) -> None:
    """Make the axes read: labels from 0, called `name`, values on a few quiet lines."""
    axes.set_xlim(0, max(labels) * 1.02 or 1)
    axes.xaxis.set_major_locator(_round_numbers(6, integer=True))
    axes.yaxis.set_major_locator(_round_numbers(6))
    axes.set_xlabel(name)
    axes.grid(axis="y", color=RULE, linewidth=0.8)
    axes.set_axisbelow(True)


def against_promise(
    axes: Axes, promised: Sequence[float], kept: Sequence[float], lows: Sequence[float], highs: Sequence[float]
) -> None:
    """Draw what came true over what was promised; on the dashed line both are the same."""
    axes.plot([0.5, 1], [0.5, 1], color=MUTED, linewidth=1, linestyle=DASHED)
    axes.vlines(promised, lows, highs, color=POLICY, linewidth=1.2, alpha=0.55)
    line(axes, promised, kept, OF_POLICY)
    axes.set_xlim(0.5, 1.01)
    axes.set_ylim(min(0.4, *lows), 1.02)
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f}%")
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f}%")
    axes.set_xlabel("the ensemble’s probability that its favourite wins")
    axes.grid(axis="y", color=RULE, linewidth=0.8)
    axes.set_axisbelow(True)


def draw_bars(
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


def _move_apart(wanted: Sequence[float]) -> list[float]:
    """Move heights of labels apart until they are a line from each other, as little as that takes."""
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    placed = [float(height) for height in wanted]
    for _ in range(4 * len(order)):
        for below, above in pairwise(order):
            missing = _LINE - (placed[above] - placed[below])
            if missing > 1e-6:
                placed[below] -= missing / 2
                placed[above] += missing / 2
    return placed


def _round_numbers(most: int, **options: bool) -> MaxNLocator:
    return MaxNLocator(most, steps=[1, 2, 2.5, 5, 10], **options)


def _inline_svg(svg: str) -> str:
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
