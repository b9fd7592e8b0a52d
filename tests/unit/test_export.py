"""What an export is made of: the layout of answers, the cutoff, characters, hashes, the card, bad input."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from suffice.cli.export_command import compared
from suffice.cli.main import suffice
from suffice.core.errors import InputError
from suffice.core.style import Style, infer
from suffice.core.types import Certificate, Choice, Choices, Fields, OutputContract, Span, ToolCall
from suffice.core.values import Value
from suffice.specialists.exporting import browser, package
from suffice.specialists.exporting.card import _promised
from suffice.specialists.exporting.layout import layout_of
from suffice.specialists.heads import composer, heads_of
from suffice.specialists.linear_model import FittedHead
from suffice.specialists.scorer import sigmoid
from suffice.store.home import Home

PLACE = Choice(("Oslo", "Lima", None))
MORE = Fields((("left", PLACE), ("size", Choice((1, 2.5, None)))))
ORDER = Fields((("place", PLACE), ("tags", Choices(("a", "b"))), ("more", MORE)))
SAID: list[Value] = [
    {"place": "Oslo", "tags": ["a"], "more": {"left": "Lima", "size": 1}},
    {"place": "Lima", "tags": ["a", "b"], "more": {"left": "Lima", "size": 2.5}},
]


def fitted(contract: OutputContract) -> list[FittedHead]:
    found, start = [], 0
    for head in heads_of(contract):
        found.append(FittedHead(head.path, head.tool, head.values, start))
        start = found[-1].stop
    return found


def runner() -> Any:
    pytest.importorskip("onnxruntime")
    import importlib.util

    spec = importlib.util.spec_from_file_location("exported_runner", package.TEMPLATES / package.RUNNER)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


STYLES = {
    "bare": Style(kind="json"),
    "pretty": infer([json.dumps(said, indent=2) for said in SAID], short_form=False),
    "fenced": infer([f"```json\n{json.dumps(said, separators=(',', ':'))}\n```" for said in SAID], short_form=False),
    "silent fields": infer(
        [*(json.dumps(said) for said in SAID),
         json.dumps({"place": None, "tags": [], "more": {"left": None, "size": 1}}),
         json.dumps({"place": "Oslo", "tags": [], "more": {"left": None, "size": None}})], short_form=False),
    "decimals": Style(kind="json_text", decimals={"more.size": 2}, keys={"": ("more", "place")}, inline=True, indent=1),
    "forms": Style(kind="json_text", keys={"": ("place", "tags", "more")}, absent={"place": "null", "tags": "list"},
                   sets={"": (("place", "more"), ("place", "tags"))}),
}  # fmt: skip


@pytest.mark.parametrize("name", STYLES)
def test_answers_are_written_as_the_server_writes_them(name: str) -> None:
    style, heads, compose = STYLES[name], fitted(ORDER), composer(ORDER)
    layout, module, dice = layout_of(ORDER, style, heads), runner(), random.Random(0)
    for _ in range(200):
        picks = [dice.randrange(len(head.values)) for head in heads]
        wrong: list[str] = []
        text = module._node({**layout.root}, picks, wrong, True)
        output = json.loads(text) if layout.parsed else layout.before + text + layout.after
        value = compose({head.path: head.values[at] for head, at in zip(heads, picks, strict=True)})
        assert output == style.value(value) and not wrong


def test_a_call_and_no_call() -> None:
    contract = ToolCall((("book", Fields((("place", PLACE),))), ("stop", Fields(()))), none_allowed=True)
    heads, style = fitted(contract), Style(kind="calls", item=",", colon=":")
    layout, module = layout_of(contract, style, heads), runner()
    for which, place in ((0, -1), (1, 0), (1, 2), (2, -1)):
        found = {heads[0].path: heads[0].values[which]}
        if place >= 0:
            found[heads[1].path] = heads[1].values[place]
        said = json.loads(module._node(layout.root, [which, place], [], True))
        assert said == style.value(composer(contract)(found))


def test_an_answer_outside_of_its_contract_is_told() -> None:
    contract = Fields((("place", PLACE), ("tags", Choices(("a", "b"), least=2))), required=("place",))
    heads, module = fitted(contract), runner()
    layout = layout_of(contract, Style(kind="json"), heads)
    for picks, wrong in (([0, 1, 1], 0), ([2, 1, 1], 1), ([0, 1, 0], 1), ([0, 0, 0], 0)):
        told: list[str] = []
        module._node(layout.root, picks, told, True)
        assert len(told) == wrong


def test_what_is_no_closed_question_is_no_layout() -> None:
    with pytest.raises(InputError, match="pieces of the input"):
        layout_of(Fields((("name", Span()),)), Style(kind="json"), [])


def test_the_cutoff_is_a_rounding_below_the_threshold() -> None:
    for threshold in (1e-9, 0.2, 0.5, 0.987654, 1 - 1e-9):
        cut = package.cutoff(threshold)
        assert cut < threshold or threshold in (0, 1)
        apart = abs(package.log_odds(cut) - package.log_odds(threshold))
        assert apart < 2 * package.SLACK * max(1, abs(package.log_odds(threshold)))
    assert package.cutoff(sigmoid(1e9)) <= sigmoid(1e9)


def test_ranges_hold_what_they_were_made_of() -> None:
    codes = sorted(random.Random(1).sample(range(200), 90))
    assert [code for first, behind in browser.ranges(codes) for code in range(first, behind)] == codes


def test_what_is_answered_or_decided_otherwise_is_named() -> None:
    asked: list[tuple[str, str, list[str]]] = [(str(at), "text", []) for at in range(4)]
    wanted = [{"output": "a", "score": 0.5, "reason": "accepted"}] * 3 + [
        {"output": "a", "score": 0.5, "reason": "unfamiliar"}
    ]
    said = iter(
        [
            wanted[0],
            {**wanted[0], "output": "b"},
            {**wanted[0], "reason": "below_threshold"},
            {**wanted[3], "output": "b", "score": 0.6},
        ]
    )
    differing, largest = compared(asked, wanted, lambda text, slices: next(said))
    assert differing == ["1", "2"] and largest > 0.4


# ---------------------------------------------------------------------------------------------- bad input


def test_no_onnxruntime_web_where_it_is_said_to_be(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no onnxruntime-web is installed there"):
        browser._copied(tmp_path, tmp_path)


def test_without_npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="needs the npm package onnxruntime-web"):
        browser._fetched(tmp_path)


def test_another_kind_of_tokenizer(tmp_path: Path) -> None:
    told: dict[str, Any] = {"model": {"type": "Unigram"}, "added_tokens": [], "normalizer": None, "pre_tokenizer": None}
    (tmp_path / "tokenizer.json").write_text(json.dumps(told))
    with pytest.raises(InputError, match="splits words as BERT or Llama do"):
        browser.pieces_of(tmp_path / "tokenizer.json")


def test_a_folder_that_holds_something(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = tmp_path / "home"
    Home(home)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "kept").write_text("mine")
    for to, words in (("full", "not empty"), ("full/kept", "this is a file")):
        assert suffice.main(["export", "triage", "--home", str(home), "--to", str(tmp_path / to)]) == 2
        assert words in capsys.readouterr().err
    assert (tmp_path / "full" / "kept").read_text() == "mine"
    assert suffice.main(["export", "triage", "--home", str(home), "--to", str(tmp_path / "new")]) == 1
    assert "there is no release triage" in capsys.readouterr().err
    assert suffice.main(["export", "triage", "--home", str(home), "--to", str(tmp_path / "new"), "--as", "pdf"]) == 2
    assert suffice.main(["export", "a b", "--home", str(home), "--to", str(tmp_path / "new")]) == 2
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(("loss", "says"), [("rouge >= 0.6", "at most 2.00% of all"), ("rouge", "the mean loss over")])
def test_the_card_says_which_verifier_judged(loss: str, says: str) -> None:
    proof = Certificate(
        max_error=0.02, confidence=0.95, attempt=1, delta=0.05, n=100, method="exact", p_value=0.01,
        threshold=0.5, coverage=0.5, promise="agreement", reference="frontier", loss=loss,
    )  # fmt: skip
    told = " ".join(_promised(proof, "is not the frontier's"))
    assert says in told and f"judged by `{loss}`" in told
