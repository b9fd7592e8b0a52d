"""`suffice export`."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from suffice.cli import common, families
from suffice.cli.answer_command import recorded, slices_of, view
from suffice.core.contracts import refusal
from suffice.core.errors import InputError
from suffice.core.protocols import Specialist
from suffice.core.types import Reason
from suffice.store import artefacts, records, releases
from suffice.store.home import Home
from suffice.store.releases import Stored

FORMS = ("onnx", "browser", "python", "gguf")
CHECKED = 1_000
"""Of the task's recorded requests, the newest so many different ones are compared."""
CHECKED_SLOWLY = 200
CHECKED_WRITING = 20
"""... and of a model that writes its answers, which takes seconds."""
NAMED = 5

Asked = tuple[str, str, list[str]]
"""A record's id, what a specialist reads of it, and its slices."""


@click.command()
@click.argument("task")
@click.option("--to", type=click.Path(path_type=Path), required=True, help="The new folder.")
@click.option(
    "--as",
    "form",
    type=click.Choice(FORMS),
    help="onnx: one graph, a runner in Python; browser: also one in JavaScript, and a page; python: the model with the "
    "code that reads it, for every family; gguf: the same for llama.cpp.  [onnx; gguf for a generating model]",
)
@click.option(
    "--ort",
    type=click.Path(path_type=Path),
    help="For the browser: an installed `onnxruntime-web`, else npm fetches one.",
)
@common.everywhere
def command(
    task: str,
    to: Path,
    form: str | None,
    ort: Path | None,
    folder: Path,
    config_file: Path | None,
    as_json: bool,
) -> int:
    """Write a release as a folder that runs anywhere: model, tokenizer, threshold, guard, contract, card and runner.

    What is in the folder is compared with the release on the task's recorded requests first. Where one answer or one
    decision differs there is no export, and the exit is 1.
    """
    from suffice.specialists.exporting import package

    settings = common.configured(folder, config_file)
    home = common.opened(folder, settings)
    name, n = common.named(home, task)
    _free(to)
    if ort is not None and form != "browser":
        raise InputError("--ort is for --as browser")
    stored = releases.get_release(home, name, n)
    if stored is None:
        click.echo(f"suffice: there is no release {task}" + ("" if n else f": run `suffice learn {name}`"), err=True)
        return 1
    form = form or ("gguf" if stored.release.draft.recipe.family == "causal" else "onnx")
    if form in ("onnx", "browser"):
        package.needs()
    specialist = families.load_specialist(home)(stored)
    to.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=to.parent, prefix=f".{to.name}."))
    try:
        document = _made(part, home, stored, specialist, form, ort)
        differing = document.pop("differing")
        if differing:
            click.echo(_refused(stored.name, differing, document["inputs"]), err=True)
            return 1
        part.chmod(0o755)
        if to.exists():
            to.rmdir()
        part.rename(to)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    document = {"task": name, "release": stored.name, "folder": str(to), "as": form, **document}
    if as_json:
        common.emit(document)
    else:
        click.echo(_told(document))
    return 0


def _free(to: Path) -> None:
    """Raises InputError for a folder that holds something, or a file."""
    if to.is_dir() and any(to.iterdir()):
        raise InputError(f"--to {to}: the folder is not empty, and nothing is overwritten")
    if to.exists() and not to.is_dir():
        raise InputError(f"--to {to}: this is a file")


