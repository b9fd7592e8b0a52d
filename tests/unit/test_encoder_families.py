"""When the encoder family takes part in a search, and what is said where it cannot."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from suffice.cli.check_command import command
from suffice.cli.families import allowed, no_encoder
from suffice.core.config import Learn
from suffice.core.errors import InputError

HERE = all(importlib.util.find_spec(name) for name in ("torch", "transformers", "onnx", "onnxruntime"))


@pytest.mark.skipif(not HERE, reason="the packages of the encoder family are not installed: make encoders")
def test_a_base_model_that_is_not_there_is_an_error_of_the_settings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match=r"\[learn\] encoder: .*nowhere is not a folder with a model"):
        allowed(Learn(encoder=str(tmp_path / "nowhere")), tmp_path)
    (tmp_path / "suffice.toml").write_text('[learn]\nencoder = "./nowhere"\n', encoding="utf-8")
    assert command.main(["--home", str(tmp_path), "--json"], standalone_mode=False) == 1
    checks = {check["name"]: check for check in json.loads(capsys.readouterr().out)["checks"]}
    assert not checks["encoder family"]["ok"] and "./nowhere" in checks["encoder family"]["detail"]


def test_the_encoder_family_takes_part_only_where_it_can_learn(tmp_path: Path) -> None:
    lacking = no_encoder(None)
    if lacking is None:
        (family,) = allowed(Learn(), tmp_path, "encoder")
        assert [recipe.name for recipe in family.recipes(0)] == ["encoder", "encoder(embedding=0.5,epochs=4)"]
        assert not list(tmp_path.iterdir())  # nothing is made before it is needed
    else:
        with pytest.raises(InputError, match=r"--recipe encoder: .*make encoders"):
            allowed(Learn(), tmp_path, "encoder")
    assert [family.name for family in allowed(Learn(families=("linear",)), tmp_path)] == ["linear"]
