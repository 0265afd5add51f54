"""No search touches a held-out or sealed workload: not while it searches, validates, resumes or ends."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ruleforge.app import run as runs
from ruleforge.app.progress import QuietProgress
from ruleforge.app.run import resume_run, run_search
from ruleforge.tasks import SEALED, SUITES, WORKLOADS, Workload, sealed
from tests.app.test_search_runs import Interrupting, config

KEPT = ("held_out", SEALED)


@pytest.fixture
def touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[set[str]]:
    """The suites whose data or sources anyone asks for; a sealed suite exists meanwhile."""
    seen: set[str] = set()
    data, digest = Workload.data, Workload.source_hash

    def recording_data(self: Workload, seed: int, n_steps: int) -> object:
        seen.add(self.suite)
        return data(self, seed, n_steps)

    def recording_hash(self: Workload) -> str:
        seen.add(self.suite)
        return digest(self)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(sealed, "SEAL", tmp_path / "sealed.json")
    sealed.SEAL.write_text('{"seed": 5}')
    monkeypatch.setattr(sealed, "_made", lambda seed: pytest.fail("the sealed suite was made"))
    monkeypatch.setattr(Workload, "data", recording_data)
    monkeypatch.setattr(Workload, "source_hash", recording_hash)
    yield seen


@pytest.mark.slow
def test_a_search_its_looks_at_validation_its_resumption_and_its_final_touch_two_suites(
    tmp_path: Path, touched: set[str]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_search(config(), out=tmp_path / "run", workers=1, progress=Interrupting(after=1))
    assert touched and touched.isdisjoint(KEPT)
    report = resume_run(tmp_path / "run", workers=1, progress=QuietProgress())
    assert report
    assert touched == {"search", "validation"}


@pytest.mark.slow
def test_the_guard_sees_a_search_that_looks_at_the_held_out_suite(
    tmp_path: Path, touched: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at = tuple(WORKLOADS[name] for name in SUITES["held_out"][:2])
    monkeypatch.setattr(runs, "load_validation_workloads", lambda config: looked_at)
    run_search(
        config(generations=1, validate_every=0), out=tmp_path / "run", workers=1, progress=QuietProgress()
    )
    assert "held_out" in touched


@pytest.mark.parametrize("where", ["suite", "validation_suite"])
def test_a_run_whose_recorded_config_was_changed_to_look_is_not_resumed(tmp_path: Path, where: str) -> None:
    from ruleforge.app.config import parse_config, resolved_toml
    from ruleforge.errors import ConfigError

    text = resolved_toml(parse_config(""))
    changed = text.replace(
        f'{where} = "{"search" if where == "suite" else "validation"}"', f'{where} = "held_out"'
    )
    assert changed != text
    with pytest.raises(ConfigError, match="never used by a search"):
        parse_config(changed)
