"""Datasets in the shapes that training tools read: chat JSON Lines for four of them, Parquet for everything else.

| format | shape | trained on |
|---|---|---|
| `openai` | `messages`, `tools`, `parallel_tool_calls` | the last assistant turn (`weight` 0 on the ones before) |
| `trl` | `prompt`, `completion`, `tools` (SFTTrainer) | the completion |
| `axolotl` | `messages` with `train`, `tools`; `axolotl.yaml` | the turns with `train` |
| `llama-factory` | turns that alternate, `tools`; `dataset_info.json`, `llama-factory.yaml` | the last turn |
| `parquet` | a row each, with where it came from | |

The shapes are those of the tools' own documentation and readers (docs/datasets.md names them). Not known here: which
rows are exported, and what that means for later certificates.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from suffice.core.errors import InputError
from suffice.core.secrets import leaked
from suffice.core.style import Style
from suffice.core.types import digest_of
from suffice.core.values import Value, decode
from suffice.store.records import Row, Trusted
from suffice.wire import dialects

FORMATS = ("parquet", "openai", "trl", "axolotl", "llama-factory")
MODEL = "Qwen/Qwen2.5-0.5B-Instruct"
"""What the written configurations begin with; people put theirs there."""
BATCH = 1_000

NOT_TEXT = "a message is not text"
NOT_IN_TURNS = "its messages are not in turns"
HOLDS_KEY = "it holds a key"

Doc = dict[str, Any]


class Exchange(msgspec.Struct, frozen=True, kw_only=True):
    """One request with its right answer: `messages` without it, `answer` as an assistant's message.

    Tools as the vendor defines them; arguments of calls are JSON text. `asked` is the body's other fields.
    """

    record: str
    messages: list[Doc]
    answer: Doc
    tools: list[Doc]
    asked: Doc


def exchange(row: Row, trusted: Trusted | None, style: Style) -> Exchange | str:
    """The exchange of a record, a trusted answer (written as the frontier would) in place of the recorded one.

    A text says why it cannot be exported, or may not.
    """
    if row.dialect == "short":
        messages: list[Doc] | None = [{"role": "user", "content": row.input or ""}]
        asked: Doc = {}
        answer = None if trusted is not None else _said(_value(row.answer), style, row.id)
    else:
        try:
            body, document = decode(row.request or b""), decode(row.answer or b"{}")
            # Training tools read chat, whatever the dialect of the record.
            to_chat, answer_to_chat = dialects.of(row.dialect).to_chat, dialects.spoken_in(document).answer_to_chat
            body = to_chat(body) if to_chat is not None else body
            choice = (answer_to_chat(document) if answer_to_chat is not None else document).get("choices") or [{}]
        except (InputError, AttributeError):
            return NOT_TEXT
        asked = {key: value for key, value in body.items() if key != "messages"}
        plain = [_message(message) for message in body.get("messages", [])]
        messages = None if any(message is None for message in plain) else [m for m in plain if m is not None]
        answer = _message({**(choice[0].get("message") or {}), "role": "assistant"}) if trusted is None else None
    if trusted is not None:
        answer = _said(trusted.value, style, row.id)
    if messages is None or answer is None:
        return NOT_TEXT
    legacy = [{"type": "function", "function": function} for function in asked.get("functions") or []]
    found = Exchange(
        record=row.id, messages=messages, answer=answer, tools=list(asked.get("tools") or legacy), asked=asked
    )
    # Whatever is written may be sent elsewhere: a key counts wherever it stands, in instructions and tools too.
    written = msgspec.json.encode((found.messages, found.answer, found.tools)).decode()
    return HOLDS_KEY if leaked(written) else found


def told_so(record: str, instruction: str, input: str, answer: str) -> Exchange | str:
    """An exchange of these words; a text says why it may not be exported."""
    found = Exchange(
        record=record,
        messages=[{"role": "system", "content": instruction}, {"role": "user", "content": input}],
        answer={"role": "assistant", "content": answer},
        tools=[],
        asked={},
    )
    return HOLDS_KEY if leaked(f"{input}\n{answer}") else found


def _value(answer: bytes | None) -> Value:
    value: Value = decode(answer) if answer is not None else None
    return value


def _said(value: Value, style: Style, record: str) -> Doc:
    """An answer as an assistant's message."""
    rendered = style.render(value)
    if not rendered.calls:
        return {"role": "assistant", "content": rendered.content}
    calls = [
        {"id": f"call_{digest_of(record, str(i))[:24]}", "type": "function", "function": {"name": n, "arguments": a}}
        for i, (n, a) in enumerate(rendered.calls)
    ]
    return {"role": "assistant", "content": None, "tool_calls": calls}


