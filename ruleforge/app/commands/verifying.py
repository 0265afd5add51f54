"""`verify`: whether two rules do the same, and where they do not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ruleforge.app.commands.options import json_option

if TYPE_CHECKING:
    from ruleforge.core.text import RuleText
    from ruleforge.simplify.verify import Verdict

RELATIONS = ("equal", "scale", "warm-up", "small-eps", "hypers")


@click.command()
@click.argument("first")
@click.argument("second")
@click.option(
    "--relation", type=click.Choice(RELATIONS), help="Ask for this one; else from the strictest down."
)
@click.option("--scaled", is_flag=True, help="Up to a positive factor besides.")
@click.option("--after", type=click.IntRange(0, 100_000), help="warm-up: steps to ignore.")
@click.option("--set", "given", multiple=True, metavar="NAME=VALUE", help="hypers: of the second rule.")
@click.option("--steps", type=click.IntRange(20, 10_000), default=40, show_default=True, help="Horizon.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the streams.")
@json_option
def verify(
    first: str, second: str, relation: str | None, scaled: bool, after: int | None, given: tuple[str, ...],
    steps: int, seed: int, as_json: bool,
) -> None:  # fmt: skip
    """Say how two rules differ; FIRST defines what is right.

    Gradients of scales from 1e-8 to 1e8, sparse, flipping, with runs of zeros, heavy tails and outliers,
    constant, near the smallest numbers; in float64, then in float32.
    """
    from ruleforge.app.display import print_json, print_table, say
    from ruleforge.app.targets import resolve_target
    from ruleforge.simplify.relations import in_float32, strictest
    from ruleforge.simplify.verify import verify as measure

    a, b = resolve_target(first).text, resolve_target(second).text
    if relation is None and given:
        relation = "hypers"
    if relation is None and after is not None:
        relation = "warm-up"
    if relation is None:
        verdicts = strictest(a.rule, b.rule, seed=seed)
    else:
        hypers = _values(b, given) if given else None
        name: Any = relation.replace("-", "_")
        verdicts = [
            measure(
                a.rule,
                b.rule,
                relation=name,
                scaled=scaled,
                after=after,
                hypers=hypers,
                seed=seed,
                steps=steps,
            )
        ]
    last = verdicts[-1]
    single = None
    if last.holds and last.relation in ("equal", "scale"):
        single = in_float32(a.rule, b.rule, scale=last.scale, seed=seed)
    if as_json:
        record = {
            "holds": last.holds,
            "relation": last.relation if last.holds else None,
            "verdicts": [_record(v, b) for v in verdicts],
            "float32": _record(single, b) if single is not None else None,
        }
        print_json(record)
        return
    rows = [(_words(v, b), "holds" if v.holds else "no", _evidence(v, a)) for v in verdicts]
    if single is not None:
        rows.append(("as good in float32", "holds" if single.holds else "no", _evidence(single, a)))
    print_table(("relation", "", "evidence"), rows)
    shown = next((v.counter_example for v in verdicts if v.counter_example is not None), None)
    if not last.holds:
        say("no relation holds" if relation is None else "it does not hold")
    if shown is not None and not verdicts[0].holds:
        say(f"counter-example: {shown}")


def _values(text: RuleText, given: tuple[str, ...]) -> dict[int, float]:
    from ruleforge.errors import InputError
    from ruleforge.words import did_you_mean

    values = {}
    for each in given:
        name, _, number = each.partition("=")
        if name not in text.hypers:
            hint = did_you_mean(name, text.hypers, f"it has {', '.join(text.hypers) or 'none'}")
            raise InputError(f"--set: the second rule has no hyperparameter {name!r}", hint=hint)
        try:
            values[text.hypers.index(name)] = float(number)
        except ValueError:
            raise InputError(f"--set: {number!r} is no number", hint=f"write --set {name}=0.9") from None
    return values


def _words(verdict: Verdict, second: RuleText) -> str:
    from ruleforge.simplify.relations import NAMES

    words = NAMES[verdict.relation]
    if verdict.holds and verdict.relation == "warm_up":
        words = f"equal after {verdict.after} steps"
    if verdict.holds and verdict.relation == "hypers":
        pairs = zip(second.hypers, verdict.hypers, strict=True)
        words = f"equal at {', '.join(f'{name} = {value:g}' for name, value in pairs)}"
    if verdict.relation not in ("equal", "scale") and verdict.scaled:
        words += ", up to a positive scale"
    return words


def _evidence(verdict: Verdict, first: RuleText) -> str:
    if not verdict.holds:
        return verdict.reason
    words = f"{verdict.compared:,} points"
    if verdict.max_error:
        words += f", largest difference {verdict.max_error:.1g}"
    if verdict.scale != 1:
        words += f", factor {verdict.scale:.6g}"
    if verdict.excused:
        words += f", {verdict.excused} left to rounding"
    return words


def _record(verdict: Verdict, second: RuleText) -> dict[str, Any]:
    example = verdict.counter_example
    return {
        "relation": verdict.relation,
        "scaled": verdict.scaled,
        "holds": verdict.holds,
        "scale": verdict.scale,
        "max_error": verdict.max_error,
        "compared": verdict.compared,
        "excused": verdict.excused,
        "reason": verdict.reason,
        "after": verdict.after,
        "hypers": dict(zip(second.hypers, verdict.hypers, strict=True)) if verdict.hypers else None,
        "counter_example": None
        if example is None
        else {
            "stream": example.stream,
            "step": example.step,
            "element": example.element,
            "first": _finite(example.first),
            "second": _finite(example.second),
        },
    }


def _finite(value: float) -> float | None:
    return value if abs(value) < float("inf") else None


COMMANDS = (verify,)
