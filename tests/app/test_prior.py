"""Learning from an earlier run: what comes out, that it is written into the config, and bad folders."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from ruleforge.app.config import parse_config, resolved_toml
from ruleforge.app.prior import LARGEST, learned_weights, parts
from ruleforge.app.setup import search_strategy
from ruleforge.core.known import known
from ruleforge.core.text import parse
from ruleforge.errors import ConfigError, InputError
from ruleforge.records import CandidateRow, FitnessRow, GenerationRow
from ruleforge.search.children import child_rng, random_child
from ruleforge.search.genome import from_rule, to_rule, to_text
from ruleforge.search.grammar import load_grammar
from ruleforge.search.vocabulary import Vocabulary
from ruleforge.store import Store


def make_run(folder: Path, n: int = 80) -> Path:
    """Random rules in generation 0; those that hold a sign are better."""
    vocabulary = Vocabulary(load_grammar("full"))
    rows, fits, seen = [], [], set()
    for k in range(n):
        genome = random_child(child_rng(1, 0, k), vocabulary).genome
        rule = to_rule(genome)
        if rule.full_key in seen:
            continue
        seen.add(rule.full_key)
        rows.append(
            CandidateRow(
                id=k, key=rule.key, full_key=rule.full_key, text="update = g\n", genome=to_text(genome),
                nodes=rule.nodes, states=rule.slots, generation=0, origin="random", status="trained",
            )
        )  # fmt: skip
        fits.append(FitnessRow(k, 0, "speedup_vs_oracle", 2.0 if "sign" in parts(to_text(genome)) else 1.0))
    with Store.create(folder, config_text="", meta={}) as store:
        store.commit_generation(GenerationRow(0, (), {}, {}), rows, (), (), fits)
    return folder


def test_parts_are_named_as_a_grammar_names_them() -> None:
    found = parts(to_text(from_rule(known("adam").rule.rule)))
    assert {"div", "sqrt", "ema_hat", "g", "beta", "eps"} <= found
    assert found <= {
        *load_grammar("full").op_names,
        *load_grammar("full").sugar_names,
        "g",
        "beta",
        "eps",
        "scale",
    }


def test_what_survivors_hold_more_often_is_favoured(tmp_path: Path) -> None:
    weights = learned_weights(make_run(tmp_path / "run"))
    assert weights["sign"] > 1.5 and weights["sign"] == max(weights.values())
    assert all(1 / LARGEST - 1e-3 <= value <= LARGEST for value in weights.values())
    assert learned_weights(tmp_path / "run") == weights


def test_what_is_favoured_is_measured_against_draws_before_any_selection(tmp_path: Path) -> None:
    weights = learned_weights(make_run(tmp_path / "run"))
    signs = []
    for k in range(40):
        rule = parse(f"update = sign(g) * {k + 2}\n").rule
        signs.append(
            CandidateRow(
                id=1000 + k, key=rule.key, full_key=rule.full_key, text="update = g\n",
                genome=to_text(from_rule(rule)), nodes=rule.nodes, states=0, generation=1,
                origin="constant", status="rejected",
            )
        )  # fmt: skip
    with Store.open(tmp_path / "run") as store:
        store.commit_generation(GenerationRow(1, (), {}, {}), signs)
    assert learned_weights(tmp_path / "run") == weights


def test_a_config_spells_out_what_it_learned(tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    config = parse_config('[search]\nprior = "run"\nstrategy = "random"', folder=tmp_path)
    assert config.search.prior is not None and config.search.prior.name == "run"
    text = resolved_toml(config)
    (tmp_path / "run" / "run.db").unlink()
    again = parse_config(text)  # without the run
    assert again.search.prior == config.search.prior
    plain = parse_config('[search]\nstrategy = "random"', folder=tmp_path)
    learned, control = search_strategy(again), search_strategy(plain)
    assert [p.rule.key for p in learned.ask(0)] != [p.rule.key for p in control.ask(0)]


def test_folders_that_teach_nothing_are_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="too few to learn from") as caught:
        make_run(tmp_path / "few", 4)
        parse_config('[search]\nprior = "few"', folder=tmp_path)
    assert caught.value.exit_code == 2
    folder = make_run(tmp_path / "odd")
    with sqlite3.connect(folder / "run.db") as database:
        database.execute("DROP TRIGGER candidates_fixed_u")
        database.execute("UPDATE candidates SET genome = 'update tensor | __import__'")
    with pytest.raises(InputError, match="nothing can be learned"):
        parse_config('[search]\nprior = "odd"', folder=tmp_path)
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "run.db").write_text("no database")
    with pytest.raises(InputError, match="nothing can be learned"):
        parse_config('[search]\nprior = "text"', folder=tmp_path)