def _message(message: Any) -> Doc | None:
    """A message of texts and calls only; None for any other. What instructs is called `system` everywhere."""
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        return None
    content = message.get("content")
    if isinstance(content, list):
        parts = [part.get("text") if isinstance(part, dict) else None for part in content]
        if not all(isinstance(part, str) for part in parts):
            return None
        content = "\n".join(str(part) for part in parts)
    if content is not None and not isinstance(content, str):
        return None
    found: Doc = {"role": {"developer": "system"}.get(message["role"], message["role"]), "content": content}
    calls = message.get("tool_calls") or []
    if isinstance(message.get("function_call"), dict):
        calls = [{"id": "call_0", "type": "function", "function": message["function_call"]}]
    if calls:
        found["tool_calls"] = calls
    if isinstance(message.get("tool_call_id"), str):
        found["tool_call_id"] = message["tool_call_id"]
    return found


# ---------------------------------------------------------------------------------------------- shapes


def openai(found: Exchange) -> Doc:
    """A line for supervised fine-tuning of chat models."""
    earlier = [{**m, "weight": 0} if m["role"] == "assistant" else m for m in found.messages]
    line: Doc = {"messages": [_without_empty(message) for message in [*earlier, found.answer]]}
    if found.tools:
        line["tools"] = found.tools
        if isinstance(found.asked.get("parallel_tool_calls"), bool):
            line["parallel_tool_calls"] = found.asked["parallel_tool_calls"]
    return line


def trl(found: Exchange) -> Doc:
    """A line in prompt and completion; arguments are objects, as chat templates want them."""
    line: Doc = {
        "prompt": [_without_empty(_objects(message)) for message in found.messages],
        "completion": [_without_empty(_objects(found.answer))],
    }
    return {**line, "tools": found.tools} if found.tools else line


def axolotl(found: Exchange) -> Doc:
    """A line with `train` on each message. Arguments and parameters are JSON text, which Axolotl reads."""
    messages = [{**m, "train": False} for m in found.messages] + [{**found.answer, "train": True}]
    line: Doc = {"messages": [{**m, "content": m["content"] or ""} for m in messages]}
    if found.tools:
        line["tools"] = [_with_text(tool) for tool in found.tools]
    return line


def llama_factory(found: Exchange) -> Doc | str:
    """A line of turns that alternate; neighbours of one role are joined. A text says that they cannot be."""
    turns: list[Doc] = []
    for message in [*found.messages, found.answer]:
        role = {"tool": "observation", "function": "observation"}.get(message["role"], message["role"])
        content = message["content"] or ""
        if message.get("tool_calls"):
            calls = [call["function"] for call in message["tool_calls"]]
            role = "function_call"
            content = _text([{"name": c["name"], "arguments": _arguments(c.get("arguments"))} for c in calls])
        if turns and turns[-1]["role"] == role and role in ("user", "system", "observation"):
            turns[-1] = {"role": role, "content": f"{turns[-1]['content']}\n\n{content}"}
        else:
            turns.append({"role": role, "content": content})
    spoken = turns[1:] if turns[0]["role"] == "system" else turns
    sides = (("user", "observation"), ("assistant", "function_call"))
    if len(spoken) % 2 or not all(turn["role"] in sides[i % 2] for i, turn in enumerate(spoken)):
        return NOT_IN_TURNS
    functions = [tool.get("function", tool) for tool in found.tools]
    return {"messages": turns, "tools": _text(functions) if functions else ""}


def _without_empty(message: Doc) -> Doc:
    return {key: value for key, value in message.items() if value is not None or key != "content"}


def _arguments(arguments: Any) -> Any:
    if not isinstance(arguments, str):
        return arguments if arguments is not None else {}
    try:
        return decode(arguments or "{}")
    except InputError:
        return arguments


def _objects(message: Doc) -> Doc:
    calls = message.get("tool_calls")
    if not calls:
        return message
    called = [{**c["function"], "arguments": _arguments(c["function"].get("arguments"))} for c in calls]
    return {**message, "tool_calls": [{**c, "function": f} for c, f in zip(calls, called, strict=True)]}


