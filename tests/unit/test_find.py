"""Finding a request's pattern: prompts first, then meaning; the same for one as for many."""

from __future__ import annotations

from collections.abc import Sequence

from suffice.core.find import EDGE_CHARS, Finder, Groups, Match
from suffice.core.match import Rule
from suffice.core.prompt import Template
from suffice.core.types import Message, Prediction, Request

HELPFUL = Rule(head=(("system", Template(("You are a helpful assistant.",))),))
SORT = Rule(head=(("system", Template(("You sort mail of ", ". Name the folder."))),))


class ByFirstWord:
    """Knows texts by their first word, is unsure of "perhaps", and finds "odd" unfamiliar."""

    def __init__(self) -> None:
        self.read: list[str] = []

    def predict(self, inputs: Sequence[str]) -> list[Prediction]:
        self.read += inputs
        return [
            Prediction(
                value={"sum": "g0", "translate": "g1"}.get(text.split()[0] if text else "", "g9"),
                score=0.4 if "perhaps" in text else 0.9,
                familiar="odd" not in text,
            )
            for text in inputs
        ]


def request(system: str, user: str) -> Request:
    return Request(model="m", messages=(Message("system", system), Message("user", user)))


def finder(matcher: ByFirstWord | None = None) -> Finder:
    groups = Groups(matcher=matcher or ByFirstWord(), least=0.5, patterns={"g0": 10, "g1": 11})
    return Finder([(1, HELPFUL), (2, SORT)], {1: groups})


def test_a_prompt_tells_by_itself_and_its_groups_by_meaning() -> None:
    found = finder()
    assert found.find(request("You are a helpful assistant.", "sum 1 and 2")) == Match(10, "meaning")
    assert found.find(request("You are a helpful assistant.", "translate this")) == Match(11, "meaning")
    assert found.find(request("You sort mail of ACME. Name the folder.", "sum 1 and 2")) == Match(2, "template")
    assert found.find(request("Something else.", "sum 1 and 2")) is None


def test_what_belongs_to_no_group_belongs_to_the_prompt() -> None:
    for text in ("what is love", "sum perhaps", "sum odd", ""):
        assert finder().find(request("You are a helpful assistant.", text)) == Match(1, "fingerprint")


def test_many_at_once_find_the_same_and_ask_the_matcher_once_for_each_prompt() -> None:
    matcher = ByFirstWord()
    asked = [request("You are a helpful assistant.", text) for text in ("sum 1", "hello", "translate x" * 1000)]
    asked.insert(1, request("Something else.", "x"))
    assert finder(matcher).find_all(asked) == [finder().find(one) for one in asked]
    assert [len(text) <= 2 * EDGE_CHARS + 1 for text in matcher.read] == [True] * 3
