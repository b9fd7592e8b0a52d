"""Errors a user can act on. Each says in one sentence what is wrong and where."""

from __future__ import annotations


class SufficeError(Exception):
    """Something the user can mend. `str()` is the one sentence that is shown."""


class InputError(SufficeError):
    """Input that cannot be used: a file, a request, an option or a configuration (exit 2, HTTP 400)."""


class StoreError(SufficeError):
    """The home cannot be read or written: disk full, locked by another server, made by a newer version."""


class ArtefactError(SufficeError):
    """A release's files are missing, corrupt or not the ones its digest names."""


class LeakError(AssertionError):
    """The same example in two splits: a programming error, never a user's. Nothing is certified."""


class BudgetSpent(SufficeError):
    """The time for a search is over; raised by its `progress`, so that a long fit ends where it stands."""
