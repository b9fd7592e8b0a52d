"""Credentials of the vendors: tokens had once for all and renewed before they end; what each host is called."""

from __future__ import annotations

import asyncio
import threading

import pytest
from multidict import CIMultiDict

from suffice.core.config import Upstream
from suffice.serve.vendors import EARLY_S, Azure, Bedrock, CredentialError, Tokens


class Source:
    """Gives t1, t2, ... each good for an hour of a clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now, self.asked, self.broken = 1000.0, 0, False
        self.threads: set[int] = set()

    def __call__(self) -> tuple[str, float]:
        self.threads.add(threading.get_ident())
        self.asked += 1
        if self.broken:
            raise RuntimeError("the secret is hunter2")
        return f"t{self.asked}", self.now + 3600


async def test_a_token_is_had_once_and_off_the_loop() -> None:
    source = Source()
    tokens = Tokens(source, lambda: source.now)
    assert set(await asyncio.gather(*(tokens.token() for _ in range(20)))) == {"t1"}
    assert source.asked == 1 and threading.get_ident() not in source.threads


async def test_a_token_is_renewed_in_the_background_before_it_ends() -> None:
    source = Source()
    tokens = Tokens(source, lambda: source.now)
    await tokens.token()
    source.now += 3600 - EARLY_S
    assert await tokens.token() == "t1"  # still good: nobody waits
    while await tokens.token() == "t1":
        await asyncio.sleep(0.001)
    assert source.asked == 2
    source.now += 3600 - EARLY_S
    source.broken = True
    for _ in range(3):
        assert await tokens.token() == "t2"
        await asyncio.sleep(0.005)
    source.now += EARLY_S
    with pytest.raises(CredentialError) as caught:
        await tokens.token()
    assert "hunter2" not in str(caught.value)
    source.broken = False
    assert (await tokens.token()).startswith("t")


async def test_entra_takes_the_place_of_the_callers_keys() -> None:
    source = Source()
    azure = Azure(Upstream(base_url="https://r/openai/v1"), None, Tokens(source, lambda: source.now))
    sent = CIMultiDict({"api-key": "theirs", "authorization": "Bearer theirs", "x-a": "b"})
    await azure.sign("POST", "https://r", sent, b"")
    assert dict(sent) == {"x-a": "b", "Authorization": "Bearer t1"}


@pytest.mark.parametrize(
    ("base_url", "dialect", "url", "service"),
    [
        ("https://bedrock-runtime.us-west-2.amazonaws.com/openai/v1", "chat", "/openai/v1/x", "bedrock/aws4_request"),
        ("https://bedrock-mantle.us-west-2.api.aws/openai/v1", "responses", "/openai/v1/x", "bedrock-mantle/aws4"),
        ("https://bedrock-mantle.us-west-2.api.aws/anthropic", "messages", "/anthropic/v1/x", "bedrock-mantle/aws4"),
        ("https://bedrock-runtime.us-gov-west-1.amazonaws.com", "messages", "/model/m%2Fx/invoke", "bedrock/aws4"),
    ],
)
async def test_bedrocks_hosts_have_their_own_paths_and_names(
    monkeypatch: pytest.MonkeyPatch, base_url: str, dialect: str, url: str, service: str
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    bedrock = Bedrock("b", Upstream(base_url=base_url, kind="bedrock"), None)
    path, body = bedrock.shaped(dialect, "/x", "m/x", b'{"model":"m/x"}', [])
    assert path == url and not bedrock.base.endswith(("/openai", "/v1", "/anthropic"))
    sent = CIMultiDict({"x-api-key": "theirs"})
    await bedrock.sign("POST", bedrock.base + path, sent, body)
    region = base_url.split(".")[1]
    assert f"/{region}/{service}" in sent["Authorization"] and "x-api-key" not in sent
