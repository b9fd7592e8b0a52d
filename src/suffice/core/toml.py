"""TOML files that people write."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from suffice.core.errors import InputError


def read(path: Path) -> dict[str, Any]:
    """What a file holds. Raises InputError naming the file, where it cannot be read or is not TOML."""
    try:
        return tomllib.loads(path.read_text("utf-8-sig"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not TOML: {error}") from error


def known(key: str, names: Sequence[str], place: str) -> None:
    """Raises InputError that suggests the right name, if a key is none of these."""
    if key not in names:
        close = difflib.get_close_matches(key, names, n=1)
        hint = f"; did you mean `{close[0]}`?" if close else f"; known: {', '.join(names)}"
        raise InputError(f"{place}: unknown key `{key}`{hint}")
