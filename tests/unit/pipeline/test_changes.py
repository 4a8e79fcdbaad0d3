"""What changes is noticed, and named: each test makes one change and asks how the stages stand."""

from __future__ import annotations

import functools
import http.server
import json
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.pipeline.quiet import Quiet, without_a_cluster
from zephyr_ray import chat_template, zephyr
from zephyr_ray.config import loader
from zephyr_ray.config.feedback import Deployment, OfflineModel
from zephyr_ray.config.model import Chat
from zephyr_ray.config.section import Values
from zephyr_ray.data.io import sources
from zephyr_ray.errors import UserError
from zephyr_ray.inference.pool import _member_identity
from zephyr_ray.pipeline import code, model_source, provenance, runner
from zephyr_ray.pipeline.artifacts import Run
from zephyr_ray.pipeline.file_versions import file_versions
from zephyr_ray.pipeline.stage import Stage, StageContext, identities
from zephyr_ray.pipeline.status import changes, status_of
from zephyr_ray.pipeline.tokenizer import TokenizerSource
from zephyr_ray.pipeline.weights import weights_id
from zephyr_ray.serving.stage_deployments import Application, served_model
from zephyr_ray.storage import open_filesystem, write_bytes

TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos_token }}{% endfor %}"
PAIR = '{"prompt": "a", "chosen": "b", "rejected": "c"}\n'
OFFLINE = "sampling.pool=[{type: offline, name: big, model: other}]"
REWARD = "judging.judge={type: reward_model, model: other}"
RECIPE = (
    "run.root=run",
    "model.path=model",
    "sft.base=model",
    "dialogues.train=rows.jsonl",
    "prompts.train=rows.jsonl",
    "preferences.train=rows.jsonl",
    "sampling.pool=[{type: deployment, name: mine, model: sft}]",
    "judging.judge={type: function, function: 'plugin.judge:judge'}",
)
UNCHANGED = {
    "dialogues": "7d851b381ba4",
    "tokenized_dialogues": "0111d931d65a",
    "sft": "5609c2b273f2",
    "prompts": "d8125d30198f",
    "candidates": "be7080edb0f6",
    "judgments": "8631a8713fdc",
    "preferences": "71ec997ef02a",
    "tokenized": "660e077b5c1a",
    "reference_logps": "4b0160182615",
    "dpo": "3140da7f459c",
}
"""Fingerprints of a recipe without templates in files, offline models and imports. They change with each new field; a
run of an earlier version keeps its own (test_status.py)."""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: rows, models, a template and a plug-in of the user's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] in ("plugin", "alone")]:
        monkeypatch.delitem(sys.modules, name)  # of an earlier test's folder
    for name in ("model", "other"):
        (tmp_path / name).mkdir()
        for file in ("config.json", "tokenizer.json", "model.safetensors"):
            (tmp_path / name / file).write_text("{}")
    (tmp_path / "rows.jsonl").write_text(PAIR)
    (tmp_path / "chat.jinja").write_text(TEMPLATE)
    (tmp_path / "plugin").mkdir()
    for name, text in {
        "__init__": "",
        "judge": "from plugin import limits\ndef judge(messages, answer): return float(len(answer) < limits.most())\n",
        "rows": "def rows(seed):\n    from .limits import most\n    yield {'prompt': str(most())}\n",
        "limits": "import numbers_of\ndef most(): return numbers_of.MOST\n",
    }.items():
        (tmp_path / "plugin" / f"{name}.py").write_text(text)
    (tmp_path / "numbers_of.py").write_text("MOST = 5\n")
    return tmp_path


def stages(*overrides: str) -> list[Stage]:
    return zephyr.stages(loader.load([], [*RECIPE, *overrides]))


def finish(pipeline: list[Stage], **more: Any) -> None:
    """Leaves manifests as if every stage were made."""
    shutil.rmtree("run", ignore_errors=True)
    run = Run("run")
    for stage in pipeline:
        known, artifact = identities(pipeline, run)[stage], run.artifact(stage.name)
        artifact.begin(known.fingerprint)
        made = {"fingerprint": known.fingerprint, "inputs": known.inputs, "config": stage.config, "files": []}
        artifact.finish(made | provenance.record(stage) | more)


def standing(pipeline: list[Stage]) -> dict[str, str]:
    """The status of each stage."""
    run = Run("run")
    return {
        stage.name: str(status_of(run.artifact(stage.name), known.fingerprint, stage.config, known.inputs))
        for stage, known in identities(pipeline, run).items()
    }


