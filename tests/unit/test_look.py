"""What counts as the same look at calibration, which labels may go on with at no price, and what as another."""

from __future__ import annotations

from pathlib import Path

from suffice.core.types import Example, Policy
from suffice.learn.curate import Curated
from suffice.learn.pipeline import Settings, _Run
from suffice.store.home import Home

PLACES = {f"e{i}": "calibration" if i >= 6 else "tune" if i >= 4 else "train" for i in range(10)}


def looked(tmp_path: Path, *labelled: int, wrong: int = 9, answer: str = "a") -> str:
    """Rows 0 to 9, of which the frontier got row `wrong` wrong; some have a trusted answer."""
    found = [
        Example(
            id=f"e{i}", input=f"x{i}", output="b" if i == wrong else "a", has_output=True,
            reference=answer if i in labelled else None, has_reference=i in labelled,
        )
        for i in range(10)
    ]  # fmt: skip
    curated = Curated(examples=tuple(found), prompt=None, short_form=True, arguments={}, dropped={})
    run = _Run(Home(tmp_path / "home"), "t", Settings(policy=Policy()), lambda: 0.0, curated, b"")
    return run.look(PLACES)


def test_a_label_of_calibration_goes_on_with_a_look(tmp_path: Path) -> None:
    assert looked(tmp_path, 0, 1, 6) == looked(tmp_path, 0, 1, 6, 7, 9)


def test_a_label_that_trains_is_another_look(tmp_path: Path) -> None:
    assert looked(tmp_path, 0, 1, 6) != looked(tmp_path, 0, 1, 2, 6)


def test_labels_that_make_the_promise_absolute_are_another_look(tmp_path: Path) -> None:
    """Where calibration alone is disputed: betting on net losses until the last label, then the binomial on errors."""
    assert looked(tmp_path, *range(9)) != looked(tmp_path, *range(10))


def test_the_last_label_of_a_file_in_dispute_goes_on_with_a_look(tmp_path: Path) -> None:
    assert looked(tmp_path, *range(9), wrong=0) == looked(tmp_path, *range(10), wrong=0)
