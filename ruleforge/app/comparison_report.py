"""The tables and sentences of `ruleforge compare`, drawn from the record that `--json` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ruleforge.app.display import print_table, remark, say
from ruleforge.app.plain import format_count, format_ratio
from ruleforge.app.profiles import profile_table
from ruleforge.app.provenance import left_out_in_words
from ruleforge.app.reports import speedup_cell
from ruleforge.app.sensitivity import in_words
from ruleforge.words import counted

Record = Mapping[str, Any]


def print_comparison(result: Record) -> None:
    """Each rule on each workload, over all of them, profiles, pairs, and what the verdict depends on."""
    compared = result.get("rules") or [{"name": "", **result}]
    reference = result.get("reference", "the reference")
    _print_speed(result, compared, reference)
    say()
    _print_ends(compared)
    say()
    _print_overall(result, compared, reference)
    if result.get("pairs"):
        say()
        _print_pairs(result["pairs"])
    if result.get("profiles"):
        say()
        columns, rows = profile_table(result["profiles"])
        print_table(
            columns, rows, right=columns[-1:],
            title="Share of the workloads on which a rule is within a factor of the best rule there",
        )  # fmt: skip
    say()
    for line in notes(result, compared):
        say(line)
    for warning in result.get("warnings") or ():
        remark(f"warning: {warning}")


def comparison_title(result: Record) -> str:
    where = f" on the {result['suite']} suite" if result.get("suite") else ""
    return f"{', '.join(rule['name'] for rule in result['rules'])}{where}"


def _print_speed(result: Record, compared: Sequence[Record], reference: str) -> None:
    columns = ("rule", "workload", "speed-up", "result", "p (Holm)", "steps", f"{reference}'s", "equal time")
    rows = [
        (
            rule["name"],
            place["name"],
            speedup_cell(place, with_interval=True),
            place.get("result") or "—",
            _p(place.get("p_holm")),
            _steps(place, "steps"),
            _steps(place, "reference_steps"),
            format_ratio(place.get("equal_time_speedup")),
        )
        for rule in compared
        for place in rule["workloads"]
    ]
    seeds = f", {counted(result['seeds'], 'seed')}" if result.get("seeds") else ""
    n_settings = result.get("hyper_settings")
    seeds += f", {n_settings} other settings of the hyperparameters tuned for all" if n_settings else ""
    where = f" on the {result['suite']} suite" if result.get("suite") else ""
    title = f"Speed-up over {reference}{where}{seeds}; ×1.30: the same loss in 1/1.30 of the steps"
    print_table(columns, rows, title=title, right=(columns[2], *columns[4:]))


def _print_ends(compared: Sequence[Record]) -> None:
    columns = (
        "rule", "workload", "final loss", "reference", "metric", "reference", "lr", "schedule",
        "lr decades", "reference", "diverged",
    )  # fmt: skip
    rows = [
        (
            rule["name"],
            place["name"],
            *(format_count(place.get(key)) for key in ("final_loss", "reference_loss")),
            *(format_count(place.get(key)) for key in ("metric", "reference_metric")),
            format_count(place.get("lr")),
            place.get("schedule") or "—",
            *(_decades(place.get(key)) for key in ("lr_decades", "reference_lr_decades")),
            f"{place.get('diverged', 0)}/{place.get('lanes', 0)}",
        )
        for rule in compared
        for place in rule["workloads"]
    ]
    right = tuple(name for name in columns[2:] if name != "schedule")
    print_table(columns, rows, title="Where they end, and how wide the range of good rates is", right=right)


def _print_overall(result: Record, compared: Sequence[Record], reference: str) -> None:
    columns = (
        "rule", f"vs {reference}", "equal time", "win/tie/loss", "worst", "vs oracle", "vs adam", "verdict",
    )  # fmt: skip
    rows = [
        (
            rule["name"],
            speedup_cell(overall, with_interval=True),
            speedup_cell(overall.get("equal_time"), with_interval=True),
            f"{overall['wins']}/{overall['ties']}/{overall['losses']}" if "wins" in overall else "—",
            " ".join(filter(None, (format_ratio(overall.get("worst")), overall.get("worst_on")))),
            speedup_cell(overall.get("vs_oracle"), with_interval=True),
            speedup_cell(overall.get("vs_adam"), with_interval=True),
            overall.get("verdict", ""),
        )
        for rule in compared
        for overall in (rule["overall"],)
    ]
    for row in result.get("references") or ():
        rows.append(
            (
                row["name"],
                speedup_cell(row["speedup"], with_interval=True),
                "", "", "",
                speedup_cell(row["vs_oracle"], with_interval=True),
                speedup_cell(row["vs_adam"], with_interval=True),
                "the best baseline of each workload" if row.get("rules") else "baseline",
            )
        )  # fmt: skip
    print_table(columns, rows, title="Over all workloads, with 95 % intervals", right=columns[1:-1])


def _print_pairs(pairs: Sequence[Record]) -> None:
    rows = [
        (row["rule"], row["over"], speedup_cell(row, with_interval=True), row["verdict"]) for row in pairs
    ]
    print_table(
        ("rule", "over", "speed-up", "verdict"), rows, title="Against each other", right=("speed-up",)
    )


def notes(result: Record, compared: Sequence[Record]) -> list[str]:
    """What the figures mean, and what each verdict depends on."""
    lines = []
    over = {rule["overall"].get("ci_over") for rule in compared}
    if "workloads" in over:
        lines.append(
            "Intervals over workloads are of the mean over a population of workloads like these "
            "(Student's t); those of one workload are over seeds"
        )
    if any("result" in place for rule in compared for place in rule["workloads"]):
        lines.append(
            "win, loss: p below 5 % over seeds, corrected for the number of workloads (Holm); lr decades: "
            "within 10 % of the best final loss"
        )
    if any(rule["overall"].get("equal_time") for rule in compared):
        ratios = ", ".join(
            f"{rule['name']} {each['step_time_ratio']:.2f}"
            for rule in compared
            if (each := rule["overall"].get("equal_time"))
        )
        lines.append(
            "equal time: steps weighed by their time, gradients and update of one lane in this trainer on "
            f"this machine; a step of the reference is 1, of {ratios}"
        )
    several = len(compared) > 1
    for rule in compared:
        name, overall = rule["name"], rule["overall"]
        words = overall.get("words", "")
        if several and overall.get("p_holm") is not None and overall["p_holm"] > 0.05 >= overall["p"]:
            lines.append(
                f"{name}: not distinguishable any more once corrected for {len(compared)} rules compared "
                f"(p = {_p(overall['p_holm'])})"
            )
        other = list(rule.get("sensitivity") or ())
        if line := in_words(words, other, "definition", "other definitions of the targets", "with "):
            lines.append(f"{name}, target definitions: {line}")
        fewer = list(rule.get("leave_one_out") or ())
        if line := in_words(words, fewer, "without", "choices of a workload to leave out", "without "):
            lines.append(f"{name}, one workload left out: {line}")
        run = rule.get("run")
        if run:
            lines.append(f"{name}: {run['carries_over']}")
            champion = run.get("champion")
            if line := left_out_in_words(champion, run["leave_one_out"]):
                lines.append(f"{name}, the champion of its run, {line}")
    return lines


def _steps(place: Record, key: str) -> str:
    if place.get(key) is not None:
        return f"{place[key]:.0f}"
    return f"> {place['budget_steps']}" if place.get("budget_steps") else "—"


def _decades(value: float | None) -> str:
    return "—" if value is None else f"{value:.1f}"


def _p(value: float | None) -> str:
    return "—" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"