def after(change: Callable[[], Any], *overrides: str) -> dict[str, str]:
    """The status of each stage after a change of what lies outside of the recipe."""
    finish(stages(*overrides))
    assert set(standing(stages(*overrides)).values()) == {"done"}
    change()
    return {name: status for name, status in standing(stages(*overrides)).items() if status != "done"}


def write(path: str, text: str) -> Callable[[], Any]:
    return functools.partial(Path(path).write_text, text)


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        ((), {"tokenized_dialogues", "sft", "tokenized", "dpo"}),
        ((OFFLINE,), {"tokenized_dialogues", "sft", "candidates", "tokenized", "dpo"}),
        ((REWARD,), {"tokenized_dialogues", "sft", "judgments", "tokenized", "dpo"}),
    ],
)
def test_the_text_of_a_template(overrides: tuple[str, ...], named: set[str]) -> None:
    stale = after(write("chat.jinja", TEMPLATE + " "), "chat.template=chat.jinja", *overrides)
    assert {name for name, status in stale.items() if "input chat.template" in status} == named
    assert after(write("chat.jinja", TEMPLATE), *overrides) == {}


def test_a_template_that_changes_while_a_command_runs_is_used_by_none_of_its_stages(byte_tokenizer: str) -> None:
    chat = chat_template.read_template(Chat(template="chat.jinja"))
    before = chat_template.fingerprints(chat)
    Path("chat.jinja").write_text("other")
    source = TokenizerSource(model_source.ModelSource(byte_tokenizer), chat)
    assert (source.load().chat_template, chat_template.fingerprints(chat)) == (TEMPLATE, before)
    assert TokenizerSource(source.model, Chat(template="chat.jinja")).load().chat_template == "other"


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        ((OFFLINE,), {"candidates": "stale (input big)"}),
        (("sampling.pool=[{type: deployment, name: big, model: other}]",), {"candidates": "stale (input big)"}),
        ((REWARD,), {"judgments": "stale (input reward_model)"}),
    ],
)
def test_weights_in_a_folder(overrides: tuple[str, ...], named: dict[str, str]) -> None:
    stale = after(write("other/model.safetensors", "[]"), *overrides)
    assert {name: stale[name] for name in named} == named
    assert {"tokenized", "dpo"} & {*stale} == set()


class Hub:
    """Stands for the hub: what branches of models and datasets point to."""

    def __init__(self) -> None:
        self.commit, self.asked = "1" * 40, 0

    def model_info(self, repo: str, *, revision: str | None, timeout: float = 0) -> Any:
        self.asked += 1
        return SimpleNamespace(sha=self.commit if revision in (None, "main") else revision)

    dataset_info = model_info


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    made = Hub()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: made)
    return made


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("sampling.pool=[{type: offline, name: big, model: org/big}]", {"candidates": "input big"}),
        ("sampling.pool=[{type: deployment, name: big, model: org/big}]", {"candidates": "input big"}),
        ("judging.judge={type: reward_model, model: org/big, revision: main}", {"judgments": "input reward_model"}),
        ("model.path=org/big", {"tokenized": "input model", "reference_logps": "input model", "dpo": "input model"}),
        ("sft.base=org/big", {"tokenized_dialogues": "input base", "sft": "input base"}),
        ("preferences.train=org/rows@main", {"preferences": "input preferences"}),
        ("prompts.train={type: dataset, id: org/rows, split: test}", {"prompts": "input prompts"}),
    ],
)
def test_a_new_commit_on_the_hub(override: str, named: dict[str, str], hub: Hub) -> None:
    finish(stages(override))
    recorded = [(Run("run").artifact(name).manifest() or {})["commits"] for name in named]
    assert {commit for commits in recorded for commit in commits.values()} == {"1" * 40}
    hub.commit = "2" * 40
    now = standing(stages(override))
    assert {name: now[name].startswith("stale") and what in now[name] for name, what in named.items()} == dict.fromkeys(
        named, True
    )


