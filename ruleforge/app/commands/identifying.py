"""`identify`: the update rule of any torch optimizer, from its behaviour."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ruleforge.app.commands.options import json_option, quiet_option

if TYPE_CHECKING:
    from ruleforge.identify.identify import Identified


@click.command()
@click.argument("optimizer", metavar="FILE.py:CLASS")
@click.option("--kwargs", "kwargs_text", default="{}", help="Arguments of the class, as JSON.")
@click.option("--time-limit", type=click.FloatRange(min=5), default=110.0, show_default=True, help="Seconds.")
@click.option("--no-known", is_flag=True, help="Do not try the known rules; compose and evolve forms.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the rule to this .rule file.")
@click.option("--force", is_flag=True, help="Overwrite.")
@quiet_option
@json_option
def identify(
    optimizer: str, kwargs_text: str, time_limit: float, no_known: bool, output: Path | None, force: bool,
    quiet: bool, as_json: bool,
) -> None:  # fmt: skip
    """Recover the rule of a torch optimizer from its behaviour.

    This runs the file: name only one that you trust. It runs in a process of its own, as you.
    """
    import json

    from ruleforge.app.commands.files import check_new, write_new
    from ruleforge.app.display import print_json, remark
    from ruleforge.errors import InputError
    from ruleforge.identify.black_box import check_place
    from ruleforge.identify.identify import identify as recover

    try:
        kwargs = json.loads(kwargs_text)
    except json.JSONDecodeError as error:
        raise InputError(f"--kwargs is no JSON: {error}", hint="such as --kwargs '{\"lr\": 0.01}'") from None
    if not isinstance(kwargs, dict):
        raise InputError("--kwargs is no JSON object", hint="such as --kwargs '{\"lr\": 0.01}'")
    if output is not None:
        check_new(output, suffix=".rule", force=force)
    check_place(optimizer)
    remark(f"This runs {optimizer.rpartition(':')[0]}, with your rights, in a process of its own.")
    tell = (lambda text: None) if quiet else remark
    found = recover(optimizer, kwargs, time_limit_s=time_limit, use_known=not no_known, note=tell)
    if output is not None:
        write_new(output, str(found.text), suffix=".rule", force=force)
    if as_json:
        print_json(found.as_json())
    else:
        _print(found)
    if output is not None:
        remark(f"wrote {output}")


def _print(found: Identified) -> None:
    from ruleforge.app.display import indented, print_facts, remark, say

    say(indented(str(found.text)))
    say()
    seen = found.seen
    decay = f", and decoupled weight decay of {found.weight_decay:.6g}" if found.weight_decay else ""
    times = f", times {found.factor:.6g}" if found.relation == "exact up to scale" else ""
    verdict = {
        "exact": "it answers as the optimizer does",
        "exact up to scale": "it answers as the optimizer does",
        "closest form": f"the closest form found; it misses the updates by {100 * found.residual:.3g} %",
    }[found.relation]
    facts = {
        "result": f"{verdict}{times}{decay}",
        "known as": found.known_as or "—",
        "found by": found.stage,
        "residual": f"{found.residual:.2g} on streams that the fit never saw",
        "probing": "; ".join(_probed(seen)),
        "states": ", ".join(f"{name} {tuple(shape)}" for name, shape in seen.states.items()) or "none seen",
        "time": f"{found.wall_s:.0f} s",
    }
    print_facts(facts)
    for text in found.notes:
        remark(f"note: {text}")


def _probed(seen: object) -> list[str]:
    from ruleforge.identify.black_box import Seen

    assert isinstance(seen, Seen)
    words = [f"lr {seen.lr:g}", "elementwise" if seen.is_elementwise else "elements meet"]
    words.append("no scale degree" if seen.scale_degree is None else f"scale degree {seen.scale_degree:g}")
    words.append("odd" if seen.is_odd else "not odd")
    words.append("reads weights" if seen.reads_weights else "does not read weights")
    return words


COMMANDS = (identify,)
