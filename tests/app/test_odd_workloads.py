"""A search of which some workloads are of no use: they are named, with the reason, and the rest goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from ruleforge.app.config import parse_config
from ruleforge.app.progress import QuietProgress
from ruleforge.app.run import run_search
from ruleforge.store import Store
from tests.app.test_compare import TASKS
from tests.app.test_search_runs import SMALL


class Listening(QuietProgress):
    def __init__(self) -> None:
        self.said: list[str] = []

    def message(self, text: str) -> None:
        self.said.append(text)


@pytest.mark.slow
def test_workloads_of_no_use_are_left_out_of_a_search_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "odd.py").write_text(TASKS)
    names = ["odd.py:fine", "odd.py:nan_later", "odd.py:flat", "odd.py:nan_metric"]
    training = {key: value for key, value in SMALL["training"].items() if key != "batch_size"}
    rungs = [{"steps": 6, "lrs": 2, "workloads": 3, "promote": 0.5}]
    small = parse_config(
        {
            **SMALL,
            "search": {
                **SMALL["search"],
                "generations": 2,
                "validate_every": 0,
                "confirm": 0,
                "finalists": 1,
            },
            "training": {**training, "workloads": names, "rungs": rungs, "steps": 16},
        },
        folder=tmp_path,
    )
    heard = Listening()
    report = run_search(small, out=tmp_path / "run", workers=1, progress=heard)
    assert "left out: odd.py:nan_later: every baseline diverges at every learning rate" in heard.said
    assert "left out: odd.py:flat: no baseline gets below the loss it starts from" in heard.said
    assert report["champion"]
    with Store.open(tmp_path / "run", readonly=True) as store:
        assert store.check() == []