def test_what_is_loaded_is_the_commit_of_the_fingerprint(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Although the branch goes on while the command runs."""
    member = Deployment(type="deployment", name="big", model="org/big")
    offline = OfflineModel(type="offline", name="bulk", model="org/big", engine={"revision": "main"})
    pool = model_source.pool_models("sampling.pool", [member, offline], {})
    start = model_source.ModelInput("model", "model.path", "org/big", "main")
    rows = sources.OutsideRows("prompts", "org/rows")
    before = pool.outside(), start.outside(), rows.fingerprints()
    hub.commit = "2" * 40
    assert (pool.outside(), start.outside(), rows.fingerprints()) == before
    assert start.source(Run("run")).revision == "1" * 40
    served, bulk = pool.at_commits([member, offline])
    assert isinstance(served, Deployment)
    assert isinstance(bulk, OfflineModel)
    assert served_model(served, Run("run"), {}).revision == "1" * 40
    assert bulk.engine == {"revision": "1" * 40}
    assert rows.at_commits == ("org/rows@" + "1" * 40,)
    opened = []
    monkeypatch.setattr(
        sources.readers, "open_hub", lambda *names: opened.append(names) or SimpleNamespace(num_shards=1)
    )
    sources.parts_of(rows.at_commits)
    assert opened == [("org/rows", "train", "1" * 40)]


def test_engine_options_that_change_answers() -> None:
    """And those that do not, which change neither the stage nor the keys of its replies."""

    def pool(engine: str) -> str:
        return f"sampling.pool=[{{type: deployment, name: mine, model: sft, engine: {engine}}}]"

    def key(engine: dict[str, Any]) -> str:
        member = Deployment(type="deployment", name="mine", model="sft", engine=engine)
        return _member_identity(member, {"mine": Application("application", "weights")})

    finish(stages())
    assert standing(stages(pool("{gpu_memory_utilization: 0.8, max_num_seqs: 8}")))["candidates"] == "done"
    assert key({"gpu_memory_utilization": 0.8, "max_num_seqs": 8}) == key({})
    for changed in ("{quantization: fp8}", "{hf_overrides: {rope_theta: 1}}", "{kv_cache_dtype: fp8}"):
        finish(stages())
        assert standing(stages(pool(changed)))["candidates"] == "stale (input mine engine)"
        finish(stages(pool(changed)))
        assert standing(stages())["candidates"] == "stale (input mine engine)"
    assert len({key({}), key({"quantization": "fp8"}), key({"quantization": "awq"})}) == 3


@pytest.mark.parametrize(
    ("override", "stage", "status"),
    [
        ("run.seed=0", "judgments", "stale (input function imports)"),
        ("prompts.train={type: function, function: 'plugin.rows:rows'}", "prompts", "stale (input prompts imports)"),
        ("sft.base={function: 'plugin.rows:rows'}", "base", "stale (input function imports)"),
        (
            "evaluation.functions=[{name: mine, function: 'plugin.judge:judge', models: [sft]}]",
            "mine",
            "stale (input function imports)",
        ),
    ],
)
def test_a_module_that_a_plug_in_imports(override: str, stage: str, status: str) -> None:
    """The plug-in's module names `limits`, in a function or at the top, which names `numbers_of` beside the package."""
    assert after(write("numbers_of.py", "MOST = 500\n"), "model.path=null", override)[stage] == status


def test_a_module_beside_the_plug_in_that_it_does_not_import() -> None:
    assert after(write("another.py", "MOST = 500\n")) == {}


class Server(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def web(folder: Path) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Server, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def put(uri: str, text: str) -> None:
    filesystem, path = open_filesystem(uri)
    write_bytes(filesystem, path, text.encode())


def test_a_web_file_of_equal_size(web: str) -> None:
    Path("web.jsonl").write_text(PAIR)

    def change() -> None:
        time.sleep(1.1)  # a second is the unit of Last-Modified
        Path("web.jsonl").write_text(PAIR.replace("a", "x"))

    status = after(change, f"preferences.train={web}/web.jsonl")["preferences"]
    assert status == "stale (input preferences versions)"


def test_files_of_equal_size_in_a_bucket(bucket: str) -> None:
    put(f"{bucket}/rows.jsonl", PAIR)
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        put(f"{bucket}/model/{name}", "{}")

    def change() -> None:
        put(f"{bucket}/rows.jsonl", PAIR.replace("a", "x"))
        put(f"{bucket}/model/model.safetensors", "[]")

    before = model_source.external_source("model.path", f"{bucket}/model", None).fingerprint
    stale = after(change, f"preferences.train={bucket}/rows.jsonl", f"model.path={bucket}/model")
    assert "input preferences versions" in stale["preferences"]
    assert "input model versions" in stale["dpo"]
    assert model_source.external_source("model.path", f"{bucket}/model", None).fingerprint != before


def test_our_code_and_libraries_are_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stage stays done."""
    pipeline = stages()
    finish(pipeline)
    tokenized = next(stage for stage in pipeline if stage.name == "tokenized")
    manifest = Run("run").artifact("tokenized").manifest() or {}
    assert provenance.notes(manifest, tokenized) == []
    older = json.loads(json.dumps(manifest))
    older["code"]["zephyr_ray.chat_template"] = "other"
    older["environment"] |= {"ray": "1", "transformers": "1", "torch": "1"}  # neither of Ray and torch decides its rows
    now = manifest["environment"]["transformers"]
    assert provenance.notes(older, tokenized) == [
        "stale (code): chat_template changed since it was made",
        f"made with other versions: transformers 1 -> {now}",
    ]
    assert provenance.notes({"environment": {}}, tokenized) == []  # of an earlier version, which did not say
    assert standing(pipeline)["tokenized"] == "done"


@pytest.mark.parametrize(("status", "recorded"), [(" M zephyr_ray/schemas.py", True), ("", False), (None, None)])
def test_whether_our_code_had_uncommitted_changes_is_recorded(
    monkeypatch: pytest.MonkeyPatch, status: str | None, recorded: bool | None
) -> None:
    """An installed package has no commit, and does not say."""
    monkeypatch.setattr(provenance, "_git", lambda *asked: status if asked[0] == "status" else "1")
    provenance._has_uncommitted_changes.cache_clear()
    (stage,) = [each for each in stages() if each.name == "preferences"]
    assert provenance.record(stage).get("uncommitted") == recorded
    provenance._has_uncommitted_changes.cache_clear()


def test_a_finished_training_that_ended_with_an_alarm_or_did_not_watch_these_rows_says_so() -> None:
    pipeline = stages("dialogues.held_out=rows.jsonl")
    finish(pipeline, alarms=["ALARM: it rose"])
    planned = runner.Plan(Run("run"), tuple(pipeline), identities(pipeline, Run("run")))
    sft = next(stage for stage in pipeline if stage.name == "sft")
    assert planned.is_done(sft)
    assert planned.notes(sft) == ["ALARM: it rose", "made without this held_out_tokenized_dialogues"]
    finish(pipeline, watched=planned.watched(sft))
    assert planned.notes(sft) == []


def test_what_an_earlier_version_did_not_record_is_not_known() -> None:
    older = {"inputs": {"candidates": "1", "function": "2"}, "environment": {}}
    now = {"candidates": "1", "function": "2", "function imports": "3"}
    assert provenance.unknown_inputs(older, now) == ["function imports"]
    assert provenance.unknown_inputs(older | {"code": {}}, now) == []


def test_a_store_that_cannot_be_asked_is_told_and_no_error(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("obstore.head", lambda store, path: 1 / 0)
    uris = ["s3://bucket/a", "s3://bucket/b", "unknown://x/c", "d", "file:///e"]
    assert file_versions(uris) == [None] * 5
    told = [record.getMessage().partition(": ")[0] for record in caplog.records]
    assert told == ["s3://bucket", "unknown://x/c"]


def test_code_is_what_a_stage_imports_without_its_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    monkeypatch.setattr(code, "_PACKAGE", tmp_path)

    def hashes(rows: str, helper: str) -> dict[str, str]:
        (tmp_path / "data" / "rows.py").write_text(rows)
        (tmp_path / "data" / "helper.py").write_text(helper)
        (tmp_path / "data" / "another.py").write_text("")
        for cached in (code._tree, code._imports, code._hash):
            cached.cache_clear()
        return code.code_of(["zephyr_ray.data.rows", "json"])

    rows = "def make():\n    from zephyr_ray.data import helper\n    return helper.N\n"
    before = hashes(rows, "N = 1\n")
    assert set(before) == {"zephyr_ray.data.rows", "zephyr_ray.data.helper"}
    assert hashes(rows, '"""Says what it is for."""\nN = 1  # a comment\n') == before
    after = hashes(rows, "N = 2\n")
    assert {name for name in before if before[name] != after[name]} == {"zephyr_ray.data.helper"}
    for cached in (code._tree, code._imports, code._hash):
        cached.cache_clear()


def trained(weights: str | None) -> None:
    """Leaves a manifest of `sft` with these weights."""
    artifact = Run("run").artifact("sft")
    manifest = artifact.manifest() or {}
    Path("run/sft/manifest.json").write_text(json.dumps(manifest | ({"weights": weights} if weights else {})))


def test_weights_that_were_trained_anew(folder: Path) -> None:
    """By the same recipe: other weights are another model for caches and for what was made from it."""
    pipeline = stages("model.path=null")
    finish(pipeline, weights="1")
    assert set(standing(pipeline).values()) == {"done"}
    before = model_source.stage_source(Run("run").artifact("sft"))
    trained("2")
    stale = {name: status for name, status in standing(pipeline).items() if status != "done"}
    assert "input sft weights" in stale["candidates"]
    assert "input sft weights" in stale["dpo"]
    assert {"dialogues", "tokenized_dialogues", "sft", "prompts", "preferences", "tokenized"} & {*stale} == set()
    again = model_source.stage_source(Run("run").artifact("sft"))
    assert (again.path, again._cache_key() != before._cache_key()) == (before.path, True)
    trained("1")
    assert set(standing(pipeline).values()) == {"done"}


def test_a_stage_of_weights_that_are_made_anew_in_the_same_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused where other weights come out, and done where the same do. What is made is recorded with them."""
    without_a_cluster(monkeypatch)
    made: list[str] = []

    def pipeline(weights: str) -> list[Stage]:
        def make(context: StageContext) -> dict[str, Any]:
            made.append(context.stage.name)
            return {"files": [], "weights": weights} if context.stage.makes_model else {"files": []}

        sft = Stage("sft", "steps", {}, make, makes_model=True)
        return [sft, Stage("dpo", "steps", {}, make, inputs={"sft": sft})]

    def run(weights: str, *overwrite: str) -> list[str]:
        made.clear()
        planned = runner.plan(Run("run"), pipeline(weights))
        runner.bring_up_to_date(planned, Quiet(), runner.Consent(overwrite=overwrite, lease=False))
        return list(made)

    assert run("1") == ["sft", "dpo"]
    recorded = Run("run").artifact("dpo").manifest() or {}
    assert recorded["inputs"]["sft weights"] == "1"
    assert recorded["begun"] <= recorded["ended"]
    assert run("1") == []
    shutil.rmtree("run/sft")
    assert run("1") == ["sft"]
    shutil.rmtree("run/sft")
    with pytest.raises(UserError, match=r"would replace dpo .*changed: input sft weights"):
        run("2")
    assert run("2", "dpo") == ["dpo"]


def test_a_checkpoint_that_was_deleted_is_not_held_against_what_was_made_from_it() -> None:
    pipeline = stages("model.path=null")
    finish(pipeline, weights="1")
    Path("run/sft/manifest.json").unlink()
    assert {name for name, status in standing(pipeline).items() if status != "done"} == {"sft"}


def test_runs_without_an_identity_of_weights_stay_as_they_are() -> None:
    pipeline = stages("model.path=null")
    finish(pipeline)
    assert identities(pipeline, Run("run"))[pipeline[-1]].inputs == identities(pipeline)[pipeline[-1]].inputs
    source = model_source.stage_source(Run("run").artifact("sft"))
    assert source.fingerprint == (Run("run").artifact("sft").manifest() or {})["fingerprint"]


def test_the_identity_of_weights_is_their_content(tmp_path: Path) -> None:
    for name, parts in {"a": ("1", "2"), "b": ("1", "2"), "c": ("1", "3"), "d": ("12", "")}.items():
        (tmp_path / name).mkdir()
        for number, part in enumerate(parts):
            (tmp_path / name / f"model-{number}.safetensors").write_text(part)
        (tmp_path / name / "README.md").write_text(name)
    found = [weights_id(str(tmp_path / name)) for name in "abcd"]
    assert found[0] == found[1]
    assert len({*found}) == 3


def test_a_run_from_before_any_of_the_fields_is_not_stale() -> None:
    """Of every section of every stage, each field that has a default might be newer than the run."""
    tried, plain = 0, set()
    for stage in stages("preferences.held_out=other.jsonl", "dialogues.held_out=other.jsonl"):
        for name, section in stage.config.items():
            if not isinstance(section, Values):
                plain |= {f"{stage.name}.{name}"} if isinstance(section, dict) else set()
                continue
            for field in [field for field, value in section.defaults.items() if section.get(field) == value]:
                earlier = {**stage.config, name: {key: section[key] for key in section if key != field}}
                assert changes({"config": earlier}, stage.config, {}) == [], (stage.name, name, field)
                tried += 1
    assert {each.partition(".")[2] for each in plain} == {"model", "arithmetic"}  # which are no sections
    assert tried > 50


def test_fingerprints_are_what_they_were() -> None:
    """So that no change of code makes them others by accident."""
    Path("alone.py").write_text("def judge(messages, answer): return 1.0\n")
    pool = "sampling.pool=[{type: deployment, name: mine, model: other, engine: {max_num_seqs: 8}}]"
    pipeline = stages(pool, "judging.judge={type: function, function: 'alone:judge'}")
    assert {stage.name: known.fingerprint[:12] for stage, known in identities(pipeline).items()} == UNCHANGED
