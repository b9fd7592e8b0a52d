"""What is written down of calls of the admin API: files of bounded size, which workers share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from suffice.serve import calls
from suffice.serve.calls import Calls


def test_a_file_that_is_full_is_put_aside_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "MAX_BYTES", 200)
    first, second = Calls(tmp_path), Calls(tmp_path)
    names = [(first, second)[i % 2].began("ops", f"GET /{i}") for i in range(6)]
    kept = [*(tmp_path / f"{calls.FILE}.1").read_text().splitlines(), *(tmp_path / calls.FILE).read_text().splitlines()]
    assert len(kept) >= 2 and names[-1] in kept[-1]


def test_of_two_that_find_it_full_the_second_leaves_the_new_one(tmp_path: Path) -> None:
    own = Calls(tmp_path)
    own.began("ops", "GET /old")
    places = [os.open(tmp_path / calls.FILE, os.O_WRONLY | os.O_APPEND) for _ in range(2)]
    own._put_aside(places[0])
    os.close(places[0])
    own.began("ops", "GET /new")
    own._put_aside(places[1])
    os.close(places[1])
    assert "/new" in (tmp_path / calls.FILE).read_text() and "/old" in (tmp_path / f"{calls.FILE}.1").read_text()
