"""What all tests share."""

from __future__ import annotations

import os

# Commands that tests run search the rungs that take seconds; tests of an encoder ask for it (`--recipe encoder`).
os.environ.setdefault("SUFFICE_FAMILIES", "linear")
