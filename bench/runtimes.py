"""Runtimes of a generating model against transformers, as a markdown table: `python bench/runtimes.py [--prompts N]`.

The default base with its weights moved a little at random (a tenth of their deviation: the package's own are rounded
to 4 bits already, and rounding them again would cost nothing), written for each runtime that is installed at each
precision it has. SNIPS' sentences are asked for as JSON, from `../shared/data`. One thread.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from linear import DATA
from suffice.core.types import Fields, Span
from suffice.specialists.causal_base import load, made
from suffice.specialists.causal_gguf import BITS
from suffice.specialists.causal_grammar import schema_of
from suffice.specialists.causal_parity import compare, parity
from suffice.specialists.runtimes.chosen import CTRANSLATE2, GENAI, LLAMACPP, Choice, make, missing, opening, rounding
from suffice.specialists.runtimes.transformers_ import Transformers

CONTEXT = 512
PRECISIONS = {LLAMACPP: BITS, CTRANSLATE2: (8,), GENAI: (32,)}
COLUMNS = (
    *("runtime", "bits", "MB", "written (s)", "loaded (s)", "prompt tokens/s", "tokens/s", "prompts", "tokens", "mean"),
    *("worst prompt", "worst token", "same likeliest", "verdict", "mean to 32 bits", "same likeliest"),
)
CONTRACT = Fields((("artist", Span()), ("playlist", Span()), ("object", Span()), ("place", Span())))


def moved(source: Path, target: Path, share: float) -> Transformers:
    import torch

    model, tokenizer = load(source)
    dice = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight += share * weight.std() * torch.randn(weight.shape, generator=dice)
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
    return Transformers(model, tokenizer, context=CONTEXT)


def prompts(reference: Transformers, most: int) -> list[str]:
    rows = [json.loads(line)["text"] for line in (DATA / "snips" / "validate.jsonl").read_text().splitlines()]
    chosen = rows[:: max(len(rows) // most, 1)][:most]
    tokenizer: Any = reference.tokenizer
    return [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": f"Answer with JSON: artist, playlist, object, place.\n{text}"}],
            tokenize=False,
            add_generation_prompt=True,
        )
        for text in chosen
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--base", help="a folder, a GGUF file or a hub name (default: the package's)")
    parser.add_argument("--move", type=float, default=0.1, help="share of each matrix's deviation that is added")
    parser.add_argument("--runtimes", default=",".join(PRECISIONS), help="names between commas")
    options = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        source = made(options.base, here / "bases", lambda *_: None)
        reference = moved(source, here / "moved", options.move)
        asked = prompts(reference, options.prompts)
        print("| " + " | ".join(COLUMNS) + " |\n|" + "---|" * len(COLUMNS))
        for kind in options.runtimes.split(","):
            for bits in PRECISIONS[kind] if missing(kind) is None else ():
                own = here / f"{kind}-{bits}"
                own.mkdir()
                print(line(here / "moved", own, kind, bits, reference, asked), flush=True)


def line(checkpoint: Path, own: Path, kind: str, bits: int, reference: Transformers, asked: list[str]) -> str:
    began = time.perf_counter()
    used = make(Choice(kind), checkpoint, own, bits, [reference.tokenizer.eos_token_id])
    written_s, began = time.perf_counter() - began, time.perf_counter()
    runtime = opening(used, own, CONTEXT, {})()
    loaded_s = time.perf_counter() - began
    try:
        long = asked[0] * 5
        began = time.perf_counter()
        runtime.write([long], schema=None, most_tokens=1)
        read_s, began = time.perf_counter() - began, time.perf_counter()
        answers = runtime.write(asked, schema=schema_of(CONTRACT), most_tokens=48)
        spent = time.perf_counter() - began
        read = sum(len(reference.tokens(text)) for text in asked)
        speed = len(reference.tokens(long)) / read_s
        rate = sum(len(answer.tokens) for answer in answers) / max(spent - read / speed, 1e-9)
        found = parity(reference, runtime.name, bits, asked, answers, rounding(kind))
        all_bits = compare(reference, runtime.name, bits, asked, answers)
    finally:
        runtime.close()
    size = sum(path.stat().st_size for path in own.iterdir())
    return (
        f"| {runtime.name} | {bits} | {size / 1e6:.0f} | {written_s:.1f} | {loaded_s:.2f} | {speed:.0f} | {rate:.0f} | "
        f"{found.prompts} | {found.tokens} | {found.mean:.4f} | {found.worst:.3f} | {found.largest:.2f} | "
        f"{found.agreement:.3f} | {found.fault or 'may serve'} | {all_bits.mean:.4f} | {all_bits.agreement:.3f} |"
    )


if __name__ == "__main__":
    main()
