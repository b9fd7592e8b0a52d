"""A tiny untrained model for tests of what runs models that write: made in a second, and different everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from suffice.core.types import Choice, Choices, Fields, Many, Number, OutputContract, Span, ToolCall

TEXTS = ["the quick brown fox jumps over the lazy dog 12345", "Zoë books a table für zwei, 日本 at 19:45", '{"a":"b"}']
TEMPLATE = (
    "{% for m in messages %}<|start|>{{ m['role'] }}\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
PROMPTS = [f"<|start|>user\n{text}<|end|>\n<|start|>assistant\n" for text in (*TEXTS, "x", "naïve 日本 日")]
CONTRACTS: list[OutputContract | None] = [
    None,
    Fields((("city", Span(most=8)), ("n", Number(whole=True, least=0, most=99)), ("on", Choice((True, None))))),
    Many(Choice(("a", "bb", "ë")), most=3),
    Choices(("x", "y")),
    ToolCall((("f", Fields((("t", Span(most=5, pattern=r"^\w+$")),))),), none_allowed=True),
]


def tiny_tokenizer() -> Any:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        TEXTS, trainers.BpeTrainer(vocab_size=310, initial_alphabet=alphabet, show_progress=False, min_frequency=1)
    )
    made.add_special_tokens([AddedToken(mark, special=True) for mark in ("<|start|>", "<|end|>")])
    return PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<|start|>", eos_token="<|end|>", pad_token="<|end|>", chat_template=TEMPLATE
    )


def write_checkpoint(folder: Path, kind: str = "llama", **settings: Any) -> tuple[Any, Any]:
    """Writes a checkpoint and gives its torch model and tokenizer. Weights are large enough for answers to differ."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    words = tiny_tokenizer()
    given = {
        "vocab_size": len(words) + 3,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "head_dim": 16,
        "initializer_range": 0.3,
        "bos_token_id": words.bos_token_id,
        "eos_token_id": words.eos_token_id,
        "pad_token_id": words.eos_token_id,
        "tie_word_embeddings": True,
        **settings,
    }
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **given), dtype=torch.float32).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("bias") or weight.ndim == 1:  # what is 0 or 1 at first hides mistakes
                weight += 0.1 * torch.randn(weight.shape)
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return model, words


def loaded(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from suffice.specialists.runtimes.transformers_ import Transformers

    model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()
    return Transformers(model, AutoTokenizer.from_pretrained(folder), context=256)
