"""The user's own labelled text in the form of the demo's traffic: read from a file, difficulty estimated.

The text and the labels are real; only the frontier that is asked about them is simulated. Its errors should fall on
the rows that are hard, and a file does not say which are: a row counts as hard when the rows most like it have other
labels.
"""

from __future__ import annotations

import csv
import datetime
import io
import itertools
import math
import re
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from suffice.core.errors import InputError
from suffice.demo.workload import FIRST_DAY, TICKETS_A_DAY, Ticket

TEXT_COLUMNS = ("input", "text")
LABEL_COLUMNS = ("reference", "label", "output")
DIMENSIONS = 512
NEIGHBOURS = 7
MOST_COMPARED = 4000
_BLOCK = 1024
_WORD = re.compile(r"\w+")

Matrix = npt.NDArray[np.float32]


def read(path: Path) -> tuple[list[str], list[str]]:
    """Texts and labels of a file, in its order.

    JSON Lines of objects, or CSV with a header when the name ends in `.csv`; the text is `input` or `text`, the label
    `reference`, `label` or `output`, the first of these that is there. A label that is no text (a number, an object)
    becomes its JSON. Blank lines are skipped. Raises InputError naming the file, the line and what is wrong: a file
    that cannot be read, a line that is no object, a text or a label that is missing or empty, fewer than two labels.
    """
    try:
        content = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise InputError(f"{path}, line {line}: not UTF-8 text") from error
    rows = _csv_rows(path, content) if path.suffix.lower() == ".csv" else _json_rows(path, content)
    texts: list[str] = []
    labels: list[str] = []
    for number, row in rows:
        text, label = _first_of(row, TEXT_COLUMNS), _first_of(row, LABEL_COLUMNS)
        if not isinstance(text, str) or not text.strip():
            raise InputError(f"{path}, line {number}: no text in `input` (or `text`)")
        if label is None or label == "":
            raise InputError(f"{path}, line {number}: no label in `reference` (or `label`, or `output`)")
        texts.append(text)
        labels.append(label if isinstance(label, str) else msgspec.json.encode(label).decode())
    if not texts:
        raise InputError(f"{path}: no labelled text in it")
    if len(set(labels)) < 2:
        raise InputError(f"{path}: every one of the {len(labels)} rows has the label {labels[0]!r}; two are needed")
    return texts, labels


def _first_of(row: dict[str, Any], names: Sequence[str]) -> object:
    return next((row[name] for name in names if row.get(name) not in (None, "")), None)


def _json_rows(path: Path, content: str) -> list[tuple[int, dict[str, Any]]]:
    rows: list[tuple[int, dict[str, Any]]] = []
    for number, line in enumerate(content.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = msgspec.json.decode(line)
        except (msgspec.DecodeError, UnicodeEncodeError) as error:
            raise InputError(f"{path}, line {number}: not JSON: {error}") from error
        if not isinstance(row, dict):
            raise InputError(f"{path}, line {number}: not a JSON object")
        rows.append((number, row))
    return rows


def _csv_rows(path: Path, content: str) -> list[tuple[int, dict[str, Any]]]:
    reader = csv.DictReader(io.StringIO(content, newline=""), strict=True)
    header = reader.fieldnames or ()
    for what, names in (("text", TEXT_COLUMNS), ("label", LABEL_COLUMNS)):
        if not set(names) & set(header):
            raise InputError(f"{path}, line 1: no column for the {what}: one of {', '.join(names)} is needed")
    rows: list[tuple[int, dict[str, Any]]] = []
    try:
        for row in reader:
            if None in row:
                raise InputError(f"{path}, line {reader.line_num}: more fields than the header has")
            rows.append((reader.line_num, row))
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: not CSV: {error}") from error
    return rows


def from_labelled(texts: Sequence[str], labels: Sequence[str], seed: int = 0) -> list[Ticket]:
    """The user's rows as tickets, in order, with an estimated difficulty and the most plausible other label.

    The difficulty is the similarity-weighted share of the 7 most similar other rows that have another label (0 easy,
    1 all disagree); the rival is the label that weighs most among those that differ. Similarity is the cosine of hashed
    word and word-pair TF-IDF, compared with at most 4,000 rows drawn by `seed`, so the cost grows with the number of
    rows, not its square. Raises ValueError for lists of unequal length or fewer than two labels.
    """
    if len(texts) != len(labels):
        raise ValueError(f"{len(texts)} texts but {len(labels)} labels")
    names = sorted(set(labels))
    if len(names) < 2:
        raise ValueError("two different labels are needed")
    index = {name: position for position, name in enumerate(names)}
    codes = np.array([index[label] for label in labels])
    vectors = _vectors(texts)
    rng = np.random.default_rng(seed)
    compared = np.sort(rng.permutation(len(texts))[:MOST_COMPARED])
    tickets: list[Ticket] = []
    for start in range(0, len(texts), _BLOCK):
        similar = vectors[start : start + _BLOCK] @ vectors[compared].T
        for offset, row in enumerate(similar):
            position = start + offset
            row[compared == position] = -1.0
            difficulty, rival = _disagreement(row, codes[compared], int(codes[position]), len(names))
            day = FIRST_DAY + datetime.timedelta(days=position // TICKETS_A_DAY)
            tickets.append(
                Ticket(
                    text=texts[position],
                    truth=labels[position],
                    difficulty=difficulty,
                    rival=names[rival],
                    kind="labelled",
                    day=day.isoformat(),
                )
            )
    return tickets


def _disagreement(similarity: Matrix, codes: npt.NDArray[np.int_], own: int, count: int) -> tuple[float, int]:
    """The weighted share of the nearest rows with another label than `own`, and the label of most weight among them."""
    near = np.argsort(-similarity, kind="stable")[:NEIGHBOURS]
    weights = np.bincount(codes[near], weights=np.maximum(similarity[near], 0) + 1e-6, minlength=count)
    difficulty = 1 - float(weights[own]) / float(weights.sum())
    weights[own] = -1.0
    if weights.max() <= 0:  # all agree: the label of the most similar row that differs, if any was compared
        others = np.flatnonzero(codes != own)
        rival = int(codes[others[np.argmax(similarity[others])]]) if len(others) else (own + 1) % count
        return difficulty, rival
    return difficulty, int(np.argmax(weights))


def _vectors(texts: Sequence[str]) -> Matrix:
    """Unit vectors, (texts, 512): words and neighbouring pairs, weighted by rarity, hashed with a sign."""
    counted = [_features(text) for text in texts]
    seen = Counter(feature for features in counted for feature in features)
    hashed = {feature: zlib.crc32(feature.encode("utf-8", "replace")) for feature in seen}
    vectors = np.zeros((len(texts), DIMENSIONS), dtype=np.float32)
    for row, features in zip(vectors, counted, strict=True):
        for feature, times in features.items():
            code = hashed[feature]
            weight = (1 + math.log(times)) * math.log((1 + len(texts)) / seen[feature])
            row[code % DIMENSIONS] += weight if code & 0x8000_0000 else -weight
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    norms[norms == 0] = 1
    vectors /= norms
    return vectors


def _features(text: str) -> Counter[str]:
    words = _WORD.findall(text.lower())
    return Counter(words + [f"{left} {right}" for left, right in itertools.pairwise(words)])
