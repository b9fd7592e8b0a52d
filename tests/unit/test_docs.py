"""The docs follow the code: generated pages are fresh, links lead somewhere, every setting is told."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import msgspec
import pytest

from suffice.core import config
from suffice.core.types import Reason

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def _generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_pages_are_fresh() -> None:
    for name, write in _generate().GENERATED.items():
        assert (ROOT / "docs" / name).read_text("utf-8") == write(), f"run `python docs/generate.py`: {name} is stale"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text("utf-8")):
        if not target.startswith(("http://", "https://", "mailto:")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def _keys(kind: type[msgspec.Struct]) -> set[str]:
    return set(kind.__struct_fields__)


def test_every_setting_is_told() -> None:
    told = (ROOT / "docs" / "configuration.md").read_text("utf-8")
    kinds = (
        *(config.Upstream, config.Match, config.TaskConfig, config.Server, config.Records, config.Alerts, config.Log),
        config.Privacy,
        *(config.Price, config.Access, config.CandidateModel, config.RuntimeServer, config.Learn),
    )
    missing = {key for kind in kinds for key in _keys(kind) if f"`{key}`" not in told}
    assert not missing, f"docs/configuration.md does not tell: {', '.join(sorted(missing))}"


def test_every_reason_is_told() -> None:
    told = (ROOT / "docs" / "http.md").read_text("utf-8")
    assert not [reason for reason in Reason if f"`{reason}`" not in told]
