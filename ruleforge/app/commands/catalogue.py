"""What is available: known rules, tasks, grammars and ops."""

from __future__ import annotations

from typing import Any

import click

from ruleforge.app.commands.options import json_option
from ruleforge.app.display import print_json, print_table, say


@click.command()
@click.option("--family", default=None, help="Only this family.")
@json_option
def rules(family: str | None, as_json: bool) -> None:
    """List the known rules and how well each is verified."""
    from ruleforge.app.plain import format_count
    from ruleforge.core.known import KNOWN
    from ruleforge.errors import InputError

    known = list(KNOWN.values())
    families = list(dict.fromkeys(each.family for each in known))
    if family is not None and family not in families:
        raise InputError(f"there is no family {family!r}", hint=f"families: {', '.join(families)}")
    records: list[dict[str, Any]] = []
    for each in known:
        if family is not None and each.family != family:
            continue
        best = each.verified
        verified = (
            None
            if best is None
            else {"upstream": best.upstream, "version": best.version, "max_diff": best.max_diff}
        )
        records.append(
            {
                "name": each.name,
                "title": each.title,
                "family": each.family,
                "source": each.source,
                "nodes": each.rule.rule.nodes,
                "states": each.rule.rule.slots,
                "lr": each.lr,
                "weight_decay": each.weight_decay,
                "aliases": list(each.aliases),
                "same_as": each.same_as,
                "verified": verified,
            }
        )
    if as_json:
        print_json(records)
        return

    def shown(verified: dict[str, Any] | None) -> tuple[str, str]:
        if verified is None:
            return "not verified", "—"
        return f"{verified['upstream']} {verified['version']}", format_count(verified["max_diff"])

    rows = [
        (
            each["family"],
            each["name"],
            each["nodes"],
            each["states"],
            *shown(each["verified"]),
            each["source"],
        )
        for name in families
        for each in records
        if each["family"] == name
    ]
    columns = ("family", "name", "nodes", "states", "verified against", "max diff", "source")
    print_table(columns, rows, right=("nodes", "states", "max diff"))
    say(f"{len(records)} rules; `ruleforge show NAME` prints one")


@click.command()
@json_option
def tasks(as_json: bool) -> None:
    """List the workloads and their suites."""
    from ruleforge.tasks import WORKLOADS

    records = [each.describe() for each in WORKLOADS.values()]
    if as_json:
        print_json(records)
        return
    columns = (
        "suite",
        "name",
        "architecture",
        "data",
        "n_weights",
        "batch_size",
        "steps",
        "adam/sgd",
        "stresses",
    )
    headings = [name.replace("n_", "").replace("_", " ") for name in columns]
    for record in records:
        ratio = record["adam_over_sgd"]
        record["adam/sgd"] = "—" if ratio is None else f"×{ratio:.2f}"
    rows = [[record[name] for name in columns] for record in records]
    print_table(headings, rows, right=("weights", "batch size", "steps", "adam/sgd"))
    say("adam/sgd: how much sooner tuned Adam reaches the same losses than tuned SGD")
    say('your own: `ruleforge new-task FILE`, then workloads = ["FILE:factory"] in a config')


@click.command()
@json_option
def grammars(as_json: bool) -> None:
    """List the grammars that a search can use."""
    from ruleforge.search.grammar import grammar_names, load_grammar

    records: list[dict[str, Any]] = []
    for name in grammar_names():
        grammar = load_grammar(name)
        records.append(
            {
                "name": name,
                "doc": grammar.doc,
                "source": grammar.source,
                "ops": list(grammar.op_names),
                "sugar": list(grammar.sugar_names),
                "terminals": list(grammar.terminals),
                "limits": grammar.limits.model_dump(),
            }
        )
    if as_json:
        print_json(records)
        return
    rows = [
        (
            each["name"],
            len(each["ops"]),
            ", ".join(each["sugar"]),
            ", ".join(each["terminals"]),
            each["limits"]["nodes"],
            each["limits"]["states"],
            each["doc"],
        )
        for each in records
    ]
    columns = ("name", "ops", "sugar", "terminals", "nodes", "states", "about")
    print_table(columns, rows, right=("ops", "nodes", "states"))


@click.command()
@json_option
def ops(as_json: bool) -> None:
    """List the ops and terminals of the rule language."""
    from ruleforge.core.ops import OPS, TERMINALS

    def spelled(name: str) -> str:
        op = OPS[name]
        if not op.symbol:
            return op.signature
        return f"{op.symbol}{op.param_names[0]}" if op.arity == 1 else f" {op.symbol} ".join(op.param_names)

    records: list[dict[str, Any]] = [
        {
            "name": op.name,
            "kind": op.kind,
            "signature": op.signature,
            "symbol": op.symbol,
            "flops": op.flops if op.meaning is not None else None,
            "expansion": op.expansion or op.recurrence,
            "domain": op.domain,
            "commutative": op.commutative,
            "parity": op.parity,
            "doc": op.doc,
        }
        for op in OPS.values()
    ]
    if as_json:
        terminals = [{"name": name, "doc": doc} for name, doc in TERMINALS.items()]
        print_json({"ops": records, "terminals": terminals})
        return
    rows = [
        (
            record["kind"],
            spelled(record["name"]),
            "—" if record["flops"] is None else f"{record['flops']:g}",
            record["doc"] + (f" ({record['domain']})" if record["domain"] else ""),
            record["expansion"],
        )
        for record in records
    ]
    print_table(("kind", "written", "FLOPs", "meaning", "expands to"), rows, right=("FLOPs",))
    print_table(("terminal", "meaning"), TERMINALS.items())


COMMANDS = (rules, tasks, grammars, ops)
