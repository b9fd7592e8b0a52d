"""Presidio beside the built-in forms, where it is installed (`pip install 'suffice[privacy]'`)."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from suffice.core.config import Privacy
from suffice.serve.detectors import Detectors
from suffice.serve.redact import Redaction

spacy = pytest.importorskip("spacy", reason="Presidio is not installed: pip install 'suffice[privacy]'")
pytest.importorskip("presidio_analyzer", reason="Presidio is not installed: pip install 'suffice[privacy]'")


def test_what_presidio_finds_is_held_back_too_and_nothing_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise AssertionError("a detector asks the network")

    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    spacy.blank("en").to_disk(tmp_path / "blank")  # no model is in the registries: its pattern recognisers need none
    detectors = Detectors(Privacy(detector="presidio", model=str(tmp_path / "blank")))
    detectors.open()
    text = "mail bob@example.com, wallet 16Yeky6GMjeNkAiNcBY7ZhrLoMSgg1BoyZ, on Monday"
    body = Redaction(detectors).body(json.dumps({"messages": [{"role": "user", "content": text}]}).encode())
    told = json.loads(body)["messages"][0]
    assert told == {"role": "user", "content": "mail <EMAIL_1>, wallet <CRYPTO_1>, on Monday"}
