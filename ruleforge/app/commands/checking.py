"""`check`: whether a run folder is sound, what of it can be repaired, and the repair."""

from __future__ import annotations

from typing import Any

import click

from ruleforge.app.commands.options import json_option


@click.command()
@click.argument("run")
@click.option("--repair", is_flag=True, help="Put right what can be; nothing that was measured is touched.")
@json_option
@click.pass_context
def check(context: click.Context, run: str, repair: bool, as_json: bool) -> None:
    """Verify a run folder, and say what can be repaired."""
    from ruleforge.app.checking import find_faults, find_notes, mend
    from ruleforge.app.display import print_json, remark, say
    from ruleforge.app.plain import clean
    from ruleforge.app.targets import require_run
    from ruleforge.words import counted

    folder = require_run(run)
    mended: list[str] = mend(folder) if repair else []
    faults = find_faults(folder)
    notes = find_notes(folder)
    record: dict[str, Any] = {
        "run": str(folder),
        "faults": [fault.message for fault in faults],
        "repairable": [fault.message for fault in faults if fault.is_repairable],
        "repaired": mended,
        "notes": notes,
    }
    if as_json:
        print_json(record)
    else:
        for line in mended:
            say(f"repaired: {clean(line)}")
        for fault in faults:
            remark(f"fault: {clean(fault.message)}" + (f" ({fault.remedy})" if fault.remedy else ""))
        for note in notes:
            say(f"note: {clean(note)}")
        say(f"{folder}: {counted(len(faults), 'fault') if faults else 'sound'}")
        if record["repairable"]:
            say(f"`ruleforge check {run} --repair` repairs {counted(len(record['repairable']), 'fault')}")
    if faults:
        context.exit(1)


COMMANDS = (check,)