def _made(
    part: Path, home: Home, stored: Stored, specialist: Specialist, form: str, ort: Path | None
) -> dict[str, Any]:
    """Write the folder and compare it; what there is to tell."""
    from suffice.specialists.exporting import browser, copied, package
    from suffice.specialists.exporting.card import card
    from suffice.specialists.exporting.compiled import compiled

    draft, style = stored.release.draft, stored.serving.style
    family, artefact, bases = draft.recipe.family, artefacts.folder_of(home, draft.artefact), home.folder / "bases"
    if (form == "gguf") != (family == "causal") and form != "python":
        own = "gguf" if family == "causal" else "onnx, browser or python"
        raise InputError(f"--as {form}: {stored.name} is of the family `{family}`, which is exported as {own}")
    elsewhere = draft.recipe.params.get("runtime")
    if elsewhere is not None:
        raise InputError(f"{stored.name} is run by {elsewhere}, and what is exported runs by llama.cpp in its process")
    alone = form in ("onnx", "browser")
    if alone:
        made = compiled(artefact, family, bases)
        package.write(part, made, package.settings_of(stored.name, stored.digest, draft, style, made))
        if form == "browser":
            browser.write(part, made, ort)
    else:
        copied.write(part, stored.name, stored.digest, draft, style, artefact, bases)
    asked = _asked(home, stored, CHECKED_WRITING if family == "causal" else CHECKED)
    expected = _expected(stored, specialist, asked)
    texts = [(text, slices) for _, text, slices in asked]
    answer = package.runner_in(part) if alone else in_order(copied.answers(part, texts))
    differing, log_odds = compared(asked, expected, answer)
    told: dict[str, Any] = {"inputs": len(asked), "log_odds": log_odds, "slack": package.SLACK if alone else None}
    if form == "browser" and not differing:
        said = browser.answers(part, texts[:CHECKED_SLOWLY])
        if said is not None:
            told["javascript"] = len(said)
            differing, _ = compared(asked[: len(said)], expected[: len(said)], in_order(said))
    told["files"] = sorted([*(path.name for path in part.iterdir()), "README.md"])
    about = card(stored.name, stored.digest, stored.release, form, told, time.time())
    (part / "README.md").write_text(about, "utf-8")
    return {**told, "bytes": package.size(part), "differing": differing}


def in_order(said: Sequence[dict[str, Any]]) -> Callable[[str, Sequence[str]], dict[str, Any]]:
    """Answers that are there already, one after another."""
    left = iter(said)
    return lambda text, slices: next(left)


def _asked(home: Home, stored: Stored, most: int) -> list[Asked]:
    """The newest different requests that are this task's, the newest first."""
    found: dict[str, Asked] = {}
    for row, _ in reversed(list(records.query(home, task=stored.task, limit=2 * most))):
        line = recorded(row, stored)
        text, reason = view(stored, line)
        if reason is None:
            found.setdefault(text, (row.id, text, slices_of(line.get("slices"))))
        if len(found) == most:
            break
    return list(found.values())


def _expected(stored: Stored, specialist: Specialist, asked: Sequence[Asked]) -> list[dict[str, Any]]:
    """What the release answers, as `suffice answer` says it."""
    draft, style = stored.release.draft, stored.serving.style
    found = []
    for _, text, slices in asked:
        prediction = specialist.predict([text])[0]
        refused = refusal(prediction, draft.contract, draft.threshold.score, slices, draft.closed_slices)
        reason = (refused or Reason.ACCEPTED).value
        output = msgspec.to_builtins(style.value(prediction.value))
        found.append({"output": output, "score": prediction.score, "reason": reason})
    return found


def compared(
    asked: Sequence[Asked],
    expected: Sequence[dict[str, Any]],
    answer: Callable[[str, Sequence[str]], dict[str, Any]],
) -> tuple[list[str], float]:
    """The ids of the requests that are decided or, where accepted, answered otherwise, and the largest difference in
    log-odds."""
    from suffice.specialists.exporting.package import log_odds

    differing, largest = [], 0.0
    for (record, text, slices), wanted in zip(asked, expected, strict=True):
        said = answer(text, slices)
        answered = wanted["reason"] == Reason.ACCEPTED.value
        if said["reason"] != wanted["reason"] or (answered and said["output"] != wanted["output"]):
            differing.append(record)
        largest = max(largest, abs(log_odds(said["score"]) - log_odds(wanted["score"])))
    return differing, largest


def _refused(name: str, differing: Sequence[str], inputs: int) -> str:
    named = ", ".join(differing[:NAMED]) + (", ..." if len(differing) > NAMED else "")
    return (
        f"suffice: {name} is not exported: {len(differing):,} of {inputs:,} recorded requests are answered or decided "
        f"otherwise by what was made of it: {named}"
    )


def _told(document: dict[str, Any]) -> str:
    compared = f"compared on {document['inputs']:,} recorded requests: all the same"
    if not document["inputs"]:
        compared = "nothing was recorded that it could be compared on"
    elif "javascript" in document:
        compared += f" (in JavaScript on {document['javascript']:,})"
    return f"{document['release']} is in {document['folder']} ({document['bytes'] / 1e6:.1f} MB); {compared}"
