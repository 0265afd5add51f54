"""sympy at arm's length: what it may say, and what happens when it says nothing."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ruleforge.core import expr as ex
from ruleforge.core.expr import Expr
from ruleforge.core.rule import Rule
from ruleforge.core.text import parse
from ruleforge.simplify import scalar, simplify, verify
from ruleforge.simplify.facts import Facts
from ruleforge.simplify.scalar import ScalarAlgebra, scalar_terms
from ruleforge.simplify.view import View, make

NO_FACTS = Facts((), {}, {})
G, W = ex.leaf("g"), ex.leaf("w")


@pytest.fixture(scope="module")
def engine() -> Iterator[ScalarAlgebra]:
    made = ScalarAlgebra()
    yield made
    made.close()


def term(text: str) -> Expr:
    return View.of(Rule.parse(f"update = {text}")).update


def rule_of(folded: Expr) -> Rule:
    return View(make("add", folded, make("mul", ex.const(0.0), G)), (), (), ()).rule


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("(g * g - w * w) / (g - w)", "g + w"),
        ("g / (1 + g) + 1 / (1 + g)", "1"),
        ("1 - 1 / (1 + g / w)", "g / (g + w)"),
        ("(g + w) * (g + w) - (g - w) * (g - w)", "4 * (g * w)"),
        ("sqrt(abs(g) * abs(g)) * 1.5 + abs(g) * 0.5", "2 * abs(g)"),
        ("log(exp(2 * g) * exp(w)) / 2", "g + w / 2"),
    ],
)
def test_sympy_knows_school_algebra(engine: ScalarAlgebra, text: str, short: str) -> None:
    forms = list(engine.variants(term(text), NO_FACTS, 20.0))
    assert forms
    assert min(len(ex.walk([form])) for form in forms) <= len(ex.walk([term(short)]))


def scalar_term(rng: random.Random, depth: int) -> Expr:
    if depth == 0 or rng.random() < 0.15:
        return rng.choice((G, W, make("abs", G), make("exp", W), ex.const(rng.choice((-1.5, 0.1, 2.0, 3.0)))))
    op = rng.choice(("add", "sub", "mul", "div", "neg", "sqrt", "abs", "lerp"))
    return make(
        op,
        *(scalar_term(rng, depth - 1) for _ in range({"neg": 1, "sqrt": 1, "abs": 1, "lerp": 3}.get(op, 2))),
    )


def test_forms_mean_what_the_term_means(engine: ScalarAlgebra) -> None:
    compared = 0
    for seed in range(40):
        item = scalar_term(random.Random(seed), 3)
        if not any(leaf in (G, W) for leaf in ex.walk([item])):
            continue
        for form in engine.variants(item, NO_FACTS, 20.0):
            verdict = verify(rule_of(item), rule_of(form))
            # sympy may cancel what rounding or a domain keeps; it must never be plainly wrong
            hopeless = "rounding alone" in verdict.reason or "finite at only" in verdict.reason
            if not hopeless and "differ at" in verdict.reason:
                differing = int(verdict.reason.split()[3])
                assert differing < 0.2 * verdict.compared, (item, form, verdict)
            compared += verdict.holds
    assert compared > 40


def test_numbers_travel_as_decimals(engine: ScalarAlgebra) -> None:
    forms = list(engine.variants(term("0.1 * g + 0.2 * g + (w + 0.3 * g) / 3"), NO_FACTS, 20.0))
    numbers = {node.number for form in forms for node in ex.walk([form]) if node.op == "const"}
    assert 0.4 in numbers
    assert 0.30000000000000004 not in numbers


def test_signs_of_leaves_are_used(engine: ScalarAlgebra) -> None:
    item = term("sqrt(exp(g) * exp(g)) + 2 * abs(exp(g)) - exp(g) / 3")
    forms = list(engine.variants(item, NO_FACTS, 20.0))
    assert any(not any(node.op in ("abs", "sqrt") for node in ex.walk([form])) for form in forms)


def test_only_what_is_worth_asking_is_asked() -> None:
    assert scalar_terms(View.of(parse("update = ema(g, 0.9) / (sqrt(ema(g * g, 0.99)) + 1e-8)").rule)) == []
    assert scalar_terms(View.of(parse("update = sin(g) * tanh(w)").rule)) == []
    asked = scalar_terms(View.of(parse("update = sin(g * w + g / (1 + w))").rule))
    assert [item.op for item in asked] == ["add"]
    assert scalar_terms(View.of(parse("update = (g + w * g + 1) ** 100 - w").rule)) == []


def test_the_worker_imports_nothing_of_ours() -> None:
    code = "import sys, runpy; sys.argv = ['x']; sys.stdin = open('/dev/null'); " + (
        f"runpy.run_path({str(scalar._WORKER)!r}, run_name='__main__'); "
        "print(*[m for m in sys.modules if m.split('.')[0] in ('ruleforge', 'torch', 'numpy')])"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "ruleforge" not in done.stdout and "torch" not in done.stdout


# when it fails

HARD = "update = (g * g - w * w) / (g - w) + (g - g)"


def broken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: str) -> ScalarAlgebra:
    worker = tmp_path / "worker.py"
    worker.write_text(source)
    monkeypatch.setattr(scalar, "_WORKER", worker)
    monkeypatch.setattr(scalar, "CALL_LIMIT_S", 0.5)
    return ScalarAlgebra()


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("import time\ntime.sleep(60)\n", "did not answer within 0.5 s"),
        ("raise ImportError('no sympy here')\n", "could not be run"),
        ("import sys\nsys.stdin.readline()\nsys.exit(3)\n", "could not be run"),
    ],
)
def test_without_sympy_the_other_passes_go_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: str, says: str
) -> None:
    engine = broken(monkeypatch, tmp_path, source)
    begun = time.monotonic()
    result = simplify(parse(HARD), engine=engine)
    assert time.monotonic() - begun < 8
    assert any("sympy" in note and says in note for note in result.notes), result.notes
    assert result.after.rule.nodes < result.before.rule.nodes  # g - g is gone all the same
    assert engine._worker is None
    again = simplify(parse(HARD), engine=engine)
    assert again.notes == result.notes, "an answer that is missing is told each time"
    engine.close()


def test_a_worker_that_died_leaves_no_pipe_behind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    engine = broken(monkeypatch, tmp_path, "import sys\nsys.exit(3)\n")
    engine.start()
    first = engine._worker
    assert first is not None and first.stdin is not None and first.stdout is not None
    first.wait()
    engine.start()
    assert engine._worker is not first
    assert first.stdin.closed and first.stdout.closed
    engine.close()


def test_with_sympy_the_same_rule_becomes_shorter(engine: ScalarAlgebra) -> None:
    result = simplify(parse(HARD), engine=engine)
    assert str(result.after).strip() in ("update = g + w", "update = w + g")
    assert any("sympy" in step.law for step in result.steps)
    assert result.notes == ()
