"""How many more examples a wish needs, from figures alone."""

from __future__ import annotations

import pytest

from suffice.core.types import Policy
from suffice.learn.wishes import Basis, more_examples, wished

BASIS = Basis(kind="binary", units=450, examples=3000)
DOCUMENT = {
    "calibration": {"kind": "binary", "units": 450, "examples": 3000, "grouped": False, "fullness": 1.0},
    "tune_curve": [{"coverage": c, "loss": loss} for c, loss in ((0.3, 0.0), (0.6, 0.004), (0.9, 0.02))],
}


def test_a_smaller_error_and_a_rarer_slice_need_more() -> None:
    def more(rate: float, eps: float, share: float = 1.0) -> int:
        found = more_examples(rate, eps, 0.025, BASIS, share)
        assert found is not None
        return found

    assert more(0.0, 0.02) == 0  # 183 units would do
    assert 0 < more(0.004, 0.01) < more(0.006, 0.01) < more(0.006, 0.01, share=0.5)
    assert more_examples(0.02, 0.02, 0.025, BASIS) is None
    assert more_examples(0.0199999, 0.02, 0.025, BASIS) is None  # beyond anyone's reach
    assert more_examples(-0.01, 0.02, 0.025, Basis(kind="signed", units=1000, examples=7000)) == 0


def test_groups_that_are_half_empty_need_twice_as_many() -> None:
    full = Basis(kind="graded", units=300, examples=2000, grouped=True)
    half = Basis(kind="graded", units=300, examples=2000, grouped=True, fullness=0.5)
    assert half.worth == 150
    assert (more_examples(0.0, 0.01, 0.025, half) or 0) > 2 * (more_examples(0.0, 0.01, 0.025, full) or 0)


@pytest.mark.parametrize(
    ("max_error", "coverage", "says"),
    [
        (0.02, 0.3, "as many examples as there are may do"),
        (0.01, 0.5, "a coverage of 50% at max_error = 1%: about "),
        (0.01, 0.85, "more labels alone will not help"),
        (0.05, 0.95, "out of reach: only 90%"),
    ],
)
def test_a_wish_in_words(max_error: float, coverage: float, says: str) -> None:
    assert says in wished(DOCUMENT, Policy(max_error=max_error), coverage, 2).told


def test_a_wish_without_a_run_behind_it_is_not_guessed_at() -> None:
    assert "not known" in wished({"tune_curve": [], "calibration": None}, Policy(), 0.5, 1).told
    with pytest.raises(ValueError, match="share"):
        wished(DOCUMENT, Policy(), 1.5, 1)
