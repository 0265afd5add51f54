"""The final tables of a search and of the baselines, drawn from the records that `--json` prints.

Knows the shapes of those records and nothing of how they came about.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ruleforge.app.display import indented, print_table, remark, say
from ruleforge.app.plain import format_count, format_interval, format_ratio, format_span
from ruleforge.app.progress import funnel_line
from ruleforge.app.provenance import left_out_in_words
from ruleforge.core.known import KNOWN

Record = Mapping[str, Any]

MOST_LOOKS = 8
REFERENCES = (("vs_best_single", "best single"), ("vs_oracle", "oracle"), ("vs_adam", "adam"))


def speedup_cell(summary: Record | float | None, *, with_interval: bool = False) -> str:
    """A speed-up and, where wanted, its 95 % interval: "×1.12 [0.98, 1.27]"."""
    if summary is None or isinstance(summary, int | float):
        return format_ratio(summary)
    cell = format_ratio(summary.get("speedup"))
    interval = summary.get("ci")
    if with_interval and interval:
        cell += f" {format_interval(interval)}"
    return cell


def _standing(record: Record, suite: str) -> list[str]:
    standing = (record.get("speedup") or {}).get(suite) or {}
    return [
        speedup_cell(standing.get(name), with_interval=name == "vs_best_single") for name, _ in REFERENCES
    ]


def _size(record: Record) -> tuple[Any, Any]:
    """Nodes and state slots; of a baseline that does not say, those of the known rule."""
    if record.get("nodes") is None and record.get("name") in KNOWN:
        rule = KNOWN[record["name"]].rule.rule
        return rule.nodes, rule.canonical.slots
    return record.get("nodes", ""), record.get("states", "")


def print_search(result: Record) -> None:
    """Champion, best new rule, finalists and baselines on both suites, and where all of it lies."""
    champion = result.get("champion")
    if not champion:
        say("The search ended without a champion: no rule reached the highest rung.")
    else:
        say(f"Champion: rule {champion.get('id')}, {champion.get('known_as') or 'new'}")
        say()
        simplified = champion.get("simplified") or {}
        say(indented(simplified.get("text") or champion["text"]))
        say()
        if simplified.get("steps"):
            relation = simplified.get("relation", "")
            say(f"Simplified from {champion['nodes']} to {simplified['nodes']} nodes ({relation}); as found:")
            say()
            say(indented(champion["text"]))
            say()
    best_new = result.get("best_new")
    if best_new and best_new.get("id") != (champion or {}).get("id"):
        say(f"Best rule without a name: rule {best_new.get('id')}")
        say()
        say(indented((best_new.get("simplified") or best_new)["text"]))
        say()
    labelled = [("champion", champion), ("best new", best_new)]
    finalists = result.get("front") or ()
    labelled += [("finalist", each) for each in finalists]
    named: dict[str, tuple[str, Record]] = {}
    for label, record in labelled:
        if record:
            named.setdefault(f"{record.get('id')}: {record.get('known_as') or 'new'}", (label, record))
    named |= {record["name"]: ("baseline", record) for record in result.get("baselines") or ()}
    numbers = ("nodes", "states", *(f"vs {words}" for _, words in REFERENCES))
    for suite in ("search", "validation"):
        best = (result.get("reference") or {}).get(suite)
        title = f"Speed-up on the {suite} suite" + (f"; best single baseline: {best}" if best else "")
        rows = [
            (label, name, *_size(record), *_standing(record, suite))
            for name, (label, record) in named.items()
        ]
        print_table(("", "rule", *numbers), rows, title=title, right=numbers)
        say()
    say("×1.30: the same loss in 1/1.30 of the steps, all tuned alike; in brackets the 95 % interval")
    if any((record.get("known_as") or "new") == "new" for _, record in labelled if record):
        say("new: no rule of the catalogue equals it, behaves like it, or has its form")
    if champion and len(finalists) > 1:
        say(f"The champion is the best of {len(finalists)} finalists here, which flatters its figures")
    for key in ("carries_over", "verdict"):
        if isinstance(result.get(key), str):
            say(result[key])
    if gap := result.get("gap"):
        say(gap["words"])
    if champion and (line := left_out_in_words(champion.get("id"), result.get("leave_one_out") or ())):
        say(f"The champion {line}")
    for line in _watch_lines(result.get("watch") or {}):
        say(line)
    if funnel := result.get("funnel"):
        _print_funnel(funnel)
    if (wall_s := result.get("wall_s")) is not None:
        say(f"Wall time: {format_span(wall_s)}")
    if (memory := result.get("peak_memory_mb")) is not None:
        say(f"Peak memory of a process: {memory:.0f} MiB")
    if seconds := result.get("phases_s"):
        say("Time by phase: " + ", ".join(f"{name} {format_span(each)}" for name, each in seconds.items()))
    if origins := result.get("baselines_origin"):
        say(f"Baselines: {', '.join(origins)}")
    for warning in result.get("warnings") or ():
        remark(f"warning: {warning}")
    run = result.get("run")
    if run:
        say(f"Run folder: {run}")
        if champion:
            say(f"To use it:  ruleforge export {run} --to torch -o champion.py")
            say(f"To judge it where no choice has looked:  ruleforge compare {run} --suite held_out")


def _watch_lines(watch: Record) -> list[str]:
    """How the best rules alive stood on the validation suite as the search went on, in one or two lines."""
    looks = [look for look in watch.get("looks") or () if look.get("validation") is not None]
    if not looks:
        return []
    shown = ", ".join(
        f"{look['generation'] + 1}: {format_ratio(look['validation'])} ({format_ratio(look['search'])})"
        for look in looks[:: max(1, -(-len(looks) // MOST_LOOKS))]
    )
    acted = [
        f"{look['action']} after generation {look['generation'] + 1}" for look in looks if look["action"]
    ]
    return [
        f"Looks at validation, over the oracle, by generation (where trained): {shown}",
        *([f"Validation fell while the search's own fitness rose: {', '.join(acted)}"] if acted else []),
    ]


def _print_funnel(funnel: Record) -> None:
    """The stages in order, then what was set aside, with the hit rates of both duplicate checks."""
    aside = {name: n for name, n in funnel.items() if name.startswith(("duplicate", "rejected"))}
    stages = {
        name: n for name, n in funnel.items() if name not in aside and not name.startswith("lane_steps")
    }
    say(f"Funnel: {funnel_line(stages)}")
    asked, unique = funnel.get("proposed") or 0, funnel.get("unique") or 0
    bases = {"duplicate_key": asked, "duplicate_behaviour": unique}
    parts = [
        f"{name.replace('_', ' ')} {n}" + (f" ({100 * n / bases[name]:.0f} %)" if bases.get(name) else "")
        for name, n in aside.items()
    ]
    if parts:
        say(f"Set aside: {', '.join(parts)}")
    if steps := funnel.get("lane_steps"):
        saved = funnel.get("lane_steps_saved", 0)
        less = f"; the whole grid would have taken {steps + saved:,}" if saved else ""
        say(f"Trained: {steps:,} lane-steps{less}")


def print_estimate(cost: Record) -> None:
    """What a search would do and take, before it starts."""
    rows = [
        (
            number,
            ", ".join(rung["workloads"]),
            ", ".join(map(str, rung["steps"])),
            rung["lanes_per_rule"],
            f"{100 * rung['promote']:.0f} %",
            f"{rung['lane_steps']:,}",
        )
        for number, rung in enumerate(cost["rungs"])
    ]
    columns = ("rung", "workloads", "steps", "lanes per rule", "promoted", "lane-steps a generation")
    print_table(columns, rows, title=f"Grammar {cost['grammar']}", right=("rung", *columns[3:]))
    say()
    generations = cost.get("generations")
    say(
        f"Generations: {generations if generations is not None else 'until the evaluations are spent'}; "
        f"{cost['workers']} workers, assumed {cost['assumed_lane_steps_per_s']:,.0f} lane-steps/s"
    )
    span = format_span(cost["estimated_s"])
    what = "the generations" if generations is not None else "one generation"
    say(f"Estimated time of {what}: {span}; baselines and the final come on top")


def print_baselines(result: Record) -> None:
    """The tuned baselines, best first, with the setting chosen on each workload."""
    rows = [
        (record["name"], *(speedup_cell((record.get("speedup") or {}).get(name)) for name, _ in REFERENCES))
        for record in result["baselines"]
    ]
    columns = ("baseline", *(f"vs {words}" for _, words in REFERENCES))
    suite = result.get("suite", "")
    title = f"Baselines tuned on the {suite} suite ({result.get('origin', 'computed')})"
    print_table(columns, rows, title=title, right=columns[1:])
    say()
    settings = [
        (
            place,
            record["name"],
            format_count(chosen.get("lr")),
            chosen.get("schedule") or "—",
            format_count(chosen.get("final_loss")),
            format_count(chosen.get("metric")),
        )
        for place in (result["baselines"][0]["workloads"] if result["baselines"] else ())
        for record in result["baselines"]
        for chosen in (record["workloads"][place],)
    ]
    columns = ("workload", "baseline", "lr", "schedule", "final loss", "metric")
    print_table(columns, settings, right=("lr", "final loss", "metric"))
    if best := result.get("best_single"):
        say(f"Best single rule: {best}")
