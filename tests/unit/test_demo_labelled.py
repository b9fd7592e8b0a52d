from pathlib import Path

import pytest

from suffice.core.errors import InputError
from suffice.demo.labelled import from_labelled, read
from suffice.demo.workload import frontier_answers, generate


def written(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_reads_json_lines_and_csv(tmp_path: Path) -> None:
    lines = '{"input": "a", "output": "x"}\n\n{"text": "b", "label": {"k": 1}}\n{"input": "c", "reference": 3}\n'
    assert read(written(tmp_path, "t.jsonl", lines)) == (["a", "b", "c"], ["x", '{"k":1}', "3"])
    table = '\ufefftext,label\n"two\nlines",x\nb,y\n'
    assert read(written(tmp_path, "t.csv", table)) == (["two\nlines", "b"], ["x", "y"])


def test_the_trusted_label_counts_before_the_frontiers(tmp_path: Path) -> None:
    lines = '{"input": "a", "output": "x", "reference": "y"}\n{"input": "b", "output": "x"}\n'
    assert read(written(tmp_path, "t.jsonl", lines))[1] == ["y", "x"]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("t.jsonl", '{"input": "a", "output": "x"}\nnope\n', "line 2: not JSON"),
        ("t.jsonl", '["a"]\n', "line 1: not a JSON object"),
        ("t.jsonl", '{"output": "x"}\n', "line 1: no text"),
        ("t.jsonl", '{"input": 5, "output": "x"}\n', "line 1: no text"),
        ("t.jsonl", '{"input": "a"}\n', "line 1: no label"),
        ("t.jsonl", '{"input": "a", "output": "x"}\n', "every one of the 1 rows"),
        ("t.jsonl", "", "no labelled text"),
        ("t.jsonl", b'{"input": "a", "output": "x"}\n\xff\xfe\n', "line 2: not UTF-8"),
        ("t.csv", "a,b\n1,2\n", "line 1: no column for the text"),
        ("t.csv", "text,b\n1,2\n", "line 1: no column for the label"),
        ("t.csv", "text,label\na,x,more\n", "line 2: more fields"),
        ("t.csv", "text,label\na\n", "line 2: no label"),
    ],
)
def test_bad_input_is_named_with_file_and_line(tmp_path: Path, name: str, content: str | bytes, says: str) -> None:
    path = written(tmp_path, name, content)
    with pytest.raises(InputError) as caught:
        read(path)
    assert str(path) in str(caught.value) and says in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read(tmp_path / "none.jsonl")


def test_hard_rows_are_estimated_hard_and_get_the_errors() -> None:
    known = generate(3000, 21)
    tickets = from_labelled([ticket.text for ticket in known], [ticket.truth for ticket in known], seed=1)
    assert [ticket.text for ticket in tickets] == [ticket.text for ticket in known]
    assert all(ticket.rival != ticket.truth and 0 <= ticket.difficulty <= 1 for ticket in tickets)
    guessed: dict[bool, list[float]] = {True: [], False: []}
    for estimate, truth in zip(tickets, known, strict=True):
        guessed[truth.difficulty >= 0.5].append(estimate.difficulty)
    hard, plain = (sum(guessed[key]) / len(guessed[key]) for key in (True, False))
    assert hard > plain + 0.15
    answers = frontier_answers(tickets, 1)
    wrong = [ticket.difficulty for ticket, said in zip(tickets, answers, strict=True) if said != ticket.truth]
    assert 0.03 < len(wrong) / len(tickets) < 0.055
    assert sum(wrong) / len(wrong) > sum(ticket.difficulty for ticket in tickets) / len(tickets)


def test_degenerate_rows_still_get_a_rival() -> None:
    tickets = from_labelled(["", "x", "x", "!!"], ["a", "a", "b", "b"])
    assert [ticket.rival for ticket in tickets] == ["b", "b", "a", "a"]
    with pytest.raises(ValueError, match="two different labels"):
        from_labelled(["x"], ["a"])
    with pytest.raises(ValueError, match="1 texts but 2 labels"):
        from_labelled(["x"], ["a", "b"])