def _with_text(tool: Doc) -> Doc:
    function = tool.get("function")
    if not isinstance(function, dict) or "parameters" not in function:
        return tool
    return {**tool, "function": {**function, "parameters": _text(function["parameters"])}}


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


_SHAPES: Mapping[str, Callable[[Exchange], Doc | str]] = {
    "openai": openai,
    "trl": trl,
    "axolotl": axolotl,
    "llama-factory": llama_factory,
}


# ---------------------------------------------------------------------------------------------- files


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What of an example a Parquet row tells beside its exchange."""

    input: str
    target: Value
    output: Value
    has_output: bool
    reference: Value
    has_reference: bool
    kind: str
    source: str
    group: str | None
    at: float
    slices: tuple[str, ...]


class Writer:
    """Writes the rows of an export as they come, a file for each split, into a folder of its own.

    Raises InputError where the folder holds something already, or where Parquet is asked for and its extra is missing.
    `written` counts rows by split, `left_out` by reason.
    """

    def __init__(self, folder: Path, form: str, task: str, splits: Sequence[str]) -> None:
        if form == "parquet":
            try:
                import pyarrow  # noqa: F401
            except ImportError as error:
                raise InputError(
                    "--export parquet needs the extra `parquet`: pip install 'suffice[parquet]'"
                ) from error
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError(f"{folder}: --to takes a new or an empty folder")
        self.folder, self.form, self.task, self.splits = folder, form, task, tuple(splits)
        self.written = dict.fromkeys(splits, 0)
        self.left_out: dict[str, int] = {}

    def write(self, rows: Iterable[tuple[str, Exchange | str, Told]]) -> list[Path]:
        """Write rows, each with its split, and what the format's tool needs beside them; the files, data first."""
        self.folder.mkdir(parents=True, exist_ok=True)
        parquet = self.form == "parquet"
        files = {split: self.folder / f"{split}.{'parquet' if parquet else 'jsonl'}" for split in self.splits}
        sinks: dict[str, Any] = {s: (_Parquet(f) if parquet else _Lines(f)) for s, f in files.items()}
        try:
            for split, found, told in rows:
                shaped: Doc | str = found if isinstance(found, str) else self._shape(split, found, told)
                if isinstance(shaped, str):
                    self.left_out[shaped] = self.left_out.get(shaped, 0) + 1
                else:
                    sinks[split].add(shaped)
                    self.written[split] += 1
        finally:
            for sink in sinks.values():
                sink.close()
        extra = {"axolotl": axolotl_files, "llama-factory": llama_factory_files}.get(self.form)
        texts = extra(self.task, self.written) if extra is not None else {}
        for name, text in texts.items():
            (self.folder / name).write_text(text, "utf-8")
        return [*files.values(), *(self.folder / name for name in texts)]

    def _shape(self, split: str, found: Exchange, told: Told) -> Doc | str:
        if self.form != "parquet":
            return _SHAPES[self.form](found)
        return {
            "id": found.record,
            "split": split,
            "input": told.input,
            "target": _text(told.target),
            "output": _text(told.output) if told.has_output else None,
            "reference": _text(told.reference) if told.has_reference else None,
            "reference_kind": told.kind,
            "messages": _text([*found.messages, found.answer]),
            "tools": _text(found.tools) if found.tools else None,
            "source": told.source,
            "group": told.group,
            "at": told.at,
            "slices": list(told.slices),
        }


class _Lines:
    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")

    def add(self, line: Doc) -> None:
        self._file.write(_text(line).encode() + b"\n")

    def close(self) -> None:
        self._file.close()


