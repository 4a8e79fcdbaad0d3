"""The page on dialogues: its numbers are the report's, its texts are nobody's markup, and it loads nothing."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.unit.data.cleaning.test_chain import dialogue
from tests.unit.data.pages import Page
from zephyr_ray.config.data import Dialogues
from zephyr_ray.data import dialogues_report
from zephyr_ray.data.cleaning.chain import Change, StepCount, StepCounts
from zephyr_ray.data.cleaning.near_duplicates import Cluster, Clusters, Example
from zephyr_ray.data.dialogue_counts import ReadCounts, count_read, count_texts
from zephyr_ray.data.dialogue_examples import EXAMPLES, Scan, scan
from zephyr_ray.data.dialogues_report import FlowStep, write_report
from zephyr_ray.data.formats.messages import Message
from zephyr_ray.data.io.writer import Report
from zephyr_ray.pipeline.artifacts import Artifact, Run
from zephyr_ray.schemas import CHANGED, DIALOGUES, DROPPED, DROPPED_DIALOGUES, MESSAGES

EVIL = "<script>alert('x')</script>\"&"


def texts(*dialogues: list[Message]) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(dialogues, MESSAGES)])


def written(tmp_path: Path, **folders: tuple[pa.Schema, list[dict[str, Any]]]) -> tuple[Artifact, dict[str, int]]:
    """An artifact with a file in each folder, and its files with their rows."""
    artifact, files = Run(str(tmp_path)).artifact("dialogues"), {}
    for folder, (schema, rows) in folders.items():
        path = Path(artifact.path, folder, "000000-000.parquet")
        path.parent.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)
        files[f"{folder}/{path.name}"] = len(rows)
    return artifact, files


def cleaned(tmp_path: Path) -> tuple[Artifact, Report]:
    """Six rows: three kept (one was changed twice), one that is no dialogue, two that a step dropped."""
    kept = [dialogue(f"{EVIL} one", "It is so."), dialogue("two", "Yes. It is."), dialogue("ccc", "ddd")]
    removed = "user: x\n\nassistant: As an AI language model, I say no."
    changed = [Change("mend", 1, "Yes. it is", "Yes. it is."), Change("casing", 1, "Yes. it is.", "Yes. It is.")]
    left_out: list[dict[str, Any]] = [
        {"source": "a:4", "reason": "unknown_layout", "detail": EVIL, "messages": None},
        {"source": "b:5", "reason": "tie", "detail": f"no {EVIL}", "messages": dialogue("q", f"I said no {EVIL}!")},
        {"source": "b:6", "reason": "tie", "detail": "nope", "messages": dialogue("q", "not here", "q", "r")},
    ]
    artifact, files = written(
        tmp_path,
        data=(
            DIALOGUES,
            [{"dialogue_id": str(n), "messages": each, "source": f"a:{n}"} for n, each in enumerate(kept, 1)],
        ),
        changed=(
            CHANGED,
            [
                *({"source": "a:2", **change._asdict()} for change in changed),
                {"source": "a:3", **Change("mend", 2, removed, "")._asdict()},
            ],
        ),
        dropped=(DROPPED_DIALOGUES, left_out),
    )
    steps = {"mend": StepCount(5, 2, 0, 0.5), "casing": StepCount(5, 1, 2, 1.5, {"tie": 2})}
    return artifact, Report(6, 3, {"unknown_layout": 1, "tie": 2}, files, tally=StepCounts(steps))


def page(artifact: Artifact, report: Report, read: ReadCounts, **more: Any) -> Page:
    assert write_report(artifact, Dialogues(train=(EVIL, "b")), report, read, **more) == ["report.html"]
    return Page(Path(artifact.path, "report.html").read_text())


def with_repeat(artifact: Artifact, report: Report) -> Report:
    """One kept row left out, as its repeat stays."""
    rows = pq.read_table(f"{artifact.path}/data/000000-000.parquet")
    pq.write_table(rows.slice(1), f"{artifact.path}/data/000000-000.parquet")
    gone = pa.Table.from_pylist([{"source": "a:1", "reason": "repeated", "detail": "1"}], schema=DROPPED)
    pq.write_table(gone, f"{artifact.path}/dropped/repeated-000.parquet")
    files = report.files | {"data/000000-000.parquet": 2, "dropped/repeated-000.parquet": 1}
    return Report(6, 2, report.dropped | {"repeated": 1}, files, tally=report.tally)


def test_texts_are_counted() -> None:
    counts = count_texts(
        texts(
            dialogue("i have one. it is so.", "I cannot say. however, it is so."),
            dialogue("I cannot say", "As an AI language model, I wrote it. It is so.", "and?", "It is so. and so."),
            dialogue("a", 'He said "I cannot". Then he went.'),
        )
    )
    assert (counts.dialogues, counts.replies, counts.refusing, counts.lower_case) == (3, 4, 2, 1 + 1)
    assert counts.turns.bins == {2: 2, 4: 1}
    assert counts.characters.low == 34
    assert count_texts(texts()).dialogues == 0


def test_languages_are_counted_in_a_sample() -> None:
    english = dialogue("Who?", "The old bridge is closed today, so we walk along the river to the market.")
    german = dialogue("Wer?", "Die alte Brücke ist heute gesperrt, also gehen wir am Fluss entlang zum Markt.")
    assert count_texts(texts(english, german, english, dialogue("1?", "2"))).languages == {
        "en": 2,
        "de": 1,
        "no words": 1,
    }
    many = count_texts(texts(*[english] * 3000, *[german] * 1000)).languages
    assert many["en"] == pytest.approx(3000, abs=130)
    assert many["de"] == pytest.approx(1000, abs=130)


@pytest.mark.usefixtures("ray_cluster")
def test_what_was_read_is_what_the_changes_lead_back_to(tmp_path: Path) -> None:
    artifact, report = cleaned(tmp_path)
    read = count_read(artifact, report)
    assert (read.kept.dialogues, read.left_out.dialogues, read.as_read.dialogues) == (3, 2, 5)
    assert (read.kept.refusing, read.as_read.refusing) == (0, 1)  # the turn that was removed
    assert (read.kept.lower_case, read.as_read.lower_case) == (0, 1)
    assert read.as_read.turns.bins == {2: 3, 4: 2}
    assert read.unread == {"unknown_layout": 1}


@pytest.mark.usefixtures("ray_cluster")
def test_the_numbers_and_texts_are_on_the_page(tmp_path: Path) -> None:
    artifact, report = cleaned(tmp_path)
    read = count_read(artifact, report)
    made = page(artifact, with_repeat(artifact, report), read)
    for phrase in (
        "6 rows = 2 kept + 4 dropped",
        "6 raw rows 5 reading 1 dropped (16.67 %) unknown layout 1 5 mend 2 changed",
        "3 casing 2 dropped (40.00 %) and 1 changed tie 2 2 repeated 1 dropped (33.33 %)",
        "casing 5 1 2 1.50 300000",
        "Dialogues 5 2",
        "Replies that refuse or disclaim 1 (14.29 %) 0 (0.00 %)",
        "Replies without capitals 1 (14.29 %) 0 (0.00 %)",
        "Exact repeats, after the steps 1 (20.00 %) 0 (0.00 %)",
        "a 4 2 0 1 1",  # rows, kept, tie, repeated, unknown layout
        "b 2 0 2 0 0",
        "of the dialogues. kept dropped en 2 of 5",
        "mend 2 changed",
    ):
        assert phrase in made.text, phrase
    assert ("mark", f"no {EVIL}") in made.marked
    assert [text for tag, text in made.marked if tag == "del" and text in ("it", "It")] == ["it"]
    made.check_loads_nothing()
    assert made.text.count(EVIL) >= 5


@pytest.mark.usefixtures("ray_cluster")
def test_what_is_told_of_clusters_is_shown(tmp_path: Path) -> None:
    cluster = Cluster(40, Example("f:1", f"{EVIL} a b"), Example("f:2", f"{EVIL} a c"), 0.75)
    artifact, report = cleaned(tmp_path)
    cluster = Cluster(40, Example(EVIL, f"{EVIL} a b"), Example("a:9", f"{EVIL} a c"), 0.75)
    report.noted = {f"contaminated_by {EVIL}": 3}
    made = page(
        artifact,
        report,
        count_read(artifact, report),
        clusters=Clusters({2: 3, 7: 1, 40: 1}, (cluster,)),
    )
    for phrase in (
        "53 dialogues in 5 clusters",
        "2 dialogues 3 60.0 %",
        "5 to 9 dialogues 1 20.0 %",
        f"40 dialogues of two the similarity is 0.75 {EVIL}, a:9",
        f"contaminated by {EVIL} 3.",
        "Near duplicates of another 48 (960.00 %)",
    ):
        assert phrase in made.text, phrase
    assert [text for _, text in made.marked if text in ("b", "c")] == ["b", "c"]
    made.check_loads_nothing()


@pytest.mark.usefixtures("ray_cluster")
def test_nothing_kept_is_a_page_too(tmp_path: Path) -> None:
    rows = [{"source": f"a:{n}", "reason": "empty", "detail": "", "messages": None} for n in range(3)]
    artifact, files = written(tmp_path, dropped=(DROPPED_DIALOGUES, rows))
    report = Report(3, 0, {"empty": 3}, files)
    assert "3 rows = 0 kept + 3 dropped" in page(artifact, report, count_read(artifact, report)).text


@pytest.mark.usefixtures("ray_cluster")
def test_examples_do_not_depend_on_the_files(tmp_path: Path) -> None:
    rows = [{"source": f"a:{n}", "reason": ("tie", "empty")[n % 2], "detail": ""} for n in range(200)]
    found = []
    for name, parts in (("one", [rows]), ("many", [rows[i::23] for i in range(23)])):
        artifact, files = Run(str(tmp_path / name)).artifact("dialogues"), {}
        Path(artifact.path, "dropped").mkdir(parents=True)
        for number, part in enumerate(parts):
            files[f"dropped/{number}.parquet"] = len(part)
            pq.write_table(pa.Table.from_pylist(part, schema=DROPPED), f"{artifact.path}/dropped/{number}.parquet")
        scanned = scan(artifact, Report(files=files))
        assert scanned.dropped == {("a", "tie"): 100, ("a", "empty"): 100}
        found.append({group: [place.hash for place in places] for group, places in scanned.places.items()})
    assert found[0] == found[1]
    assert [len(hashes) for hashes in found[0].values()] == [EXAMPLES, EXAMPLES]


def test_the_flow_accounts_for_every_row() -> None:
    steps = {"a": StepCount(9, 3, 2, 0.0, {"empty": 2}), "b": StepCount(7)}
    report = Report(8, 3, {"empty": 4, "wrong_roles": 1, "repeated": 2}, added=2, tally=StepCounts(steps))
    read = ReadCounts(unread=Counter({"empty": 1}), dropped={"empty": 4, "wrong_roles": 1})
    assert dialogues_report.flow(report, read) == [
        FlowStep("reading", 10, [("empty", 1)]),
        FlowStep("a", 9, [("empty", 2)], 3),
        FlowStep("b", 7, [], 0),
        FlowStep("form of what is left", 7, [("empty", 1), ("wrong_roles", 1)]),
        FlowStep("repeated", 5, [("repeated", 2)]),
    ]
    assert dialogues_report.flow(report, read)[-1].after == report.rows_out


def test_files_beyond_some_are_taken_together() -> None:
    kept = Counter({f"/data/all/{number}.jsonl": number + 1 for number in range(40)})
    rows = dialogues_report.source_rows(Scan(kept, Counter({("/data/all/0.jsonl", "tie"): 500})))
    assert [row.name for row in rows[:2]] == ["0.jsonl", "39.jsonl"]
    assert (rows[-1].name, sum(row.rows for row in rows)) == ("10 more files", kept.total() + 500)
