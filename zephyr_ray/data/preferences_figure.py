"""The figure of the preferences report, as a PNG."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zephyr_ray.data.preferences_report import Picture
    from zephyr_ray.data.report_page import Bars

_CHOSEN, _REJECTED, _PLAIN, _DROPPED = "#2463c4", "#d9722b", "#5f7391", "#a9b3c0"
_INK, _SOFT, _LINE = "#17202c", "#5b6675", "#dfe3e9"
_MOST_SHOWN = 20  # models, so that their names can be read
_NAME_LENGTH = 26
_WIDTH, _ROW_HEIGHT, _HEADER, _DPI = 14.0, 4.6, 1.0, 110  # inches, and dots per inch


def draw(picture: Picture) -> bytes:
    """The picture as a PNG, with a panel for each thing that is known."""
    # Not pyplot: it keeps global state and picks a backend by the environment.
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = [panel for panel, is_known in _panels(picture) if is_known]
    rows = math.ceil(len(panels) / 2)
    style: dict[Any, Any] = {
        "font.size": 9.5,
        "text.color": _INK,
        "axes.labelcolor": _SOFT,
        "xtick.color": _SOFT,
        "ytick.color": _INK,
    }
    with matplotlib.rc_context({**style, "axes.edgecolor": _LINE, "text.usetex": False, "text.parse_math": False}):
        height = _HEADER + _ROW_HEIGHT * rows
        figure = Figure(figsize=(_WIDTH, height), dpi=_DPI, layout="constrained", facecolor="white")
        FigureCanvasAgg(figure)
        engine: Any = figure.get_layout_engine()
        engine.set(rect=(0.008, 0.008, 0.984, 1 - _HEADER / height), h_pad=0.12, w_pad=0.12)
        figure.text(0.016, 1 - 0.36 / height, picture.title, fontsize=19, fontweight="bold", va="center")
        figure.text(0.016, 1 - 0.72 / height, _cut(picture.subtitle, 150), fontsize=10.5, color=_SOFT, va="center")
        grid = figure.add_gridspec(rows, 2)
        for number, panel in enumerate(panels):
            is_last_alone = number == len(panels) - 1 and number % 2 == 0
            axes = figure.add_subplot(grid[number // 2, :] if is_last_alone else grid[number // 2, number % 2])
            axes.spines[["top", "right"]].set_visible(False)
            panel(axes, picture)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _panels(picture: Picture) -> list[tuple[Any, bool]]:
    return [
        (_rows, True),
        (_scores, bool(picture.spreads)),
        (_means, len(picture.spreads) > 1),
        (_matrix, bool(picture.models)),
        (_shares, bool(picture.shares)),
        (_lengths, bool(picture.chosen_lengths.heights)),
        (_pair_scores, bool(picture.chosen_scores.heights)),
    ]


def _rows(axes: Any, picture: Picture) -> None:
    rows = [("kept", picture.pairs), *picture.dropped][::-1]
    names = [name.replace("_", " ") for name, _ in rows]
    bars = axes.barh(names, [count for _, count in rows], color=[_DROPPED] * (len(rows) - 1) + [_CHOSEN], height=0.62)
    axes.bar_label(bars, labels=[f"{count:,}" for _, count in rows], padding=4, color=_INK)
    axes.margins(x=0.14)
    if len(rows) < 4:
        axes.set_ylim(len(rows) - 4.5, len(rows) - 0.5)
    _quiet(axes, f"{picture.rows_in + picture.added:,} rows: kept, or dropped with a reason")
    axes.set_xticks([])
    axes.spines[:].set_visible(False)


def _scores(axes: Any, picture: Picture) -> None:
    """A row of bars for each model: the height is the share of its answers with that score."""
    all_spreads = next(iter(picture.spreads.values()))
    spreads = all_spreads[:_MOST_SHOWN][::-1]
    for number, spread in enumerate(spreads):
        edges, heights = spread.bars.edges, spread.bars.heights
        widths = [(right - left) * 0.9 for left, right in itertools.pairwise(edges)]
        centres = [(left + right) / 2 for left, right in itertools.pairwise(edges)]
        shares = [height / max(heights) * 0.82 for height in heights]
        axes.bar(centres, shares, widths, bottom=number - 0.4, color=_PLAIN)
        axes.plot([spread.mean] * 2, [number - 0.4, number + 0.45], color=_REJECTED, linewidth=1.6)
    axes.set_yticks(range(len(spreads)), [_cut(spread.model or "all answers") for spread in spreads])
    axes.set_ylim(-0.6, len(spreads) - 0.4)
    _quiet(axes, f"Scores by model, with the mean{_of(spreads, all_spreads)}")
    axes.set_xlabel(" / ".join(kind for kind, _ in picture.kinds))


def _means(axes: Any, picture: Picture) -> None:
    """The mean of each model in each aspect, shaded within the aspect."""
    first, *_ = picture.spreads.values()
    models = [spread.model for spread in first[:_MOST_SHOWN]]
    means = {aspect: {spread.model: spread.mean for spread in spreads} for aspect, spreads in picture.spreads.items()}
    shades = [[_shade(mean.get(model), mean.values()) for mean in means.values()] for model in models]
    axes.imshow(shades, cmap="Blues", vmin=-0.15, vmax=1.9, aspect="auto")
    for y, model in enumerate(models):
        for x, mean in enumerate(means.values()):
            if model in mean:
                axes.text(x, y, f"{mean[model]:.2f}", ha="center", va="center")
    names = [f"ranking\n{aspect}" if not x else aspect.replace("_", "\n") for x, aspect in enumerate(means)]
    axes.set_xticks(range(len(means)), [_cut_lines(name) for name in names])
    axes.set_yticks(range(len(models)), [_cut(model or "all answers") for model in models])
    axes.spines[:].set_visible(False)
    _quiet(axes, f"Mean rating{_of(models, first)}")


def _shade(mean: float | None, means: Iterable[float]) -> float:
    low, high = min(means), max(means)
    return math.nan if mean is None else (mean - low) / (high - low) if high > low else 0.5


def _matrix(axes: Any, picture: Picture) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    models = picture.models[:_MOST_SHOWN]
    duels = [[picture.duels.get((row, column)) for column in models] for row in models]
    leads = [[(duel.wins - duel.losses) / duel.count if duel else math.nan for duel in row] for row in duels]
    colours = LinearSegmentedColormap.from_list("leads", [_REJECTED, "#f1f3f6", _CHOSEN])
    axes.imshow(leads, cmap=colours, vmin=-1.3, vmax=1.3, aspect="auto")
    size = 9.5 if len(models) < 12 else 7.5
    for y, row in enumerate(duels):
        for x, duel in enumerate(row):
            if duel:
                axes.text(x, y, f"{duel.share:.0%}".rstrip("%"), ha="center", va="center", fontsize=size)
    axes.set_xticks(range(len(models)), [str(number + 1) for number in range(len(models))])
    axes.set_yticks(range(len(models)), [f"{_cut(model)}  {number + 1}" for number, model in enumerate(models)])
    axes.set_xticks([n - 0.5 for n in range(1, len(models))], minor=True)
    axes.set_yticks([n - 0.5 for n in range(1, len(models))], minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="minor", length=0)
    axes.spines[:].set_visible(False)
    _quiet(axes, f"Percent of prompts in which the row scores higher{_of(models, picture.models)}")


def _shares(axes: Any, picture: Picture) -> None:
    shares = picture.shares[:_MOST_SHOWN][::-1]
    names = [_cut(model) for model, _, _ in shares]
    chosen = [won / (won + lost) for _, won, lost in shares]
    rows = range(len(shares))
    axes.barh(rows, chosen, color=_CHOSEN, height=0.7, label="chosen")
    axes.barh(rows, [1 - share for share in chosen], left=chosen, color=_REJECTED, height=0.7, label="rejected")
    for row, (_, won, lost) in enumerate(shares):
        axes.text(1.015, row, f"{won:,} / {lost:,}", va="center", color=_SOFT, fontsize=8.5)
    axes.set_yticks(rows, names)
    axes.set_xlim(0, 1.2)
    axes.set_xticks([0, 0.5, 1], ["0", "50 %", "100 %"])
    _quiet(axes, f"Pairs in which a model was chosen / rejected{_of(shares, picture.shares)}")


def _lengths(axes: Any, picture: Picture) -> None:
    _overlay(axes, picture.chosen_lengths, picture.rejected_lengths)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_xlabel("characters")
    numbers = picture.length
    correlation = "" if numbers["r_chosen"] is None else f" (r = {numbers['r_chosen']:.2f})"
    _quiet(axes, f"Length: chosen longer in {numbers['chosen_longer'] or 0:.1%} of pairs{correlation}")


def _pair_scores(axes: Any, picture: Picture) -> None:
    _overlay(axes, picture.chosen_scores, picture.rejected_scores)
    axes.set_xlabel("score")
    _quiet(axes, "Scores of the pairs")


def _overlay(axes: Any, chosen: Bars, rejected: Bars) -> None:
    for bars, colour, label in ((chosen, _CHOSEN, "chosen"), (rejected, _REJECTED, "rejected")):
        axes.stairs(bars.heights, bars.edges, fill=True, color=colour, alpha=0.5, label=label)
        axes.stairs(bars.heights, bars.edges, color=colour, linewidth=1.3)
    axes.legend(frameon=False, loc="upper left")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")


def _quiet(axes: Any, title: str) -> None:
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold", pad=10)
    axes.tick_params(length=0)


def _of(shown: Sequence[Any], all_of_them: Sequence[Any]) -> str:
    return f" (best {len(shown)} of {len(all_of_them)})" if len(shown) < len(all_of_them) else ""


def _cut_lines(text: str) -> str:
    return "\n".join(_cut(line, 14) for line in text.split("\n"))


def _cut(text: str, length: int = _NAME_LENGTH) -> str:
    """A text in one line, cut to a length, of characters that a font can draw."""
    line = " ".join("".join(character if character.isprintable() else " " for character in text).split())
    return line if len(line) <= length else line[: length - 1] + "\u2026"