class _Parquet:
    """Texts are JSON where they may be anything: one column has one type."""

    def __init__(self, path: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        text = pa.string()
        names = ("id", "split", "input", "target", "output", "reference", "reference_kind", "messages", "tools")
        fields = [(name, text) for name in (*names, "source", "group")]
        self._schema = pa.schema([*fields, ("at", pa.float64()), ("slices", pa.list_(text))])
        self._writer = pq.ParquetWriter(path, self._schema)
        self._rows: list[Doc] = []

    def add(self, row: Doc) -> None:
        self._rows.append(row)
        if len(self._rows) >= BATCH:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
            self._rows = []

    def close(self) -> None:
        self._flush()
        self._writer.close()


def _parts(written: Mapping[str, int]) -> tuple[list[str], list[str]]:
    """The splits that train (or, where none does, all), and those that validate, as far as they have rows."""
    there = [split for split, count in written.items() if count]
    train = [split for split in there if split == "train"] or there
    return train, [split for split in there if split not in train]


def axolotl_files(task: str, written: Mapping[str, int]) -> dict[str, str]:
    """`axolotl.yaml`: `axolotl train axolotl.yaml`, from the folder of the export."""
    train, validate = _parts(written)

    def entry(split: str) -> str:
        return (
            f"  - path: {split}.jsonl\n    ds_type: json\n    split: train\n    type: chat_template\n"
            "    field_messages: messages\n    field_tools: tools\n    message_field_training: train\n"
            "    roles_to_train: []\n    train_on_eos: turn\n"
        )

    test = "test_datasets:\n" + "".join(map(entry, validate)) if validate else "val_set_size: 0.0\n"
    evaluated = "evals_per_epoch: 1\n" if validate else ""
    return {
        "axolotl.yaml": (
            f"# Task {task}, written by `suffice dataset`. Run in this folder: axolotl train axolotl.yaml\n"
            f"base_model: {MODEL}\nchat_template: tokenizer_default\n"
            f"datasets:\n{''.join(map(entry, train))}{test}"
            "dataset_prepared_path: prepared\noutput_dir: model\n\n"
            "sequence_len: 2048\nsample_packing: false\n\n"
            "adapter: lora\nlora_r: 16\nlora_alpha: 32\nlora_dropout: 0.05\nlora_target_linear: true\n\n"
            "micro_batch_size: 4\ngradient_accumulation_steps: 4\nnum_epochs: 3\noptimizer: adamw_torch\n"
            "lr_scheduler: cosine\nlearning_rate: 0.0002\nwarmup_ratio: 0.1\nweight_decay: 0.0\n"
            f"bf16: auto\ngradient_checkpointing: true\nlogging_steps: 10\nsaves_per_epoch: 1\n{evaluated}"
        )
    }


def llama_factory_files(task: str, written: Mapping[str, int]) -> dict[str, str]:
    """`dataset_info.json` and `llama-factory.yaml`: `llamafactory-cli train llama-factory.yaml`, from the folder."""
    train, validate = _parts(written)
    tags = {
        "role_tag": "role",
        "content_tag": "content",
        "user_tag": "user",
        "assistant_tag": "assistant",
        "observation_tag": "observation",
        "function_tag": "function_call",
        "system_tag": "system",
    }
    info = {
        _name(task, split): {
            "file_name": f"{split}.jsonl",
            "formatting": "sharegpt",
            "columns": {"messages": "messages", "tools": "tools"},
            "tags": tags,
        }
        for split in (*train, *validate)
    }
    evaluated = (
        f"eval_dataset: {','.join(_name(task, split) for split in validate)}\nper_device_eval_batch_size: 4\n"
        "eval_strategy: epoch\n"
        if validate
        else ""
    )
    return {
        "dataset_info.json": json.dumps(info, indent=2) + "\n",
        "llama-factory.yaml": (
            f"# Task {task}, written by `suffice dataset`.\n"
            "# Run in this folder: llamafactory-cli train llama-factory.yaml\n"
            f"model_name_or_path: {MODEL}\ntemplate: qwen\n\n"
            "stage: sft\ndo_train: true\nfinetuning_type: lora\nlora_rank: 16\nlora_target: all\n\n"
            f"dataset_dir: .\ndataset: {','.join(_name(task, split) for split in train)}\n"
            "cutoff_len: 2048\nmask_history: true\n\n"
            "output_dir: model\nlogging_steps: 10\nsave_strategy: epoch\noverwrite_output_dir: true\n\n"
            "per_device_train_batch_size: 4\ngradient_accumulation_steps: 4\nlearning_rate: 1.0e-4\n"
            f"num_train_epochs: 3.0\nlr_scheduler_type: cosine\nwarmup_ratio: 0.1\nbf16: true\n\n{evaluated}"
        ),
    }


def _name(task: str, split: str) -> str:
    """A dataset's name: LLaMA-Factory takes a comma for two of them, and YAML a number for a number."""
    return f"suffice_{task}_{split}"
