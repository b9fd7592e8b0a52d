"""Trained elsewhere and brought back: an export, a tiny adapter tuned on it with peft alone, and the same gate.

Skips where the packages that tune and serve are not installed (`make llm`).
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from suffice.core.errors import InputError

for package in ("torch", "transformers", "trl", "peft", "gguf", "llguidance", "xllamacpp"):
    pytest.importorskip(package, reason=f"{package} is not installed: make llm")

sys.path.insert(0, str(Path(__file__).parents[1] / "e2e"))

import tiny_base  # noqa: E402

from suffice.specialists.causal_adapter import checked  # noqa: E402
from suffice.specialists.causal_store import ADAPTER  # noqa: E402

Cli = Callable[..., tuple[int, list[Any], str]]
WEIGHTS, SETTINGS = ADAPTER


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base.make(tmp_path_factory.mktemp("base") / "tiny")


def orders(n: int, seed: int) -> list[dict[str, Any]]:
    return [{"input": text, "reference": tiny_base.REPLY.format(**said)} for text, said in tiny_base.orders(n, seed)]


def tuned(base: Path, lines: Path | None, folder: Path, steps: int = 150, rank: int = 16) -> Path:
    """An adapter as somebody else's trainer leaves it: peft, a plain loop over the exported file, nothing of ours."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(base)
    lora = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype="float32"), lora)
    rows = [json.loads(line) for line in lines.read_text().splitlines()] if lines is not None else []
    texts = [
        (
            tokenizer.apply_chat_template(row["prompt"], tokenize=False, add_generation_prompt=True),
            row["completion"][0]["content"] + tokenizer.eos_token,
        )
        for row in rows
    ]
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3, weight_decay=0.0)
    for step in range(steps if texts else 0):
        batch = [texts[(16 * step + i) % len(texts)] for i in range(16)]
        asked, said = ([tokenizer(one, add_special_tokens=False)["input_ids"] for one in side] for side in zip(*batch, strict=True))  # fmt: skip  # noqa: E501
        width = max(len(a) + len(s) for a, s in zip(asked, said, strict=True))
        ids = [a + s + [0] * (width - len(a) - len(s)) for a, s in zip(asked, said, strict=True)]
        labels = [[-100] * len(a) + s + [-100] * (width - len(a) - len(s)) for a, s in zip(asked, said, strict=True)]
        for group in optimiser.param_groups:
            group["lr"] = 3e-3 * min(1, (step + 1) / 10) * (1 - step / steps)
        model(input_ids=torch.tensor(ids), labels=torch.tensor(labels)).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
    model.save_pretrained(folder)
    return folder


def test_an_adapter_tuned_on_the_export_comes_back_through_the_same_gate(
    base: Path, cli: Cli, written: Callable[..., Path], tmp_path: Path
) -> None:
    cli("import", written(orders(900, 3)), "--task", "reply")
    code, (document,), said = cli("dataset", "reply", "--export", "trl", "--as-served", "--to", tmp_path / "out")
    assert code == 0, said
    exported = document["export"]["rows"]
    assert exported["train"] > 100 and document["export"]["read"] == 0, "none of the rows that prove leaves"
    row = json.loads((tmp_path / "out" / "train.jsonl").read_text().splitlines()[0])
    assert [message["role"] for message in row["prompt"]] == ["system", "user"]
    adapter = tuned(base, tmp_path / "out" / "train.jsonl", tmp_path / "out" / "model")

    run = ("learn", "reply", "--adapter", adapter, "--base", base, "--max-error", "0.05", "--confidence", "0.9")
    code, (document,), said = cli(*run)
    assert code == 0, (document["reasons"], document["candidates"])
    assert document["release"] == "reply@1" and document["coverage"]["value"] > 0.5
    assert all("adapter=" in candidate["recipe"] for candidate in document["candidates"])
    fresh = tiny_base.orders(40, 4)
    asked = written([{"input": text} for text, _ in fresh], "asked.jsonl")
    _, answers, _ = cli("answer", "reply", asked)
    right = [line["output"] == tiny_base.REPLY.format(**said) for line, (_, said) in zip(answers, fresh, strict=True)]
    assert sum(right) >= 36
    held = next((tmp_path / "home" / "releases").iterdir())
    assert (held / WEIGHTS).read_bytes() == (adapter / WEIGHTS).read_bytes(), "it goes along, for servers of adapters"

    # What certified had never left: no exported row is among them.
    with sqlite3.connect(tmp_path / "home" / "suffice.db") as db:
        places = dict(db.execute("SELECT split, count(*) FROM splits GROUP BY split").fetchall())
    assert places["train"] >= exported["train"] and places["calibration"] >= 45, places


