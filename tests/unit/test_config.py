"""Settings: a mistake is an error that names the file, the table and the key."""

from __future__ import annotations

from pathlib import Path

import pytest

from suffice.core import config
from suffice.core.errors import InputError

WHOLE = """
[upstreams.main]
base_url = "https://api.example.com/v1"
api_key_env = "KEY"
models = ["gpt-*"]
[upstreams.local]
base_url = "http://localhost:8000/v1"
models = ["qwen"]
default = true
[server]
max_body_mb = 10
[records]
on_full = "pass"
[policy]
max_error = 0.03
[tasks.triage]
min_coverage = 0.5
match = { system_contains = "triage" }
[prices.qwen]
input_usd_per_mtok = 1
output_usd_per_mtok = 2.5
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "suffice.toml"


def test_a_whole_file(file: Path) -> None:
    file.write_text(WHOLE)
    found = config.load(file)
    assert found.policy_of("triage").max_error == 0.03  # what a task leaves out comes from [policy]
    assert found.policy_of("triage").min_coverage == 0.5
    assert found.policy_of("other").min_coverage == 0.3
    for model, name in {"gpt-5": "main", "qwen": "local", "else": "local", "": "local"}.items():
        assert found.upstreams_for(model) == [name]
    assert found.upstreams["main"].api_key({"KEY": "k"}) == "k"


def test_the_first_upstream_is_the_default_and_none_is_none() -> None:
    assert config.load(None).upstreams_for("x") == []
    both = {name: {"base_url": "http://h/v1"} for name in ("b", "a")}
    assert config.from_dict({"upstreams": both}, "f").upstreams_for("x") == ["b"]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[upstream.a]\nbase_url = 'http://h'", ["upstream", "upstreams"]),
        ("[upstreams.a]\nbase_ur = 'http://h'", ["[upstreams.a]", "base_ur", "`base_url`?"]),
        ("[upstreams.a]\nmodels = []", ["[upstreams.a]", "base_url"]),
        ("[upstreams.a]\nbase_url = 5", ["[upstreams.a]", "base_url"]),
        ("[upstreams.a]\nbase_url = 'localhost:8000'", ["[upstreams.a]", "base_url"]),
        ("[upstreams.a]\nbase_url = 'http://h:99999/v1'", ["[upstreams.a]", "base_url"]),
        ("[upstreams.a]\nbase_url = 'http://[::1/v1'", ["[upstreams.a]", "base_url"]),
        ("[alerts]\nwebhook = 'http://:80'", ["[alerts]", "webhook"]),
        ("[upstreams.a]\nbase_url = 'https://me:secret@h/v1'", ["[upstreams.a]", "base_url", "api_key_env"]),
        ("[upstreams.a]\nbase_url = 'http://h'\ndialects = ['chats']", ["[upstreams.a]", "dialects", "chats"]),
        ("[upstreams.a]\nbase_url = 'http://h'\nmodels = 'gpt'", ["[upstreams.a]", "models"]),
        ("upstreams = 5", ["upstreams"]),
        ("[[upstreams]]\nbase_url = 'http://h'", ["upstreams"]),
        ("[upstreams]\na = 5", ["[upstreams.a]"]),
        ("[policy]\nmax_eror = 0.1", ["[policy]", "max_eror", "`max_error`?"]),
        ("[policy]\nmax_error = '2%'", ["[policy]", "max_error"]),
        ("[policy]\nmax_error = 2", ["[policy]", "max_error", "2"]),
        ("[policy]\nmax_error = nan", ["[policy]", "max_error"]),
        ("[policy]\nconfidence = 1", ["[policy]", "confidence"]),
        ("[policy]\nmax_error = 0.4", ["[policy]", "min_coverage", "max_error"]),
        ("[policy]\npromote = 'always'", ["[policy]", "promote", "always"]),
        ("[policy]\naudit = -1", ["[policy]", "audit"]),
        ("[tasks.t]\nmin_coverage = 0.01", ["[tasks.t]", "min_coverage"]),
        ("[tasks.t]\nmatch = {}", ["[tasks.t]", "match"]),
        ("[tasks.t.match]\nuser = 'x'", ["[tasks.t]", "user"]),
        ("[tasks.t]\nmatch = 'x'", ["[tasks.t]", "match"]),
        ("[server]\nport = 80", ["[server]", "port"]),
        ("[server]\nidle_s = true", ["[server]", "idle_s"]),
        ("[records]\non_full = 'drop'", ["[records]", "on_full", "drop"]),
        ("[records]\nslots = 1.5", ["[records]", "slots"]),
        ("[prices.m]\ninput_usd_per_mtok = 1", ["[prices.m]", "output_usd_per_mtok"]),
        ("[policy", ["TOML"]),
    ],
)
def test_a_mistake_is_named(file: Path, text: str, named: list[str]) -> None:
    file.write_text(text)
    with pytest.raises(InputError) as caught:
        config.load(file)
    for word in (str(file), *named):
        assert word in str(caught.value)


def test_a_secret_is_not_told(file: Path) -> None:
    file.write_text("[upstreams.a]\nbase_url = 'https://me:hidden@h/v1'")
    with pytest.raises(InputError) as caught:
        config.load(file)
    assert "hidden" not in str(caught.value)


def test_a_file_that_cannot_be_read(file: Path) -> None:
    with pytest.raises(InputError, match=r"suffice\.toml"):
        config.load(file)
    file.write_bytes(b"\xff")
    with pytest.raises(InputError, match=r"suffice\.toml"):
        config.load(file)


@pytest.mark.parametrize(
    "text",
    [
        "[records]\nslots = 0",
        "[records]\nmax_db_mb = -1",
        "[server]\nmax_body_mb = -1",
        "[server]\nidle_s = 0",
        "[policy]\nmax_tail_error = 7",
        "[policy]\nmax_slice_error = -1",
        "[policy]\nmax_latency_ms = -5",
        "[prices.m]\ninput_usd_per_mtok = -1\noutput_usd_per_mtok = 1",
        "[tasks.'not a name']\naudit = 0.1",
    ],
)
def test_a_number_out_of_range_is_an_error(file: Path, text: str) -> None:
    file.write_text(text)
    with pytest.raises(InputError):
        config.load(file)


def test_a_word_out_of_a_closed_list_is_an_error_that_names_the_others(file: Path) -> None:
    file.write_text('[policy]\npromote = "yes"')
    with pytest.raises(InputError, match='`promote` is one of "manual", "auto", not \'yes\''):
        config.load(file)


def test_a_slice_is_a_name_or_an_answers(file: Path) -> None:
    file.write_text('[tasks.t]\nslices = ["vip", "answer:refund"]')
    assert config.load(file).policy_of("t").slices == ("vip", "answer:refund")
    for name in ("a b", "answer:", ""):
        file.write_text(f'[tasks.t]\nslices = ["{name}"]')
        with pytest.raises(InputError, match=r"a slice is a name .* or answer:LABEL"):
            config.load(file)
