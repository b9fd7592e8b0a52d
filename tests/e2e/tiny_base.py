"""A generating model of half a million parameters, made here in seconds: what tests of the causal family tune.

It knows the words of `orders` and how to repeat them from a request in other forms than a test asks for, so that a few
steps of LoRA teach it a new form. A folder as the hub gives it: config, safetensors, tokenizer with a chat template.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

NAMES = ["Anna", "Ben", "Carla", "David", "Emma", "Felix"]
CITIES = ["Berlin", "Paris", "Rome", "Oslo"]
THINGS = ["lamps", "chairs", "tables", "shelves", "rugs", "mirrors"]
ASKED = (
    "{name} wants {count} {thing} in {city}.",
    "Send {count} {thing} to {name}, {city}.",
    "Order: {count} {thing}, {city}, {name}.",
)
REPLY = "Dear {name}, your {count} {thing} are on their way to {city}."
_OTHER = ("{name} {city} {count} {thing}", "{count} {thing} {name} {city}")
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def orders(n: int, seed: int) -> list[tuple[str, dict[str, Any]]]:
    """Requests, each with what it says."""
    dice = random.Random(seed)
    found = []
    for _ in range(n):
        said = {
            "name": dice.choice(NAMES), "city": dice.choice(CITIES),
            "thing": dice.choice(THINGS), "count": dice.randint(2, 40),
        }  # fmt: skip
        found.append((dice.choice(ASKED).format(**said), said))
    return found


def make(folder: Path, *, steps: int = 250, template: str | None = TEMPLATE, context: int = 128) -> Path:
    """Write the base into `folder`; always the same one."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    lessons = [_lesson(text, said, number) for number, (text, said) in enumerate(orders(1_000, 99))]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=_tokenizer([f"{prompt}{answer}" for prompt, answer in lessons]),
        eos_token="<|im_end|>", pad_token="<|pad|>", bos_token="<|im_start|>",
    )  # fmt: skip
    tokenizer.chat_template = template
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2,
            num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=context, tie_word_embeddings=True,
            initializer_range=0.1,
            bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )  # fmt: skip
        model = LlamaForCausalLM(config)
        _teach(model, tokenizer, lessons, steps)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _lesson(text: str, said: dict[str, Any], number: int) -> tuple[str, str]:
    form = number % len(_OTHER)
    prompt = f"<|im_start|>system\n{form}<|im_end|>\n<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"
    return prompt, _OTHER[form].format(**said) + "<|im_end|>"


def _tokenizer(texts: Sequence[str]) -> Any:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = [AddedToken(text, special=True) for text in ("<|pad|>", "<|im_start|>", "<|im_end|>")]
    words = [
        REPLY,
        "Write the answer. Answer with JSON: , Answer with a JSON list of objects: date state late system user",
    ]
    trainer = trainers.BpeTrainer(
        vocab_size=640,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*texts, *words * 50], trainer)
    return tokenizer


def _teach(model: Any, tokenizer: Any, lessons: Sequence[tuple[str, str]], steps: int) -> None:
    import torch

    rows = []
    for prompt, answer in lessons:
        asked, said = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prompt, answer))
        rows.append((asked + said, [-100] * len(asked) + said))
    dice = random.Random(1)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-2, total_steps=steps, pct_start=0.1)
    for _ in range(steps):
        batch = dice.sample(rows, 32)
        width = max(len(ids) for ids, _ in batch)
        ids = torch.tensor([row + [0] * (width - len(row)) for row, _ in batch])
        labels = torch.tensor([row + [-100] * (width - len(row)) for _, row in batch])
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        optimiser.step()
        schedule.step()
        optimiser.zero_grad(set_to_none=True)
    model.eval()
