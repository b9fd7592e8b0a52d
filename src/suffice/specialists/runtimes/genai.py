"""onnxruntime-genai, in this process: a generating model as an ONNX graph with its cache, its weights in 32 bits.

Each token is chosen here, from the logits, the likeliest that the grammar allows. Its builder rounds to 4 bits too, in
a way that transformers' weights are not rounded in here; so it is not offered.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from suffice.core.errors import ArtefactError, InputError
from suffice.specialists.runtime import Schema, Written, check_fits
from suffice.specialists.runtimes.ctranslate2_ import Floats, Writing, log_softmax
from suffice.specialists.runtimes.words import TOKENIZER, Words

FILES = ("model.onnx", "model.onnx.data", "genai_config.json", TOKENIZER)
_BUILDER = "onnxruntime_genai.models.builder"


def write_genai(checkpoint: Path, target: Path) -> None:
    """Write `FILES` into the existing folder `target`, from the checkpoint in a folder.

    Raises InputError for an architecture that the library's builder does not know. Needs torch and transformers.
    """
    with tempfile.TemporaryDirectory(dir=target, prefix=".genai-") as scratch:
        made = Path(scratch) / "made"
        command = [sys.executable, "-m", _BUILDER, "-i", str(checkpoint), "-o", str(made), "-p", "fp32", "-e", "cpu"]
        # A process of its own: it writes on stdout, and leaves its graph in memory.
        done = subprocess.run([*command, "-c", scratch], capture_output=True, text=True, check=False)
        if done.returncode or any(not (made / name).is_file() for name in FILES):
            told = (done.stderr.strip() or "it wrote no model").splitlines()[-1]
            raise InputError(f"{checkpoint} cannot be built for onnxruntime-genai: {told[:300]}")
        for name in FILES:
            (made / name).replace(target / name)


def open_genai(folder: Path, *, context: int, ends: Sequence[int]) -> Genai:
    """The model that `write_genai` wrote, in memory; `context` tokens are room for prompt and answer together.

    Raises ArtefactError where the files are not whole.
    """
    import onnxruntime_genai

    try:
        model = onnxruntime_genai.Model(str(folder))
    except Exception as error:  # the library raises its own, which it does not name
        raise ArtefactError(f"onnxruntime-genai cannot load {folder}: {str(error).splitlines()[0][:300]}") from error
    return Genai(onnxruntime_genai, model, Words(folder, ends), context)


class Genai:
    """A loaded model. Thread-safe: each answer has a cache of its own."""

    name = "onnxruntime-genai"

    def __init__(self, library: Any, model: Any, words: Words, context: int) -> None:
        self._library, self._model, self._words, self._context = library, model, words, context

    def write(self, prompts: Sequence[str], *, schema: Schema | None, most_tokens: int) -> list[Written]:
        """As `Runtime.write`."""
        return [self._written(prompt, schema, max(most_tokens, 1)) for prompt in prompts]

    def read(self, prompt: str, answer: str) -> tuple[float, ...]:
        """As `Runtime.read`."""
        tokens = self._words.tokens(answer)
        before = self._words.tokens(prompt)
        check_fits(len(before) + len(tokens) - 1, self._context)
        generator = self._begun(before)
        found = []
        for token in tokens:
            found.append(float(self._chances(generator)[token]))
            generator.append_tokens(np.array([[token]], dtype=np.int32))
        return tuple(found)

    def close(self) -> None:
        """As `Runtime.close`."""
        self._model = None

    def _written(self, prompt: str, schema: Schema | None, most_tokens: int) -> Written:
        before = self._words.tokens(prompt)
        check_fits(len(before), self._context)
        writing = Writing(self._words, schema, min(most_tokens, self._context - len(before)))
        generator = self._begun(before)
        while True:
            token = writing.next(self._chances(generator))
            if writing.done:
                return writing.written()
            generator.append_tokens(np.array([[token]], dtype=np.int32))

    def _begun(self, before: Sequence[int]) -> Any:
        if self._model is None:
            raise RuntimeError("the model is closed")
        settings = self._library.GeneratorParams(self._model)
        settings.set_search_options(max_length=self._context + 1)
        generator = self._library.Generator(self._model, settings)
        generator.append_tokens(np.array([before], dtype=np.int32))
        return generator

    @staticmethod
    def _chances(generator: Any) -> Floats:
        """Log-probabilities of the next token, shape (V,)."""
        logits = np.asarray(generator.get_logits(), dtype=np.float64)
        return log_softmax(logits.reshape(-1, logits.shape[-1])[-1])
