"""Planted material: known rules bloated by neutral and scale-equivalent rewrites must come back as short.

    python benchmarks/simplify.py [--quick] [--json] [--cases 240] [--seed 20000] [--limit 10]

Each case takes a known rule at random and adds 10 to 30 nodes (sugar expanded) that change nothing, or
the update by a positive factor. The judge is the float64 reference on streams that play no part in
acceptance; it shares no code with `verify`. A case whose material was not neutral (0 / 0 at the first
step) by that judge is drawn again and counted.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ruleforge.core.known import KNOWN
from ruleforge.simplify import simplify
from tests.simplify.material import disagreement, grown

WRONG = 0.003  # share of points that rounding may decide
LEAST, MOST = 10, 30
GIVE_UP = 3  # draws a case


def run(cases: int, seed: int, limit_s: float, budget_s: float, say: object = None) -> dict[str, object]:
    """Simplify the cases; a record of what came of them."""
    names = list(KNOWN)
    rows: list[dict[str, object]] = []
    drawn = not_neutral = 0
    ends = time.monotonic() + budget_s
    while len(rows) < cases and drawn < GIVE_UP * cases and time.monotonic() < ends:
        here = seed + drawn
        drawn += 1
        rng = random.Random(here)
        name = rng.choice(names)
        original = KNOWN[name].rule.rule
        longer = grown(original, rng, LEAST, MOST)
        if disagreement(original, longer, scaled=True, seed=here) > WRONG:
            not_neutral += 1
            continue
        begun = time.perf_counter()
        found = simplify(longer, time_limit_s=limit_s)
        wall_s = time.perf_counter() - begun
        off = disagreement(original, found.after.rule, scaled=True, seed=here + 1)
        rows.append(
            {
                "seed": here, "rule": name, "original": original.nodes, "bloated": longer.nodes,
                "simplified": found.after.rule.nodes, "wall_s": wall_s, "wrong": off > WRONG,
                "notes": list(found.notes), "text": str(found.after),
            }
        )  # fmt: skip
        if callable(say):
            say(len(rows), cases)
    walls = [float(row["wall_s"]) for row in rows]  # type: ignore[arg-type]
    back = [row for row in rows if row["simplified"] <= row["original"]]  # type: ignore[operator]
    return {
        "cases": len(rows),
        "rules": len({row["rule"] for row in rows}),
        "not_neutral": not_neutral,
        "returned": len(back),
        "returned_share": len(back) / len(rows),
        "shorter_than_the_original": sum(row["simplified"] < row["original"] for row in rows),  # type: ignore[operator]
        "wrong": sum(bool(row["wrong"]) for row in rows),
        "median_s": statistics.median(walls),
        "p90_s": sorted(walls)[int(0.9 * (len(walls) - 1))],
        "longest_s": max(walls),
        "not_returned": [row for row in rows if row not in back],
        "wrong_cases": [row for row in rows if row["wrong"]],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="30 cases")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--cases", type=int, default=240)
    parser.add_argument("--seed", type=int, default=20_000)
    parser.add_argument("--limit", type=float, default=10.0, help="time limit of a simplification, seconds")
    parser.add_argument("--budget", type=float, default=1e9, help="seconds after which no new case begins")
    args = parser.parse_args()
    cases = 30 if args.quick else args.cases

    def say(done: int, total: int) -> None:
        if done % 20 == 0:
            print(f"{done} of {total}", file=sys.stderr, flush=True)

    record = run(cases, args.seed, args.limit, args.budget, say)
    if args.json:
        print(json.dumps(record, indent=2))
        return
    r = record
    print(f"cases {r['cases']} of {r['rules']} rules; {r['not_neutral']} drawn again")
    print(f"back to the original's length or shorter: {r['returned']} ({r['returned_share']:.1%})")
    print(f"of these shorter than the original: {r['shorter_than_the_original']}")
    print(f"wrong: {r['wrong']}")
    print(f"seconds: median {r['median_s']:.2f}, 90 % {r['p90_s']:.2f}, longest {r['longest_s']:.1f}")
    for row in r["not_returned"]:  # type: ignore[attr-defined]
        lengths = f"{row['original']} -> {row['bloated']} -> {row['simplified']}"
        print(f"  {row['rule']} (seed {row['seed']}): {lengths}")


if __name__ == "__main__":
    main()
