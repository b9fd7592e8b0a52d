"""Manifests and their differences, how they are kept, and the shapes that training tools read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from suffice.core.errors import InputError
from suffice.core.style import Style
from suffice.core.types import CalibrationSet, Example, Splits, TestSet, TrainSet, TuneSet
from suffice.learn import datasets, exports
from suffice.learn.curate import Curated
from suffice.learn.exports import Exchange
from suffice.store import datasets as kept
from suffice.store import records, releases
from suffice.store.home import Home
from suffice.store.records import Row, Trusted

NOTHING = Curated(examples=(), prompt=None, short_form=True, arguments={}, dropped={"too old": ["x"]})


def example(i: int, output: str = "a", **more: Any) -> Example:
    return Example(id=f"e{i:03d}", input=f"x{i}", output=output, has_output=True, **more)


def splits(train: list[Example], tune: list[Example], rest: list[Example] | None = None) -> Splits:
    return Splits(train=TrainSet(train), tune=TuneSet(tune), calibration=CalibrationSet(rest or []), test=TestSet([]))


def manifest(*parts: list[Example]) -> datasets.Manifest:
    return datasets.manifest("t", splits(*parts), NOTHING, {})


# ---------------------------------------------------------------------------------------------- manifests


def test_a_manifest_names_every_row_its_source_and_whose_word_it_is() -> None:
    found = Curated(
        examples=(), prompt=None, short_form=True, arguments={}, dropped={"too old": ["x"]}, sources={"e001": "f00d:7"}
    )
    judged = example(1, reference="b", has_reference=True, reference_kind="rule", group="group g")
    made = datasets.manifest("t", splits([example(0)], [judged]), found, {})
    assert [(line.record, line.split, line.source, line.kind, line.group) for line in made.lines] == [
        ("e000", "train", "live", "frontier", None),
        ("e001", "tune", "f00d:7", "rule", "group g"),
    ]
    assert made.digest == splits([example(0)], [judged]).digest(), "a release names the same"
    assert made.dropped == {"too old": 1}
    assert datasets.provenance(made) == {"source": {"live": 1, "f00d": 1}, "reference": {"frontier": 1, "rule": 1}}


def test_what_changed() -> None:
    old = manifest([example(i) for i in range(5)], [example(5)])
    judged = example(3, reference="a", has_reference=True)
    new = manifest([example(0), example(1, "b"), judged, example(5), *(example(i) for i in range(6, 18))], [example(2)])
    found = datasets.diff(old, new)
    assert (len(found.added), found.removed, found.relabelled) == (12, ("e004",), ("e001", "e003"))
    assert set(found.moved) == {("e002", "train", "tune"), ("e005", "tune", "train")}
    assert found.told() == "+12 -1 (2 relabelled, 2 moved)"
    assert datasets.diff(new, new).told() == "+0 -0"
    reread = manifest([Example(id="e000", input="x0 read otherwise", output="a", has_output=True)], [])
    assert datasets.diff(manifest([example(0)], []), reread).told() == "+0 -0 (1 read otherwise)"


def test_manifests_are_kept_under_their_digests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Home(tmp_path)
    releases.ensure_task(home, "t")
    made = [manifest([example(i)], []) for i in range(6)]
    for one in made:
        datasets.keep(home, one)
    assert [one.digest for one in kept.manifests(home, "t")] == [one.digest for one in reversed(made)]
    assert datasets.kept(home, "t", made[2].digest[:10]) == made[2]
    datasets.keep(home, made[0])
    assert kept.manifests(home, "t")[0].digest == made[0].digest, "the newest again"
    for digest in ("", "nope"):
        with pytest.raises(InputError, match="no one dataset"):
            datasets.kept(home, "t", digest)
    monkeypatch.setattr(kept, "KEPT", 3)
    datasets.keep(home, made[5])
    assert [one.digest for one in kept.manifests(home, "t")] == [made[i].digest for i in (5, 0, 4)]


def row(i: int, task: str = "t") -> Row:
    body, answer = json.dumps({"input": f"x{i}"}).encode(), b'"a"'
    return Row(
        id=f"r{i:03d}", at=float(i // 2), source="import", dialect="short", task=task, route="frontier", status=200,
        input=f"x{i}", request=body, answer=answer,
    )  # fmt: skip


def test_the_newest_records_as_they_were_as_often_as_needed(tmp_path: Path) -> None:
    home = Home(tmp_path)
    records.import_rows(home, [row(i, "t" if i % 5 else "other") for i in range(50)], [Trusted("r048", "human", "b")])
    found = kept.newest(home, "t", 10)
    records.import_rows(home, [row(99)], [])
    for _ in range(2):
        assert [one.id for one, _ in found] == [f"r{i:03d}" for i in range(38, 50) if i % 5]
    assert {one.id: told.value for one, told in found if told} == {"r048": "b"}
    assert found.older() == [f"r{i:03d}" for i in range(38) if i % 5]
    assert found.served() == []
    assert [one.id for one, _ in kept.newest(home, "t", 100, since=24.0)] == ["r048", "r049", "r099"]
    assert kept.newest(home, "t", 100).older() == []


def test_what_a_specialist_answered_takes_no_room(tmp_path: Path) -> None:
    home = Home(tmp_path)
    served = [msgspec.structs.replace(row(i), route="specialist") for i in range(20, 50)]
    records.import_rows(home, [*(row(i) for i in range(20)), *served], [Trusted("r030", "human", "b")])
    found = kept.newest(home, "t", 10)
    assert [one.id for one, _ in found] == [*(f"r{i:03d}" for i in range(11, 20)), "r030"]
    assert found.served() == [f"r{i:03d}" for i in range(20, 50) if i != 30]
    assert found.older() == [f"r{i:03d}" for i in range(11)]


# ---------------------------------------------------------------------------------------------- exports

TOOL = {"type": "function", "function": {"name": "route", "parameters": {"type": "object", "properties": {"q": {}}}}}
CALL = {"id": "c1", "type": "function", "function": {"name": "route", "arguments": '{"q": "billing"}'}}


def chat(messages: list[Any], answer: dict[str, Any] | None = None, **body: Any) -> Row:
    told = {"role": "assistant", "content": "a", "refusal": None, **(answer or {})}
    return Row(
        id="r1", at=0.0, source="live", route="frontier", status=200,
        request=json.dumps({"model": "m", "messages": messages, **body}).encode(),
        answer=json.dumps({"choices": [{"index": 0, "finish_reason": "stop", "message": told}]}).encode(),
    )  # fmt: skip


def exchanged(row: Row, trusted: Trusted | None = None, style: Style | None = None) -> Exchange:
    found = exports.exchange(row, trusted, style or Style())
    assert isinstance(found, Exchange), found
    return found


SHOTS = [
    {"role": "developer", "content": "Route."},
    {"role": "user", "content": [{"type": "text", "text": "one"}]},
    {"role": "assistant", "content": "b"},
    {"role": "user", "content": "two"},
]


def test_the_messages_are_the_request_s_with_the_right_answer() -> None:
    found = exchanged(chat(SHOTS))
    assert [(m["role"], m["content"]) for m in found.messages] == [
        ("system", "Route."),
        ("user", "one"),
        ("assistant", "b"),
        ("user", "two"),
    ]
    assert found.answer == {"role": "assistant", "content": "a"}
    assert exchanged(chat(SHOTS), Trusted("r1", "human", "c")).answer["content"] == "c"
    written = Style(kind="json_text", item=",", colon=":")
    assert exchanged(chat(SHOTS), Trusted("r1", "human", {"x": 1}), written).answer["content"] == '{"x":1}'
    short = exchanged(row(1))
    assert (short.messages, short.answer["content"]) == ([{"role": "user", "content": "x1"}], "a")


def test_what_may_not_be_exported() -> None:
    key = "sk-proj-Ab3dE6gH9jKlMn0pQrStUvWx12345"
    for text in (key, f"key:\n{key}", f"key:\t{key}"):
        row = chat([{"role": "system", "content": text}, *SHOTS[1:]])
        assert exports.exchange(row, None, Style()) == exports.HOLDS_KEY
    assert exports.exchange(chat(SHOTS), Trusted("r1", "human", key), Style()) == exports.HOLDS_KEY
    image = [{"type": "image_url", "image_url": {"url": "x"}}]
    assert exports.exchange(chat([{"role": "user", "content": image}]), None, Style()) == exports.NOT_TEXT


def test_openai() -> None:
    line = exports.openai(exchanged(chat(SHOTS, tools=[TOOL], parallel_tool_calls=False)))
    assert [m.get("weight") for m in line["messages"]] == [None, None, 0, None, None]
    assert line["messages"][-1] == {"role": "assistant", "content": "a"}
    assert (line["tools"], line["parallel_tool_calls"]) == ([TOOL], False)
    called = exports.openai(exchanged(chat(SHOTS, {"content": None, "tool_calls": [CALL]}, tools=[TOOL])))
    assert called["messages"][-1] == {"role": "assistant", "tool_calls": [CALL]}
    assert "parallel_tool_calls" not in called


def test_trl() -> None:
    line = exports.trl(exchanged(chat(SHOTS, {"content": None, "tool_calls": [CALL]}, tools=[TOOL])))
    assert [m["role"] for m in line["prompt"]] == ["system", "user", "assistant", "user"]
    (answer,) = line["completion"]
    assert answer["tool_calls"][0]["function"] == {"name": "route", "arguments": {"q": "billing"}}
    assert line["tools"] == [TOOL]


def test_axolotl() -> None:
    line = exports.axolotl(exchanged(chat(SHOTS, {"content": None, "tool_calls": [CALL]}, tools=[TOOL])))
    assert [m["train"] for m in line["messages"]] == [False, False, False, False, True]
    assert line["messages"][-1]["tool_calls"] == [CALL]
    assert json.loads(line["tools"][0]["function"]["parameters"]) == TOOL["function"]["parameters"]  # type: ignore[index]


def test_llama_factory() -> None:
    two = [SHOTS[0], {"role": "user", "content": "one"}, {"role": "user", "content": "two"}]
    line = exports.llama_factory(exchanged(chat(two, {"content": None, "tool_calls": [CALL]}, tools=[TOOL])))
    assert not isinstance(line, str)
    assert [m["role"] for m in line["messages"]] == ["system", "user", "function_call"]
    assert line["messages"][1]["content"] == "one\n\ntwo"
    assert json.loads(line["messages"][2]["content"]) == [{"name": "route", "arguments": {"q": "billing"}}]
    assert json.loads(line["tools"]) == [TOOL["function"]]
    twice = [*SHOTS[:3], {"role": "assistant", "content": "c"}, SHOTS[3]]
    assert exports.llama_factory(exchanged(chat(twice))) == exports.NOT_IN_TURNS
    seen = [
        *SHOTS[:2],
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c1", "content": "done"},
    ]
    found = exports.llama_factory(exchanged(chat(seen)))
    assert not isinstance(found, str)
    assert [m["role"] for m in found["messages"]] == ["system", "user", "function_call", "observation", "assistant"]


@pytest.mark.parametrize(
    "written", [{"train": 5, "tune": 2}, {"train": 5, "tune": 0}, {"test": 3}], ids=["both", "no tune", "test alone"]
)
def test_the_configurations_name_the_files_there_are(written: dict[str, int]) -> None:
    train = "train" if "train" in written else "test"
    validate = "tune" if written.get("tune") else None
    found = yaml.safe_load(exports.axolotl_files("5", written)["axolotl.yaml"])
    (trained,) = found["datasets"]
    assert trained["path"] == f"{train}.jsonl"
    assert (trained["type"], trained["ds_type"]) == ("chat_template", "json")
    assert (trained["message_field_training"], trained["roles_to_train"]) == ("train", [])
    assert [one["path"] for one in found.get("test_datasets", [])] == ([f"{validate}.jsonl"] if validate else [])
    assert isinstance(found["learning_rate"], float)
    files = exports.llama_factory_files("5", written)
    info, config = json.loads(files["dataset_info.json"]), yaml.safe_load(files["llama-factory.yaml"])
    assert {entry["file_name"] for entry in info.values()} == {f"{n}.jsonl" for n in (train, validate) if n}
    assert info.keys() == {config["dataset"], *([config["eval_dataset"]] if validate else [])}
    assert (config["stage"], config["mask_history"], config["dataset_dir"]) == ("sft", True, ".")
    assert isinstance(config["learning_rate"], float)
