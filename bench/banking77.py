"""BANKING77 through the public interface: with trusted labels, and behind a real, noisy model's recorded answers.

    python bench/banking77.py [--seed 0]

About three minutes on two cores. The data are `train` and one half of `test` to learn and certify (a fixed shuffle
halves it), and the other half, which nothing sees before the end.

Trusted labels: `suffice learn` on {"input", "reference"}, then `suffice answer` on the other half, at several maximal
errors, each in a fresh home, so that every certificate is a first attempt. The hybrid figure supposes that whatever
escalates is answered right.

A recorded model: the answers of Qwen3-30B-A3B, kept with the data, are served over HTTP as the frontier. The learning
texts go through the gateway; the trusted labels are attached to the records by import; the release goes live, and the
other half goes through the gateway, where each caller gets the specialist's answer or the recorded model's. Labels are
compared as texts; the model's `oos` is an answer like any other and always wrong.

Accepted and wrong is a share of all requests. Intervals are Clopper-Pearson's, 95%, in percent.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp

import common

TASK = "banking"
MAX_ERRORS = (0.01, 0.02, 0.03, 0.05)
CONNECTIONS = 16
MODEL = "qwen3-30b-a3b"
SYSTEM = "Classify the customer's message to the bank. Answer with the name of the intent alone."
FOLLOWS_S = 1.5
"""A running server follows a change of stage within a second."""

Row = dict[str, Any]


def split(seed: int) -> tuple[list[Row], list[Row]]:
    """The rows to learn from and the untouched half of test, each {"text", "label"}."""
    folder = common.data_folder("banking77")
    test = common.read_lines(folder / "test.jsonl")
    random.Random(seed).shuffle(test)
    half = len(test) // 2
    return common.read_lines(folder / "train.jsonl") + test[:half], test[half:]


def answered(home: Path, rows: Sequence[Row], file: Path) -> list[Row]:
    """What the newest release says to each text, offline."""
    common.write_lines(file, [{"input": row["text"]} for row in rows])
    return [json.loads(line) for line in common.suffice(home, "answer", TASK, file).splitlines()]


def counts(told: Sequence[Row], rows: Sequence[Row]) -> tuple[int, int, int]:
    """How many the specialist alone has right, how many it accepts, how many it accepts and has wrong."""
    right = [line["output"] == row["label"] for line, row in zip(told, rows, strict=True)]
    accepted = [bool(line["accepted"]) for line in told]
    return sum(right), sum(accepted), sum(a and not r for a, r in zip(accepted, right, strict=True))


# ---------------------------------------------------------------------------------------------- trusted labels


def trusted(learn: Sequence[Row], other: Sequence[Row], work: Path, seed: int) -> list[list[str]]:
    """One row of the first table per maximal error."""
    data = common.write_lines(work / "trusted.jsonl", [{"input": r["text"], "reference": r["label"]} for r in learn])
    cells = []
    for max_error in MAX_ERRORS:
        home = work / f"trusted-{max_error:g}"
        arguments = ("learn", TASK, "--data", data, "--max-error", f"{max_error:g}", "--seed", str(seed))
        began = time.perf_counter()
        document = json.loads(common.suffice(home, *arguments, may_refuse=True))
        spent = f"{time.perf_counter() - began:.0f} s"
        name = f"{100 * max_error:g}%"
        if not document["release"]:
            cells.append([name, "no release: " + "; ".join(document["reasons"]), *["-"] * 4, spent])
            continue
        right, accepted, wrong = counts(answered(home, other, work / "other.jsonl"), other)
        n = len(other)
        shares = [common.share(right, n), common.share(accepted, n), common.share(wrong, n, 2)]
        promised = f"{100 * document['coverage']['value']:.1f}"
        cells.append([name, *shares, common.share(n - wrong, n, 2), promised, spent])
    return cells


# ---------------------------------------------------------------------------------------------- a recorded model


def chat_body(text: str) -> Row:
    """The request an application would send."""
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}]
    return {"model": MODEL, "messages": messages, "temperature": 0}


def words(text: str) -> str:
    """A text with its white space evened out: the recording did that to some."""
    return " ".join(text.split())


async def send(url: str, rows: Sequence[Row]) -> list[tuple[str, str, str]]:
    """Send each text through the gateway; (record, route, answer) in the order of the rows."""
    got: list[tuple[str, str, str]] = [("", "", "")] * len(rows)
    todo = iter(range(len(rows)))
    headers = {"X-Suffice-Task": TASK, "Authorization": "Bearer any"}
    connector = aiohttp.TCPConnector(limit=CONNECTIONS)
    async with aiohttp.ClientSession(headers=headers, connector=connector) as session:

        async def caller() -> None:
            for position in todo:
                async with session.post(f"{url}/chat/completions", json=chat_body(rows[position]["text"])) as response:
                    if response.status != 200:
                        raise SystemExit(f"the gateway answered {response.status}: {await response.text()}")
                    told = response.headers
                    content = (await response.json())["choices"][0]["message"]["content"]
                    got[position] = (told["X-Suffice-Record"], told["X-Suffice-Route"], content)

        await asyncio.gather(*(caller() for _ in range(CONNECTIONS)))
    return got


def attach(home: Path, learn: Sequence[Row], got: Sequence[tuple[str, str, str]], file: Path) -> None:
    """Attach the trusted label to each record: the response is known by its id, so no row is doubled."""
    labels = {record: row["label"] for (record, _, _), row in zip(got, learn, strict=True)}
    lines = [json.loads(line) for line in common.suffice(home, "records", "--task", TASK).splitlines()]
    rows = [
        {"request": line["request"], "response": line["answer"], "reference": labels[line["id"]], "task": TASK}
        for line in lines
    ]
    told = json.loads(common.suffice(home, "import", common.write_lines(file, rows)))
    if told["imported"] or told["known"] != len(learn):
        raise SystemExit(f"of {len(learn)} records {told['known']} were known again, {told['imported']} were doubled")


def recorded(learn: Sequence[Row], other: Sequence[Row], work: Path, seed: int) -> tuple[list[list[str]], str]:
    """The rows of the second table, and the certificate in one sentence."""
    folder = common.data_folder("banking77")
    by_words = {words(row["text"]): row["answer"] for row in common.read_lines(folder / f"recorded-{MODEL}.jsonl")}
    said = {row["text"]: by_words[words(row["text"])] for row in (*learn, *other)}
    answers = common.write_lines(work / "answers.jsonl", [{"text": t, "answer": a} for t, a in said.items()])
    home, n = work / "recorded", len(other)
    frontier_command = [*common.FRONTIER, "--port", "0", "--answers", str(answers), "--latency-ms", "0"]
    with common.server(frontier_command, log=work / "frontier.log") as (_, frontier):
        upstream = f"http://127.0.0.1:{frontier['port']}/v1"
        gateway = [*common.SUFFICE, "serve", "--port", "0", "--upstream", upstream, "--home", str(home), "--json"]
        with common.server(gateway, log=work / "gateway.log") as (_, ready):
            got = asyncio.run(send(ready["url"], learn))
            if len({record for record, _, _ in got}) != len(learn):
                raise SystemExit("the gateway gave one record id twice")
            time.sleep(0.1)  # the last group of records is on the disk within 10 ms
            attach(home, learn, got, work / "attach.jsonl")
            document = json.loads(common.suffice(home, "learn", TASK, "--seed", str(seed), may_refuse=True))
            if not document["release"]:
                return [["no release: " + "; ".join(document["reasons"]), "-", "-", "-"]], ""
            common.suffice(home, "stage", TASK, "live")
            time.sleep(FOLLOWS_S)
            live = asyncio.run(send(ready["url"], other))
    alone = [line["output"] for line in answered(home, other, work / "other.jsonl")]
    served = [route == "specialist" for _, route, _ in live]

    def right(answers: Sequence[Any], where: Sequence[bool] | None = None) -> list[bool]:
        kept = where or [True] * n
        return [answer == row["label"] for answer, row, keep in zip(answers, other, kept, strict=True) if keep]

    def row(what: str, hits: Sequence[bool], digits: int = 1) -> list[str]:
        return [what, common.share(sum(hits), len(hits), digits), f"{sum(hits):,}", f"{len(hits):,}"]

    model = [said[row["text"]] for row in other]
    caller = [content for _, _, content in live]
    escalated = [not s for s in served]
    wrong = [s and c != r["label"] for s, c, r in zip(served, caller, other, strict=True)]
    rows = [
        row("the recorded model alone, right", right(model)),
        row("the specialist alone (`suffice answer`), right", right(alone)),
        row("**the hybrid (what the caller got), right**", right(caller)),
        row("served by the specialist", served),
        row("served by the specialist and wrong", wrong, 2),
        row("right among those served by the specialist", right(caller, served)),
        row("right among those escalated: the recorded model", right(model, escalated)),
        row("right among those escalated: the specialist, had it answered", right(alone, escalated)),
    ]
    return rows, str(document["sentence"])


def main() -> None:
    parser = argparse.ArgumentParser(description="BANKING77 through the public interface, as two markdown tables.")
    parser.add_argument("--seed", type=int, default=0, help="halves test, and seeds `suffice learn` (default 0)")
    seed = parser.parse_args().seed
    common.end_well()
    learn, other = split(seed)
    print(f"`{common.command_line()}`: {len(learn):,} rows to learn and certify, {len(other):,} untouched")
    print(f"({common.machine('suffice', 'scikit-learn', 'numpy')})\n", flush=True)
    with tempfile.TemporaryDirectory(prefix="suffice-bench-") as folder:
        work = Path(folder)
        print(f"BANKING77 with trusted labels: share of {len(other):,} untouched requests, in percent (95% interval)\n")
        head = ["max error", "specialist alone right", "coverage", "accepted and wrong", "hybrid right, if the rest is"]
        print(common.table([*head, "coverage promised", "learn"], trusted(learn, other, work, seed)), flush=True)
        rows, sentence = recorded(learn, other, work, seed)
        print("\nBANKING77 behind the gateway, the recorded answers of Qwen3-30B-A3B as the frontier, max error 2%\n")
        print(common.table(["what", "% (95% interval)", "count", "of"], rows))
    if sentence:
        print(
            f"\nCertificate: {sentence}\n\n"
            "The hybrid may be below the specialist alone: what escalates is answered by the frontier, and where the\n"
            "frontier is the weaker of the two, as here, it gets fewer of those right than the specialist would have.\n"
            "The certificate promises how much worse than the frontier the accepted answers can be, not that the\n"
            "frontier deserves the rest."
        )


if __name__ == "__main__":
    main()
