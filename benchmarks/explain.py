"""Does `explain` name known rules, and does it leave new ones alone? `python benchmarks/explain.py`

Each known rule is given hyperparameters drawn at random inside its ranges and a positive factor, and is
written anew without names. Named rightly: the first match is exact and is that rule, or one of its other
names. Where the drawn setting makes a smaller known rule exactly right (Lion with equal betas is Signum) that
name counts, and is listed. A new rule is drawn from the grammar "full"; a false match is an exact one that
the checker of `simplify` does not confirm, or any lesser claim (close, after warm-up, where finite) that does
not hold on streams that played no part: to 1e-4, close ones to 5 %. Claims that do hold are listed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time

import numpy as np
import torch

from ruleforge.core import expr as ex
from ruleforge.core.format import name_rule
from ruleforge.core.known import KNOWN
from ruleforge.core.rule import Rule
from ruleforge.errors import RuleforgeError
from ruleforge.explain.catalogue import families, survey
from ruleforge.explain.fit import Target
from ruleforge.explain.nearest import CLOSE, WARM_UP, Match, nearest
from ruleforge.explain.traces import make_inputs, trace_rule
from ruleforge.search.children import child_rng, random_child
from ruleforge.search.grammar import load_grammar
from ruleforge.search.vocabulary import Vocabulary
from ruleforge.simplify.trajectories import hyper_settings
from ruleforge.simplify.verify import verify

UNSEEN_SEED = 77
CLAIMS = ("close", "after warm-up", "where finite")


def disguised(name: str, seed: int) -> Rule:
    """A known rule at random hyperparameters, times a random factor, with constants in their place."""
    rule = KNOWN[name].rule.rule
    rng = np.random.default_rng(np.random.SeedSequence((seed, *name.encode())))
    values = hyper_settings(rule.hypers, int(rng.integers(1 << 30)))[-1]
    values = tuple(float(f"{v:.6g}") for v in values)
    values = tuple(v if h.low < v < h.high else h.default for v, h in zip(values, rule.hypers, strict=True))
    factor = float(f"{10 ** rng.uniform(-2, 2):.4g}")
    scaled = Rule(ex.node("mul", ex.const(factor), rule.update), rule.states, rule.hypers)
    return name_rule(scaled.with_defaults(values)).rule


def holds(rule: Rule, match: Match) -> bool:
    """Whether a claim that is less than a name holds on streams that nothing was fitted to or checked on."""
    known = KNOWN[match.name].rule.rule
    after = WARM_UP if match.relation == "after warm-up" else 0
    target = Target(trace_rule(rule, make_inputs(UNSEEN_SEED)), after=after)
    found, _ = target.distances(target.answers(known, np.array([list(match.hypers.values())])))
    return bool(found[0] <= (CLOSE if match.relation == "close" else 1e-4))


def main() -> None:
    """Print the counts, and every case that went wrong."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--quick", action="store_true", help="a tenth of it")
    options.add_argument("--seeds", type=int, default=1)
    options.add_argument("--novel", type=int, default=50)
    options.add_argument("--new-alone", action="store_true", help="leave the known rules out")
    options.add_argument("--part", default="1/1", help="such as 2/4: every fourth case, from the second on")
    options.add_argument("--json", action="store_true")
    given = options.parse_args()
    torch.set_num_threads(1)
    survey()
    started = time.monotonic()
    right, smaller, wrong = 0, [], []
    part, parts = (int(number) for number in given.part.split("/"))
    cases = [(name, seed) for seed in range(given.seeds) for name in families()][part - 1 :: parts]
    for name, seed in [] if given.new_alone else cases[:: 10 if given.quick else 1]:
        print(f"{name}: {right} right, {len(smaller)} smaller, {len(wrong)} wrong", file=sys.stderr)
        rule = disguised(name, seed)
        try:
            best = nearest(rule, most=1)[0]
        except RuleforgeError as error:
            wrong.append(f"{name}: {error}")
            continue
        if best.is_exact and name in (best.name, *best.also):
            right += 1
        elif best.is_exact and len(best.hypers) < len(rule.hypers):
            smaller.append(f"{name} called {best}")
        else:
            wrong.append(f"{name} called {best}")
    vocabulary = Vocabulary(load_grammar("full"))
    false, claimed, drawn, number = [], [], 0, 1000 * part
    while drawn < given.novel // (10 if given.quick else parts):
        print(f"new rule {drawn}: {len(false)} false", file=sys.stderr)
        rule = random_child(child_rng(7, 0, number), vocabulary).rule
        number += 1
        try:
            best = nearest(rule, most=1)[0]
        except RuleforgeError:
            continue  # not finite on the streams: nothing to be told of it
        known = KNOWN[best.name].rule.rule
        known = known.with_defaults(tuple(best.hypers.values()))
        if best.is_exact and verify(known, rule, relation="scale"):
            continue  # it is no new rule
        drawn += 1
        told = f"{' ; '.join(str(name_rule(rule)).splitlines())}: {best}"
        if best.is_exact or (best.relation in CLAIMS and not holds(rule, best)):
            false.append(told)
        elif best.relation in CLAIMS:
            claimed.append(told)
    total = right + len(smaller) + len(wrong)
    record = {
        "known": total, "named": right, "named_as_smaller": smaller, "wrong": wrong,
        "novel": drawn, "false": false, "claims_that_hold": claimed, "wall_s": time.monotonic() - started,
    }  # fmt: skip
    if given.json:
        print(json.dumps(record, indent=2))
        return
    print(
        f"{right} of {total} known rules named, {len(smaller)} by a smaller rule's name, {len(wrong)} wrong"
    )
    print(
        f"{len(false)} false matches on {drawn} new rules, {len(claimed)} lesser claims that hold; "
        f"{record['wall_s']:.0f} s"
    )
    for line in (*smaller, *wrong, *false, *claimed):
        print("  ", line)


if __name__ == "__main__":
    main()
