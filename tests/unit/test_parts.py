"""Requests come back to the byte, whatever was cut out of them."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from suffice.store import parts
from suffice.store.parts import LEAST_BYTES, Cutter

LONG = "a system prompt that everybody sends " * 10


class Table:
    """Parts by number, as the database has them."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []

    def add(self, piece: bytes) -> int:
        if piece not in self.bodies:
            self.bodies.append(piece)
        return self.bodies.index(piece)


def again(left: bytes, cuts: str | None, table: Table) -> bytes:
    return parts.join(left, cuts, table.bodies.__getitem__) if cuts is not None else left


def request(user: str, system: str = LONG) -> bytes:
    tools = [{"type": "function", "function": {"name": "f", "description": LONG}}]
    messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
    return json.dumps({"model": "m", "messages": messages, "tools": tools, "n": 1}).encode()


def test_what_comes_again_is_cut_and_what_comes_once_is_not() -> None:
    cutter, table = Cutter(), Table()
    assert cutter.cut(request("one"), table.add) == (request("one"), None)
    left, cuts = cutter.cut(request("two"), table.add)
    assert cuts is not None and len(left) < 150 and len(table.bodies) == 2
    assert again(left, cuts, table) == request("two")
    assert int(cuts.split()[0]) == len(request("two"))
    left, cuts = cutter.cut(request("two", "another prompt " * 30), table.add)
    assert b"another prompt" in left and again(left, cuts, table) == request("two", "another prompt " * 30)


def test_whose_parts_were_taken_back_makes_them_again() -> None:
    cutter, table = Cutter(), Table()
    for user in "abc":
        cutter.cut(request(user), table.add)
    cutter.forget()
    other = Table()
    left, cuts = cutter.cut(request("d"), other.add)
    assert again(left, cuts, other) == request("d") and len(other.bodies) == 2


_TEXTS = st.sampled_from([LONG, LONG + '"\\é ', "x" * LEAST_BYTES, "y" * (LEAST_BYTES - 3), "short", "<1:2,3:4>" * 40])
_JSON = st.recursive(
    _TEXTS | st.none() | st.integers(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["content", "a", "tools"]), inner),
    max_leaves=8,
)
_BODIES = st.one_of(
    st.binary(max_size=600),
    st.dictionaries(st.sampled_from(["messages", "input", "system", "tools", "model", "é"]), _JSON).flatmap(
        lambda body: st.sampled_from(
            [
                json.dumps(body).encode(),
                json.dumps(body, ensure_ascii=False, indent=3).encode(),
                json.dumps(body).encode() + b"  trailing",
                json.dumps(body).replace('"system"', '"tools"').encode(),
            ]
        )
    ),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(_BODIES, max_size=12), st.integers(0, 11))
def test_every_request_is_read_as_it_was(bodies: list[bytes], forgets: int) -> None:
    cutter, table = Cutter(), Table()
    for i, body in enumerate([*bodies, *bodies]):
        if i == forgets:
            cutter.forget()
        left, cuts = cutter.cut(body, table.add)
        assert again(left, cuts, table) == body
        assert cuts is None or parts.numbers(cuts)


def test_what_is_remembered_is_bounded() -> None:
    cutter, table = Cutter(), Table()
    size = parts.KNOWN_BYTES // 4
    for user in range(8):
        piece = json.dumps({"tools": str(user) * size})
        for _ in range(2 if size < parts.MOST_BYTES else 1):
            cutter.cut(piece.encode(), table.add)
    assert sum(map(len, cutter._known)) <= parts.KNOWN_BYTES
