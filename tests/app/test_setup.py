"""What a config says reaches the run: limits of candidates, and seeds that are never used twice."""

from __future__ import annotations

from itertools import combinations

import pytest

from ruleforge.app.compare import comparison_protocol
from ruleforge.app.config import load_workloads, parse_config
from ruleforge.app.setup import final_protocol, rung_protocols
from ruleforge.errors import InputError
from ruleforge.evaluate.funnel import Limits

MOST_SEEDS = 1000


def test_the_configs_limits_are_those_of_candidates() -> None:
    text = "[limits]\nnodes = 9\nstates = 1\nflops_per_weight = 7.5\nbytes_per_weight = 24\nscale_free = true"
    assert parse_config(text).limits.static == Limits(9, 1, 7.5, 24, scale_free=True)


def test_a_rung_trains_as_the_config_says() -> None:
    config = parse_config(
        "[training]\nworkloads = ['digits_mlp']\n"
        "[[training.rungs]]\nsteps = 9\nlrs = 9\nrefine = true\nseeds = 2\nschedule = 'warmup_cosine'"
    )
    (_, low, _), (_, full, _) = rung_protocols(config, load_workloads(config))
    assert (low.schedules, low.n_steps, low.refine, len(low.score_seeds)) == (("warmup_cosine",), 9, True, 2)
    assert low.lrs == full.lrs and low.n_lanes == 4 + 2 + 2


def test_without_a_full_rung_the_ladder_ends_with_the_last_that_is_written() -> None:
    text = (
        "[training]\nworkloads = ['digits_mlp']\nfull_rung = false\n[[training.rungs]]\nsteps = 9\nseeds = 1"
    )
    config = parse_config(text)
    ((_, only, _),) = rung_protocols(config, load_workloads(config))
    assert only.n_steps == 9
    with pytest.raises(InputError, match="no rule is trained"):
        parse_config("[training]\nworkloads = ['digits_mlp']\nfull_rung = false\nrungs = []")


def test_no_seed_that_chose_a_setting_or_a_champion_scores_it() -> None:
    """However many seeds a config asks for: tuning, search, final and comparison are apart."""
    config = parse_config(
        f"[training]\nworkloads = ['digits_mlp']\nseeds = {MOST_SEEDS}\nscore_seeds = {MOST_SEEDS}\n"
        f"[[training.rungs]]\nsteps = 9\nseeds = {MOST_SEEDS}"
    )
    *rungs, (_, full, _) = rung_protocols(config, load_workloads(config))
    final, comparison = final_protocol(config), comparison_protocol(MOST_SEEDS)
    low = {seed for _, protocol, _ in rungs for seed in protocol.score_seeds}
    tuning = {seed for protocol in (full, final, comparison) for seed in protocol.tune_seeds}
    scoring = [set(protocol.score_seeds) for protocol in (full, final, comparison)]
    assert [len(each) for each in scoring] == [MOST_SEEDS] * 3
    assert low and all(not (a & b) for a, b in combinations([tuning, low, *scoring], 2))
