"""What all tests share."""

from __future__ import annotations

import os
import signal

# Commands that tests run search the rungs that take seconds; tests of an encoder ask for it (`--recipe encoder`).
os.environ.setdefault("SUFFICE_FAMILIES", "linear")

# Numerical libraries on one thread: on models this small, threads wait for each other beside servers of other tests.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")

# A shell starts what runs behind it deaf to an interrupt, and commands that tests interrupt would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
