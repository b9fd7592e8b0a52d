"""The model card of an exported specialist: what is proven of it, on how much data, and what it is not for."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from suffice.core import grading
from suffice.core.contracts import told
from suffice.core.types import Certificate, Estimate, Recipe, Release

_HOW = {
    "onnx": """    pip install onnxruntime tokenizers numpy
    echo '{"input": "..."}' | python run.py""",
    "python": """    pip install -r requirements.txt
    echo '{"input": "..."}' | python run.py""",
    "gguf": """    pip install -r requirements.txt                  # xllamacpp: llama.cpp in the process
    echo '{"input": "..."}' | python run.py""",
    "browser": """    python -m http.server --bind 127.0.0.1 8000     # any static server; then open http://127.0.0.1:8000/""",
}
_FILES = {
    "specialist.onnx": "the whole decision in one graph: features, answers, score, guard",
    "encoder.onnx": "the encoder, in int8: what the graph reads texts with",
    "tokenizer.json": "word pieces, as the graph was made for",
    "specialist.json": "threshold, contract, certificate, and how answers are written",
    "run.py": "the runner",
    "model": "the release's own files, `model.gguf` among them for a generating model",
    "code": "what reads them: modules of Suffice (Apache-2.0), and the static embedding of wordllama (MIT)",
    "bases": "the encoder that it reads with",
    "requirements.txt": "the packages that it was checked with",
    "specialist.js": "the runner: onnxruntime-web",
    "pieces.js": "splits a text into word pieces",
    "blake2b.js": "the digest by which answers that go together are looked up",
    "pieces.json": "what characters become before that",
    "run.mjs": "the same runner under Node",
    "page.js": "what the page does",
    "index.html": "a page to try it on",
    "ort": "onnxruntime-web (MIT licence), copied in",
}


def card(name: str, digest: str, release: Release, form: str, checked: Mapping[str, Any], at: float) -> str:
    """The card in Markdown; `checked` says how the folder was compared with the server, `at` is when it was made."""
    draft, report = release.draft, release.report
    proof = draft.threshold.certificate
    judged = {"frontier": "the frontier's", "human": "people's", "rule": "the rule's"}[proof.reference]
    of = f"is worse than the frontier's, judged by {judged}" if proof.promise == "signed" else f"is not {judged}"
    window = ""
    if proof.window is not None:
        first, last = (datetime.fromtimestamp(end, UTC).date().isoformat() for end in proof.window)
        window = f" asked from {first} to {last}"
    closed = ", ".join(f"`{each}`" for each in draft.closed_slices)
    lines = [
        f"# {name}",
        "",
        f"A small model for one task: {told(draft.contract)}, from a text. It answers where it may be trusted, and",
        "says that the frontier model should be asked where not. It needs no network.",
        "",
        _HOW[form],
        "",
        'Each answer is `{"output", "score", "accepted", "reason"}`. Where `accepted` is false, ask the frontier: what',
        "`output` says then is a guess without any promise.",
        "",
        "## What is promised",
        "",
        *_promised(proof, of),
        f"That was shown on {proof.n:,} units of held-out traffic{window},",
        f"at the threshold {draft.threshold.score:.6g} (method `{proof.method}`, p = {proof.p_value:.3g}, attempt "
        f"{proof.attempt}).",
        "",
        "| on test rows that chose nothing | |",
        "|---|---|",
        f"| right, alone | {_share(report.accuracy)} |",
        f"| answered (coverage) | {_share(report.coverage)} |",
        f"| answered and wrong, of all requests | {_share(report.accepted_error)} |",
        "",
        f"The release is `{digest}`, recipe {_recipe(draft.recipe)}, learned from the dataset `{draft.dataset}`.",
        f"Exported on {datetime.fromtimestamp(at, UTC):%Y-%m-%d}.",
        "",
        "## What it is for, and what not",
        "",
        "- Requests of the task it was learned from, asked the way they were asked then. It reads the varying part of",
        "  a request only: whoever calls it must see to it that the request is of this task.",
        "- The promise is about traffic like that of the proof. Here nothing watches it any more: no audits, no alarm,",
        "  no revocation. Where traffic moves, compare with the frontier now and then, and export a newer release.",
        "- What it cannot say it does not know of: the guard stops some texts that need another answer, not all.",
        *([f"- Requests in these slices are always left to the frontier: {closed}."] if closed else []),
        *_held(form, draft.recipe.family),
        "",
        "## How the folder was checked",
        "",
        *_checked(checked),
        "",
        "## Files",
        "",
        *(f"- `{file}`: {_FILES[file]}" for file in checked["files"] if file in _FILES),
        "",
    ]
    return "\n".join(lines)


def _promised(proof: Certificate, of: str) -> list[str]:
    """What the certificate limits: the share of answers that `of` holds for, or by a graded verifier the mean loss."""
    sure = f"With a confidence of {proof.confidence:.0%}, "
    if not grading.is_binary(proof.loss):
        return [
            f"{sure}the mean loss over all requests (0 for those passed on) is at most {proof.max_error:.2%},",
            f"judged by `{proof.loss}`; wrong is an answer that {of}, by degrees.",
        ]
    by = "" if proof.loss == "exact" else f", judged by `{proof.loss}`"
    return [f"{sure}at most {proof.max_error:.2%} of all requests get an answer", f"of it that {of}{by}."]


def _held(form: str, family: str) -> list[str]:
    """What of training is in the folder."""
    if family == "causal":
        return ["- No request is quoted in this folder, but a model that writes may repeat what it was trained on."]
    if family == "nearest":
        return ["- Requests are in this folder as numbers only, but the answers that it repeats are there as text."]
    rest = " and, where pieces are rewritten, how some of them were" if form == "python" else ""
    return [
        f"- No text of any request is in this folder. The labels are{rest}; and numbers made of training texts",
        "  (weights, vectors of a byte a number): treat them as you treat the model.",
    ]


def _checked(checked: Mapping[str, Any]) -> list[str]:
    if not checked["inputs"]:
        return ["The task has no recorded requests that could be compared: run your own before you rely on it."]
    slack = ""
    if checked["slack"] is not None:
        slack = (
            " An input that stands exactly on the threshold would be decided\nby rounding, so the cutoff lies "
            f"{checked['slack']:.0e} (log-odds) below it."
        )
    lines = [
        f"On {checked['inputs']:,} of the task's requests the runner decided and answered as the server does;",
        f"log-odds differ by at most {checked['log_odds']:.1e}.{slack}",
    ]
    if "javascript" in checked:
        lines.append(f"The JavaScript runner was compared on {checked['javascript']:,} of these (Node): the same too.")
    return lines


def _recipe(recipe: Recipe) -> str:
    """A recipe's name, without where a model lay on this machine."""
    told = {key: Path(value).name if isinstance(value, str) else value for key, value in recipe.params.items()}
    return msgspec.structs.replace(recipe, params=told).name


def _share(estimate: Estimate) -> str:
    if estimate.value is None:
        return "–"
    return f"{estimate.value:.2%} ({estimate.low:.2%} to {estimate.high:.2%}, n = {estimate.n:,})"
