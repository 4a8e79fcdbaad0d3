"""The report of the stage `dialogues`: report.html, which shows what was read, dropped, changed and kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

from zephyr_ray.config.data import Dialogues
from zephyr_ray.data import dialogue_examples, marked_text, report_page
from zephyr_ray.data.cleaning.chain import StepCount
from zephyr_ray.data.cleaning.near_duplicates import Cluster, Clusters
from zephyr_ray.data.dialogue_counts import ReadCounts, TextCounts, count_kept
from zephyr_ray.data.dialogue_examples import ChangedExample, DroppedExample, Examples, Scan
from zephyr_ray.data.io import drop_report
from zephyr_ray.data.io.sources import names_of
from zephyr_ray.data.io.writer import Report
from zephyr_ray.data.marked_text import Piece
from zephyr_ray.data.report_page import Bars, length_bars, short, spaced, whole_bars
from zephyr_ray.pipeline.artifacts import Artifact
from zephyr_ray.schemas import Reason

HTML = "report.html"

_MOST_FILES = 30
_MOST_NAMED = 6
_MOST_BARS = 30
_CLUSTER_SIZES = (2, 3, 4, 5, 10, 20, 50, 100, 1000)


@dataclass(frozen=True)
class FlowStep:
    """What became of the rows in one step."""

    name: str
    before: int
    dropped: list[tuple[str, int]]
    """By reason, the most frequent first."""
    changed: int | None = None
    """None: it changes nothing by its nature."""

    @property
    def lost(self) -> int:
        return sum(count for _, count in self.dropped)

    @property
    def after(self) -> int:
        return self.before - self.lost


@dataclass(frozen=True)
class SourceRows:
    """What became of the rows of one source file."""

    name: str
    kept: int
    dropped: Counter[str]

    @property
    def rows(self) -> int:
        return self.kept + self.dropped.total()


@dataclass(frozen=True)
class ClusterBars:
    sizes: list[tuple[str, int]]
    """How many clusters there are by their size."""
    dialogues: int
    """In all clusters."""
    largest: list[tuple[Cluster, list[Piece], list[Piece]]]

    @property
    def clusters(self) -> int:
        return sum(count for _, count in self.sizes)


@dataclass(frozen=True)
class Picture:
    """Everything that the report shows."""

    title: str
    subtitle: str
    rows_in: int
    added: int
    kept: int
    lost: int
    changed: int
    """Changes by all steps: a dialogue counts once for each."""
    flow: list[FlowStep]
    noted: list[tuple[str, int | float]]
    steps: dict[str, StepCount]
    comparison: list[tuple[str, str, str]]
    """What is measured, as read and as kept."""
    lengths: list[Bars]
    """Characters of a dialogue: kept and dropped ones."""
    turns: list[Bars]
    read_lengths: list[Bars]
    """Characters of a dialogue: as kept and as read."""
    sources: list[SourceRows]
    reasons: list[str]
    """The most frequent first."""
    dropped: list[tuple[str, int, list[DroppedExample]]]
    """Examples by reason."""
    changes: list[tuple[str, int, list[ChangedExample]]]
    """Examples by step."""
    clusters: ClusterBars | None
    languages: list[tuple[str, int, int]]
    """Language, about how many dialogues as read and as kept: the most frequent ones."""


def write_report(
    artifact: Artifact,
    section: Dialogues,
    report: Report,
    read: ReadCounts,
    clusters: Clusters | None = None,
) -> list[str]:
    """Writes the page into the artifact and returns its name.

    Args:
        artifact: Whose rows are all written.
        section: What they were made from.
        report: What became of them.
        read: What `dialogue_counts.count_read` counted before rows were compared with one another.
        clusters: Near duplicates, if they were looked for.
    """
    is_as_counted = report.rows_out == read.kept.dialogues
    kept = read.kept if is_as_counted else count_kept(artifact, report)
    scanned = dialogue_examples.scan(artifact, report)
    shown = dialogue_examples.examples(artifact, scanned.places)
    drawn = picture(section, report, read, kept, scanned, shown, clusters)
    artifact.write_text(HTML, render(drawn))
    return [HTML]


def render(drawn: Picture) -> str:
    """The page."""
    return report_page.render("dialogues_report.html.jinja", p=drawn)


def picture(
    section: Dialogues,
    report: Report,
    read: ReadCounts,
    kept: TextCounts,
    scanned: Scan,
    shown: Examples,
    clusters: Clusters | None = None,
) -> Picture:
    """The numbers and texts of the report."""
    assert section.train is not None
    steps: dict[str, StepCount] = report.tally.steps if report.tally else {}
    reasons = _by_count(report.dropped)
    return Picture(
        title="Dialogues",
        subtitle=f"from {_listed(names_of(section.train))}: "
        + (", ".join(spaced(name) for name in steps) or "as they are, not cleaned"),
        rows_in=report.rows_in,
        added=report.added,
        kept=report.rows_out,
        lost=sum(report.dropped.values()),
        changed=sum(count.changed for count in steps.values()),
        flow=flow(report, read),
        noted=[(drop_report.spoken(name), number) for name, number in report.noted.items()],
        steps=steps,
        comparison=comparison(report, read.as_read, kept, clusters),
        lengths=_kept_and_dropped(*length_bars(kept.characters, read.left_out.characters, read.kept.characters)),
        turns=_kept_and_dropped(*whole_bars(kept.turns, read.left_out.turns, read.kept.turns)),
        read_lengths=length_bars(kept.characters, read.as_read.characters),
        sources=source_rows(scanned),
        reasons=[reason for reason, _ in reasons],
        dropped=[(reason, count, shown.dropped.get(reason, [])) for reason, count in reasons],
        changes=[(name, count.changed, shown.changed.get(name, [])) for name, count in steps.items() if count.changed],
        clusters=None if clusters is None else cluster_bars(clusters),
        languages=[(name, as_read, kept.languages[name]) for name, as_read in _most(read.as_read.languages)],
    )


# --- the numbers


def flow(report: Report, read: ReadCounts) -> list[FlowStep]:
    """The steps between all rows and the kept ones: reading, those of the recipe, and what compares rows."""
    steps: dict[str, StepCount] = report.tally.steps if report.tally else {}
    by_steps = Counter(read.unread)
    found = [FlowStep("reading", report.rows_in + report.added, _by_count(read.unread))]
    for name, count in steps.items():
        found.append(FlowStep(name, found[-1].after, _by_count(count.reasons), count.changed))
        by_steps.update(count.reasons)
    others = Counter(read.dropped) - by_steps
    if others:
        found.append(FlowStep("form of what is left", found[-1].after, _by_count(others)))
    for reason, number in report.dropped.items():
        later = number - read.dropped.get(reason, 0)
        if later:
            found.append(FlowStep(reason, found[-1].after, [(reason, later)]))
    return found


def comparison(
    report: Report, as_read: TextCounts, kept: TextCounts, clusters: Clusters | None = None
) -> list[tuple[str, str, str]]:
    """What the dialogues are like as they were read (trained on without cleaning) and as they are kept."""
    sides = as_read, kept
    repeats = report.dropped.get(str(Reason.REPEATED), 0)
    rows: list[tuple[str, list[str]]] = [
        ("Dialogues", [short(each.dialogues) for each in sides]),
        ("Characters, median", [short(each.characters.quantile(0.5)) for each in sides]),
        ("Characters, 90 % have at most", [short(each.characters.quantile(0.9)) for each in sides]),
        ("Messages of a dialogue, mean", [f"{each.turns.sum / max(each.dialogues, 1):.2f}" for each in sides]),
        ("Replies of the assistant", [short(each.replies) for each in sides]),
        ("Replies that refuse or disclaim", [_share(each.refusing, each.replies) for each in sides]),
        ("Replies without capitals", [_share(each.lower_case, each.replies) for each in sides]),
        ("Exact repeats, after the steps", [_share(repeats, as_read.dialogues), _share(0, kept.dialogues)]),
    ]
    if clusters is not None:
        extra = sum((size - 1) * count for size, count in clusters.sizes.items())
        rows.append(("Near duplicates of another", [_share(extra, as_read.dialogues), _share(0, kept.dialogues)]))
    return [(what, first, second) for what, (first, second) in rows]


def source_rows(scanned: Scan) -> list[SourceRows]:
    """The source files, those with the most rows first; beyond some of them they are taken together."""
    dropped: dict[str, Counter[str]] = {name: Counter() for name in scanned.kept}
    for (name, reason), count in scanned.dropped.items():
        dropped.setdefault(name, Counter())[reason] += count
    folder = _folder(list(dropped))
    rows = [SourceRows(name[folder:], scanned.kept[name], reasons) for name, reasons in dropped.items()]
    rows.sort(key=lambda row: (-row.rows, row.name))
    shown, others = rows[:_MOST_FILES], rows[_MOST_FILES:]
    if others:
        together = sum((row.dropped for row in others), Counter())
        shown.append(SourceRows(f"{len(others):,} more files", sum(row.kept for row in others), together))
    return shown


def cluster_bars(clusters: Clusters) -> ClusterBars:
    """Clusters by their size, a bar to some sizes."""
    sizes = []
    for number, low in enumerate(_CLUSTER_SIZES):
        high = _CLUSTER_SIZES[number + 1] - 1 if number + 1 < len(_CLUSTER_SIZES) else None
        count = sum(n for size, n in clusters.sizes.items() if size >= low and (high is None or size <= high))
        name = f"{low:,} or more" if high is None else f"{low:,}" if high == low else f"{low:,} to {high:,}"
        sizes.append((name, count))
    while sizes and not sizes[-1][1]:
        sizes.pop()
    dialogues = sum(size * count for size, count in clusters.sizes.items())
    marked = [(each, *marked_text.differences(each.kept.text, each.farthest.text)) for each in clusters.largest]
    return ClusterBars(sizes, dialogues, marked)


def _kept_and_dropped(kept: Bars, left_out: Bars, after_steps: Bars) -> list[Bars]:
    """The second are all that are not kept: by steps, or later because of other rows."""
    heights = [
        by_steps + there - still_there
        for by_steps, there, still_there in zip(left_out.heights, after_steps.heights, kept.heights, strict=True)
    ]
    return [kept, left_out._replace(heights=heights)]


def _share(part: int, whole: int) -> str:
    return f"{part:,} ({100 * part / whole:.2f} %)" if whole else "\u2013"


def _listed(names: Sequence[str]) -> str:
    folder = _folder(names)
    shown = [name[folder:] for name in names[:_MOST_NAMED]]
    return ", ".join(shown) + (f" and {len(names) - len(shown):,} more" if len(names) > len(shown) else "")


def _folder(names: Sequence[str]) -> int:
    """Characters of the folder or URI that all names begin with; 0 of a dataset's id and of a relative path."""
    heads = zip(*(name.split("/")[:-1] for name in names), strict=False)
    shared = "".join(f"{parts[0]}/" for parts in takewhile(lambda parts: len(set(parts)) == 1, heads))
    return len(shared) if shared.startswith("/") or "://" in shared else 0


def _most(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return _by_count(counts)[:_MOST_BARS]


def _by_count(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(((str(name), count) for name, count in counts.items()), key=lambda item: (-item[1], item[0]))
