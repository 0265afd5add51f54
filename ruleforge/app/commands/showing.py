"""`show`: one rule, and all that is known of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ruleforge.app.commands.options import json_option

if TYPE_CHECKING:
    from ruleforge.app.targets import Target


@click.command()
@click.argument("target")
@click.option("--latex", is_flag=True, help="The formula as LaTeX, and nothing else.")
@json_option
def show(target: str, latex: bool, as_json: bool) -> None:
    """Show a rule, its formula, size and cost.

    For one that a run found: its fitness, final standing and lineage as well.
    """
    from ruleforge.app.display import print_json, say
    from ruleforge.app.targets import resolve_target

    found = resolve_target(target)
    if latex and not as_json:
        from ruleforge.render.latex import latex as latex_of

        say(latex_of(found.text))
        return
    record = describe(found)
    if as_json:
        if latex:
            from ruleforge.render.latex import latex as latex_of

            record["latex"] = latex_of(found.text)
        print_json(record)
    else:
        _print_rule(record)


def describe(target: Target) -> dict[str, Any]:
    """All that is known of a rule, as the record that `show --json` prints."""
    from ruleforge.core.known import known
    from ruleforge.render.unicode import formula

    rule = target.text.rule
    record: dict[str, Any] = {
        "name": target.name,
        "origin": target.origin,
        "run": str(target.run) if target.run is not None else None,
        "id": target.id,
        "text": str(target.text),
        "doc": target.text.doc,
        "formula": formula(target.text),
        "key": rule.key,
        "full_key": rule.full_key,
        "nodes": rule.nodes,
        "states": rule.canonical.slots,
        "hypers": [
            {"name": name, "default": h.default, "low": h.low, "high": h.high, "scale": h.scale}
            for name, h in zip(target.text.hypers, rule.hypers, strict=True)
        ],
        "cost": {"flops": rule.cost.flops, "bytes": rule.cost.bytes, "slots": rule.cost.slots},
        "warnings": list(target.text.warnings),
    }
    if target.origin == "known":
        entry = known(target.name)
        best = entry.verified
        record |= {
            "title": entry.title,
            "family": entry.family,
            "source": entry.source,
            "lr": entry.lr,
            "weight_decay": entry.weight_decay,
            "aliases": list(entry.aliases),
            "verified": None
            if best is None
            else {"upstream": best.upstream, "version": best.version, "max_diff": best.max_diff},
        }
    if target.run is not None:
        record |= _in_run(target)
    return record


def _in_run(target: Target) -> dict[str, Any]:
    """What the run says about a rule: evaluations, final standing, ancestors."""
    from ruleforge.app.final_record import final_record
    from ruleforge.store import Store

    assert target.run is not None
    with Store.open(target.run, readonly=True) as store:
        final = final_record(store)
        number = target.id
        judged = next((each for each in final.get("front") or () if each["id"] == number), None)
        # It goes with the text as it was published, which may differ by a factor from the candidate's.
        published = (final.get("champion") or {}) if target.origin == "champion" else {}
        lr_vs_adam = published.get("lr_vs_adam")
        if number is None:
            return {"fitness": [], "final": None, "known_as": None, "lr_vs_adam": lr_vs_adam, "lineage": []}
        row = store.candidate(number)
        fitness = [
            {
                "rung": each.rung,
                "workload": each.workload,
                "steps": each.steps,
                "speedup": dict(each.speedup),
                "final_loss": each.final_loss,
                "metric": each.metric,
                "lr": each.best_lr,
                "schedule": each.best_schedule,
                "diverged": each.n_diverged,
                "lanes": each.n_lanes,
            }
            for each in store.evaluations(candidate=number)
        ]
        lineage = [
            {
                "id": each.id,
                "depth": each.depth,
                "generation": each.generation,
                "origin": each.origin,
                "parents": list(each.parents),
                "text": each.text,
            }
            for each in store.lineage(number)
        ]
    return {
        "id": number,
        "status": row.status,
        "reason": row.reason,
        "fitness": fitness,
        "final": judged["speedup"] if judged else None,
        "known_as": judged["known_as"] if judged else None,
        "lr_vs_adam": lr_vs_adam,
        "lineage": lineage,
    }


def _print_rule(record: dict[str, Any]) -> None:
    from ruleforge.app.display import indented, print_facts, print_table, remark, say
    from ruleforge.app.plain import format_count, format_ratio
    from ruleforge.app.reports import speedup_cell

    say(record["text"].rstrip("\n"))
    say()
    say(indented("\n".join(record["formula"])))
    say()
    facts: dict[str, Any] = {
        "nodes": record["nodes"],
        "state slots": record["states"],
        "hypers": ", ".join(f"{h['name']} = {h['default']:g}" for h in record["hypers"]) or "none",
        "cost": f"{record['cost']['flops']:g} FLOPs and {record['cost']['bytes']} bytes a weight and step",
        "key": record["key"],
    }
    if record.get("source"):
        facts = {"name": f"{record['title']} ({record['family']})", "source": record["source"], **facts}
        facts["defaults"] = f"lr = {record['lr']:g}, weight_decay = {record['weight_decay']:g}"
        best = record["verified"]
        facts["verified"] = (
            f"against {best['upstream']} {best['version']}, "
            f"largest difference {format_count(best['max_diff'])}"
            if best
            else "not verified"
        )
    if record["run"]:
        facts["from"] = f"{record['run']}, rule {record['id']}"
        if record["known_as"]:
            facts["known as"] = record["known_as"]
    print_facts(facts)
    for warning in record["warnings"]:
        remark(f"warning: {warning}")
    if record.get("reason"):
        say(f"{record['status']}: {record['reason']}")
    if record.get("final"):
        say()
        rows = [
            (suite, *(speedup_cell(standing.get(f"vs_{name}"), with_interval=True) for name in _REFERENCES))
            for suite, standing in record["final"].items()
        ]
        columns = ("suite", *(f"vs {name.replace('_', ' ')}" for name in _REFERENCES))
        print_table(columns, rows, title="Final, on fresh seeds", right=columns[1:])
    if record.get("fitness"):
        say()
        rows = [
            (
                each["rung"],
                each["workload"],
                each["steps"],
                format_ratio(each["speedup"].get("vs_oracle")),
                format_count(each["final_loss"]),
                format_count(each["metric"]),
                format_count(each["lr"]),
                each["schedule"] or "—",
                f"{each['diverged']}/{each['lanes']}",
            )
            for each in record["fitness"]
        ]
        columns = (
            "rung",
            "workload",
            "steps",
            "vs oracle",
            "final loss",
            "metric",
            "lr",
            "schedule",
            "diverged",
        )
        print_table(columns, rows, title="In the search", right=("rung", *columns[2:7]))
    if record.get("lineage"):
        say()
        rows = [
            (
                each["depth"],
                each["id"],
                each["generation"],
                each["origin"],
                ", ".join(map(str, each["parents"])) or "—",
                "; ".join(each["text"].strip().splitlines()),
            )
            for each in record["lineage"][:_ANCESTORS]
        ]
        more = len(record["lineage"]) - _ANCESTORS
        title = f"Lineage, nearest first{f' (and {more} more)' if more > 0 else ''}"
        columns = ("depth", "id", "generation", "made by", "parents", "rule")
        print_table(columns, rows, title=title, right=columns[:3])


_REFERENCES = ("best_single", "oracle", "adam")
_ANCESTORS = 12

COMMANDS = (show,)
