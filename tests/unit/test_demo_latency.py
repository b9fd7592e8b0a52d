import random
from pathlib import Path

import pytest

from suffice.core.errors import InputError
from suffice.demo.frontier import NO_LATENCY, Latency, main, read_answers


def test_latency_has_the_stated_median_and_tail() -> None:
    rng = random.Random(1)
    drawn = sorted(Latency(p50_ms=650, p99_ms=2000).draw_ms(rng) for _ in range(20_000))
    assert 630 < drawn[10_000] < 670
    assert 1850 < drawn[19_800] < 2150
    assert NO_LATENCY.draw_ms(rng) == 0


@pytest.mark.parametrize(
    "values", [{"p50_ms": -1}, {"p50_ms": 10, "p99_ms": 5}, {"first_share": 2}, {"speed": 0}, {"p50_ms": float("nan")}]
)
def test_latency_out_of_range_is_refused(values: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="is"):
        Latency(**values)


def test_answers_file(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text('{"text": "a", "answer": "x"}\n\n{"text": "a", "answer": "y"}\n')
    assert read_answers(path) == {"a": "x"}
    path.write_text('{"text": "a", "answer": "x"}\n{"text": "a"}\n')
    with pytest.raises(InputError, match="line 2"):
        read_answers(path)


def test_unusable_options_end_with_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answers = tmp_path / "answers.jsonl"
    assert main(["--answers", str(answers)]) == 2
    answers.write_text("")
    assert main(["--answers", str(answers), "--speed", "0"]) == 2
    assert main(["--answers", str(answers), "--port", "99999"]) == 2
    said = capsys.readouterr()
    assert said.out == "" and len(said.err.splitlines()) == 3
    assert all(line.startswith("simulated frontier: ") for line in said.err.splitlines())
