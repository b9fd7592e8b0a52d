"""Token probabilities of recorded answers: read off completions and streams, kept small, carried to examples."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from suffice.core.chances import unpacked
from suffice.core.types import Example
from suffice.learn import curate
from suffice.store.records import Row
from suffice.wire import dialects, sse

Told = list[tuple[str, dict[str, float]]]
ANSWER: Told = [
    ("Ship", {"Ship": 0.7, "Hold": 0.2995, "Zap": 0.0005}),
    (" it", {" it": 1.0}),
    (".", {".": 0.9, "!": 0.1}),
]


def entries(told: Told) -> list[dict[str, Any]]:
    return [
        {
            "token": text, "bytes": list(text.encode()), "logprob": math.log(chances[text]),
            "top_logprobs": [
                {"token": other, "bytes": list(other.encode()), "logprob": math.log(chance)}
                for other, chance in chances.items()
            ],
        }
        for text, chances in told
    ]  # fmt: skip


def completion(told: Told, **choice: Any) -> dict[str, Any]:
    content = "".join(text for text, _ in told)
    message = {"role": "assistant", "content": content}
    whole = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": {"content": entries(told)}, **choice}
    return {"id": "x", "object": "chat.completion", "choices": [whole]}


def read(document: Any) -> list[tuple[int, int, list[str]]] | None:
    found = dialects.chances_of(json.dumps(document).encode())
    if found is None:
        return None
    return [(doubt.start, doubt.end, [text for text, _ in doubt.likely]) for doubt in unpacked(found).doubts]


def test_what_was_in_doubt_is_kept_and_nothing_else() -> None:
    assert read(completion(ANSWER)) == [(0, 4, ["Ship", "Hold"]), (7, 8, [".", "!"])]
    found = dialects.chances_of(json.dumps(completion(ANSWER)).encode())
    assert found is not None
    assert unpacked(found).doubts[0].likely[1][1] == pytest.approx(math.log(0.2995))
    assert len(found) < 150


@pytest.mark.parametrize(
    "choice",
    [
        {"logprobs": None}, {"logprobs": {"content": None}}, {"logprobs": {"content": [7]}}, {"logprobs": []},
        {"message": {"role": "assistant", "content": "other"}}, {"message": None},
        {"logprobs": {"content": entries([("Ship it.", {"Ship it.": 1.0})])}},
    ],
    ids=repr,
)  # fmt: skip
def test_where_nothing_is_told_nothing_is_kept(choice: dict[str, Any]) -> None:
    assert read(completion(ANSWER, **choice)) is None


def test_parts_of_characters_are_passed_over() -> None:
    whole = completion(ANSWER)
    first, second = "ü".encode()[:1], "ü".encode()[1:]
    halves = [{"token": "?", "bytes": list(part), "logprob": -0.1, "top_logprobs": []} for part in (first, second)]
    whole["choices"][0]["logprobs"]["content"] += halves
    whole["choices"][0]["message"]["content"] += "ü"
    assert read(whole) == [(0, 4, ["Ship", "Hold"]), (7, 8, [".", "!"])]


def test_those_of_a_stream_are_put_together() -> None:
    events = [
        {"index": 0, "delta": {"content": text}, "logprobs": {"content": entries([(text, chances)]), "refusal": None}}
        for text, chances in ANSWER
    ]
    chunks = [{"object": "chat.completion.chunk", "choices": [event]} for event in events]
    raw = b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks) + b"data: [DONE]\n\n"
    assert read(sse.assemble(raw)) == read(completion(ANSWER))


def row(source: str, **body: Any) -> Row:
    asked = {"model": "m", "messages": [{"role": "user", "content": "Where is my parcel?"}], **body}
    return Row(
        id="r1", at=1.0, source=source, dialect="chat", route="frontier", status=200,
        request=json.dumps(asked).encode(), answer=json.dumps(completion(ANSWER)).encode(),
    )  # fmt: skip


def test_imported_rows_that_asked_for_them_teach_and_live_ones_escalate_as_before() -> None:
    asked = {"logprobs": True, "top_logprobs": 5}
    (example,) = curate.examples([(row("import", **asked), None)]).examples
    assert example.chances is not None and example.output == "Ship it."
    assert curate.examples([(row("live", **asked), None)]).examples == ()
    assert curate.examples([(row("import", **asked, stop=["x"]), None)]).examples == ()


def test_digests_without_them_are_what_they_were_and_with_them_others() -> None:
    bare = Example(id="a", input="x", output="y", has_output=True)
    told = Example(id="a", input="x", output="y", has_output=True, chances=b"1")
    assert bare.digest() != told.digest() and bare.unlabelled_digest() == told.unlabelled_digest()
    assert bare.digest() == "eda2086d163818ba2fe318682490ccd0b1594980b7baafa8e30779ab9603c838"