def test_rows_that_prove_and_are_exported_never_prove_again(
    cli: Cli, written: Callable[..., Path], tmp_path: Path
) -> None:
    cli("import", written(orders(400, 5)), "--task", "reply")
    every = [flag for name in ("train", "tune", "calibration", "test") for flag in ("--split", name)]
    code, (document,), _ = cli("dataset", "reply", "--export", "trl", "--as-served", *every, "--to", tmp_path / "out")
    assert code == 0 and document["export"]["read"] > 100
    with sqlite3.connect(tmp_path / "home" / "suffice.db") as db:
        places = {split for (split,) in db.execute("SELECT DISTINCT split FROM splits")}
    assert places <= {"train", "tune"}
    code, (document,), _ = cli("learn", "reply", "--recipe", "nearest")
    assert code == 1 and "new rows needed" in document["reasons"][0]


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that fits, untrained."""
    return tuned(base, None, tmp_path_factory.mktemp("adapter") / "fits")


def _told(folder: Path, **changes: Any) -> None:
    settings = json.loads((folder / SETTINGS).read_text())
    (folder / SETTINGS).write_text(json.dumps({**settings, **changes}))


def _tensors(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / WEIGHTS)


def _without(tensors: dict[str, Any], part: str, most: int = 1) -> None:
    for name in [name for name in tensors if part in name][:most]:
        del tensors[name]


def _poison(tensors: dict[str, Any]) -> None:
    next(iter(tensors.values()))[0, 0] = float("nan")


def _pickled(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "adapter_model.bin")


def _cut(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-100])


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda f: shutil.rmtree(f), "there is no such folder"),
        (lambda f: (f / SETTINGS).unlink(), "no adapter in peft's form"),
        (lambda f: (f / SETTINGS).write_text("{"), "cannot be read"),
        (lambda f: _told(f, peft_type="IA3"), "only LORA is merged"),
        (lambda f: _told(f, task_type="SEQ_CLS"), "not for a model that writes"),
        (lambda f: _told(f, modules_to_save=["lm_head"]), "brings whole layers along"),
        (lambda f: (f / WEIGHTS).unlink(), f"there is no {WEIGHTS}"),
        (_pickled, "pickled"),
        (_cut, "is not whole"),
        (lambda f: _told(f, r=32), "of rank 16 and 16 where its settings say 32"),
        (lambda f: _tensors(f, lambda t: _without(t, "lora_B")), "has no lora_B"),
        (lambda f: _tensors(f, lambda t: _without(t, "layers.1.", 99)), "have no matrices"),
        (lambda f: _tensors(f, _poison), "not finite"),
    ],
)  # fmt: skip
def test_an_adapter_that_is_not_whole_is_refused_in_a_sentence(
    base: Path, adapter: Path, tmp_path: Path, spoil: Callable[[Path], None], said: str
) -> None:
    folder = Path(shutil.copytree(adapter, tmp_path / "adapter"))
    spoil(folder)
    with pytest.raises(InputError, match=said):
        checked(folder, base, str(base))


def test_an_adapter_for_another_base_is_refused(
    base: Path, adapter: Path, cli: Cli, written: Callable[..., Path], tmp_path: Path
) -> None:
    other = tmp_path / "other"
    _wider(base, other)
    cli("import", written(orders(60, 6)), "--task", "reply")
    code, documents, said = cli("learn", "reply", "--adapter", adapter, "--base", other)
    assert (code, documents) == (2, []) and "it is for another base" in said and len(said.splitlines()) == 1
    folder = Path(shutil.copytree(adapter, tmp_path / "adapter"))
    _told(folder, base_model_name_or_path="Qwen/Qwen3-0.6B")
    with pytest.raises(InputError, match=r"it was tuned on Qwen/Qwen3-0\.6B, and the base here is acme/Tiny"):
        checked(folder, base, "acme/Tiny")
    code, _, said = cli("learn", "--adapter", adapter)
    assert code == 2 and "for one task" in said
    code, _, said = cli("learn", "reply", "--base", base)
    assert code == 2 and "--base goes with --adapter" in said


def _wider(base: Path, target: Path) -> None:
    """A base of the same kind and another width."""
    from transformers import LlamaConfig, LlamaForCausalLM

    shutil.copytree(base, target)
    LlamaForCausalLM(LlamaConfig.from_pretrained(base, intermediate_size=96)).save_pretrained(target)
