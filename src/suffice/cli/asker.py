"""How commands ask an upstream that is a candidate: by the gateway's way out, with what was asked before at hand."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence

import click

from suffice.core.config import CandidateModel, Config
from suffice.core.errors import InputError
from suffice.core.protocols import Reply
from suffice.core.style import estimated_tokens
from suffice.core.types import Egress, Usage, digest_of
from suffice.plan.prices import Prices
from suffice.serve.edges import Refused
from suffice.serve.elsewhere import Came, Elsewhere
from suffice.serve.outbound import Outbound
from suffice.serve.upstream import UpstreamError, Upstreams
from suffice.store.asked import Answer, Asked
from suffice.store.home import Home

AT_ONCE = 8


class Asker:
    """The way to one candidate for one task of a run. Raises InputError where the upstream cannot be asked at all.

    `max_usd` is what may be spent, None: as much as it takes. `tell` gets what people should know before it is sent.
    """

    def __init__(
        self,
        home: Home,
        config: Config,
        candidate: CandidateModel,
        egress: Egress,
        max_usd: float | None,
        keep_days: float | None = None,
        *,
        tell: Callable[[str], None] = lambda line: click.echo(f"suffice: {line}", err=True),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._home, self._config, self._told, self._egress = home, config, candidate, egress
        self._max_usd, self._keep_days, self._tell, self._clock = max_usd, keep_days, tell, clock
        self._prices = Prices(config.prices).usd
        self._upstream = config.upstreams[candidate.upstream]
        self._asked: Asked | None = None
        self.sent, self.spent = 0, 0.0

    @property
    def _name(self) -> str:
        return f"{self._told.upstream}/{self._told.model}"

    def announce(self, questions: Sequence[bytes], answer_tokens: int) -> None:
        """Say how many questions leave for where, and what that may cost; `Ask.announce`."""
        new = [question for question in dict.fromkeys(questions) if self._known().get(self._key(question)) is None]
        if not new:
            return
        tokens = Usage(prompt=sum(map(_tokens, new)), completion=answer_tokens * len(new))
        usd, what = self._cost(tokens), f"{len(new):,} requests with rows of the task"
        if usd is None:
            raise InputError(
                f"what {self._told.model} costs is not known: add [prices.{self._told.model!r}] to suffice.toml"
            )
        if self._max_usd is not None and usd > self._max_usd - self.spent:
            raise InputError(
                f"asking {self._name} about tune alone takes about {usd:.2g} USD ({len(new):,} requests, "
                f"{tokens.prompt:,} tokens), and max_usd is {self._max_usd:g}"
            )
        redacted = ", redacted" if self._egress == "redacted" and not self._upstream.inside else ""
        most = f"; at most {self._max_usd:g} USD" if self._max_usd is not None else ""
        self._tell(
            f"sends {what} to upstream {self._told.upstream!r}{redacted}, model {self._told.model}: "
            f"about {usd:.2g} USD; calibration and test cost as much a row, should it win{most}"
        )

    def __call__(self, questions: Sequence[bytes]) -> list[Reply]:
        """Put questions; `Ask.__call__`."""
        known = self._known()
        found = {question: known.get(self._key(question)) for question in dict.fromkeys(questions)}
        replies = {question: _again(answer) for question, answer in found.items() if answer is not None}
        new = [question for question in found if question not in replies]
        if new:
            replies |= asyncio.run(self._put(new))
        if len(replies) < len(found):
            raise InputError(
                f"max_usd = {self._max_usd:g} is spent on {self._name} after {self.sent:,} requests; what they were "
                "answered is kept: raise it and run again"
            )
        return [replies[question] for question in questions]

    async def _put(self, questions: Sequence[bytes]) -> dict[bytes, Reply]:
        """Replies by question; none for what there was no money left for."""
        slots = asyncio.Semaphore(AT_ONCE)
        found: dict[bytes, Reply] = {}
        async with Upstreams(self._config.upstreams, self._config.server, os.environ) as upstreams:
            outbound = Outbound(self._config, upstreams)
            outbound.gate.open()
            way = Elsewhere(self._config, outbound)

            async def one(question: bytes) -> None:
                async with slots:
                    if self._max_usd is None or self.spent < self._max_usd:
                        found[question] = await self._one(way, question)

            await asyncio.gather(*map(one, questions))
        return found

    async def _one(self, way: Elsewhere, question: bytes) -> Reply:
        """One question and its reply, kept where it is an answer."""
        began = time.perf_counter()
        self.sent += 1
        try:
            came = await way.put(self._told.upstream, self._told.model, question, self._egress, [])
        except InputError as error:  # it has no place in the dialect that is spoken there
            return Reply(status=400, failure=str(error))
        except (UpstreamError, Refused) as error:
            return Reply(failure=str(error), ms=(time.perf_counter() - began) * 1e3)
        if came.status != 200:
            failure = f"upstream {self._told.upstream!r} answered with status {came.status}{_excerpt(came)}"
            return Reply(status=came.status, failure=failure, ms=came.ms)
        usd = self._cost(came.usage) if came.usage is not None else None
        self.spent += usd or 0.0
        answer = Answer(came.body, came.ms, usd)
        self._known().put(self._key(question), answer, self._clock())
        return _again(answer)

    def _cost(self, usage: Usage) -> float | None:
        """US dollars; a model without a price costs nothing where it is our own."""
        usd = self._prices(self._told.model, usage)
        return 0.0 if usd is None and self._upstream.inside else usd

    def _known(self) -> Asked:
        if self._asked is None:
            self._asked = Asked(self._home, self._clock(), self._keep_days)
        return self._asked

    def _key(self, question: bytes) -> str:
        return digest_of(self._told.upstream, self._upstream.base_url, self._egress, question)


def _again(answer: Answer) -> Reply:
    return Reply(body=answer.body, status=200, ms=answer.ms, usd=answer.usd)


def _tokens(question: bytes) -> int:
    return estimated_tokens(question.decode())


def _excerpt(came: Came) -> str:
    """The first words of what an upstream says of a question that it did not take."""
    text = " ".join(came.body.decode("utf-8", "replace").split())
    return f": {text[:200]}" if text else ""
