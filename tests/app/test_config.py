"""Search configs: what is read is what was meant, and every fault is named with its place and remedy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ruleforge.app.config import (
    MAX_BYTES,
    config_names,
    find_config,
    json_schema,
    load_config,
    load_validation_workloads,
    load_workloads,
    parse_config,
    resolved_toml,
)
from ruleforge.app.faults import caret
from ruleforge.app.schema import STRATEGIES, TIME_OBJECTIVES
from ruleforge.app.training_schema import DEFAULT_RUNGS
from ruleforge.app.values import format_duration, parse_duration
from ruleforge.errors import ConfigError
from ruleforge.tasks import SUITES, TEMPLATE

FULL = """
grammar = "adaptive"
seed = 3
deterministic = true
[search]
strategy = "random"
population = 20
generations = 4
budget = "1h30m"
evaluations = 100
seed_rules = ["sgd", "heavy_ball"]
finalists = 3
immigrants = 0.2
crossover = 0
dedupe = false
[training]
workloads = ["digits_mlp", "noisy_labels"]
validation_suite = "validation"
lrs = { low = 1e-3, high = 1, points = 5 }
schedules = ["warmup_cosine"]
seeds = 1
score_seeds = 4
steps = 50
batch_size = 16
gradient_clip = 1.0
weight_decay = 0.01
chunk_lanes = 32
gradient_plane = "compiled"
update_plane = "torch"
[[training.rungs]]
steps = 10
lrs = 2
workloads = 1
promote = 0.5
[weights]
speedup = 1.0
complexity = 0.01
[limits]
nodes = 20
states = 1
flops_per_weight = 30
bytes_per_weight = 28
[baselines]
rules = ["adam", "sgd"]
"""


def fault(text: str, *overrides: str, folder: Path | str = "") -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        parse_config(text, overrides, file="x.toml", folder=folder)
    return caught.value


# Reading


def test_an_empty_config_is_the_documented_default() -> None:
    config = parse_config("")
    assert (config.grammar, config.seed, config.deterministic) == ("full", 0, True)
    assert (config.search.strategy, config.search.generations, config.search.budget_s) == ("nsga2", 40, None)
    assert config.training.workload_names == SUITES["search"]
    assert config.training.rungs == DEFAULT_RUNGS
    assert config.axes == {"speedup": "max", "complexity": "min"}
    assert config.signed_weights is None
    assert "adam" in [rule.name for rule in config.baselines.rules]


def test_every_key_is_read() -> None:
    config = parse_config(FULL)
    search, training = config.search, config.training
    assert (search.budget_s, search.evaluations, search.crossover, search.dedupe) == (5400, 100, 0, False)
    assert [rule.name for rule in search.seed_rules] == ["sgd", "momentum"]  # an alias is resolved
    assert (training.lrs.low, training.lrs.high, training.lrs.points) == (1e-3, 1.0, 5)
    assert [(rung.steps, rung.promote) for rung in training.rungs] == [(10, 0.5)]
    assert (training.gradient_clip, training.weight_decay, training.batch_size) == (1.0, 0.01, 16)
    assert config.signed_weights == {"speedup": 1.0, "complexity": -0.01}
    assert config.limits.bytes_per_weight == 28


def test_a_bound_given_alone_is_the_only_one() -> None:
    assert parse_config('[search]\nbudget = "5m"').search.generations is None
    assert parse_config("[search]\nevaluations = 10").search.generations is None


def test_workloads_take_the_configs_batch_size_and_steps() -> None:
    config = parse_config("[training]\nworkloads = ['digits_mlp']\nsteps = 5\nbatch_size = 8")
    assert [(w.name, w.steps, w.batch_size) for w in load_workloads(config)] == [("digits_mlp", 5, 8)]
    assert {(w.steps, w.batch_size) for w in load_validation_workloads(config)} == {(5, 8)}


@pytest.mark.parametrize("text", ["", FULL, "[training]\nrungs = []", '[objectives]\nslots = "min"'])
def test_the_resolved_config_reads_back_equal(text: str) -> None:
    config = parse_config(text)
    assert parse_config(resolved_toml(config)) == config


def test_the_resolved_config_stands_alone(tmp_path: Path) -> None:
    """Rules come along as text, and paths keep their folder, wherever the text is read."""
    (tmp_path / "mine.rule").write_text("update = g * 3\n")
    (tmp_path / "my_task.py").write_text(TEMPLATE)
    text = '[search]\nseed_rules = ["mine.rule"]\n[training]\nworkloads = ["my_task.py:factory"]'
    config = parse_config(text, folder=tmp_path)
    (tmp_path / "mine.rule").unlink()
    again = parse_config(resolved_toml(config), folder="/nowhere")
    assert again == config
    (rule,) = again.search.seed_rules
    assert (rule.name, str(rule.rule())) == ("mine", "update = g * 3\n")
    assert again.training.workload_names == ("my_task.py:factory",)  # the name decides the seeds
    assert again.folder == str(tmp_path)


@given(st.floats(0.001, 1e7))
def test_durations_read_back(seconds: float) -> None:
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, rel=1e-12)


def test_overrides_win_and_keep_their_types() -> None:
    config = parse_config(
        "seed = 1\n[search]\npopulation = 10",
        ["seed=2", "search.population=30", "grammar=adaptive", 'search.budget="5m"', "search.seed_rules=[]"],
    )
    assert (config.seed, config.search.population, config.grammar) == (2, 30, "adaptive")
    assert (config.search.budget_s, config.search.seed_rules) == (300, ())
    assert parse_config({}, {"search.population": 7}).search.population == 7


def test_an_override_displaces_what_it_excludes() -> None:
    file = "[training]\nsuite = 'search'\n[objectives]\nspeedup = 'max'"
    config = parse_config(file, ['training.workloads=["digits_mlp"]', "weights.speedup=1"])
    assert (config.training.suite, config.training.workload_names) == (None, ("digits_mlp",))
    assert config.signed_weights == {"speedup": 1.0}
    assert parse_config(FULL, ["training.suite=search"]).training.workloads is None
    both = ['training.workloads=["digits_mlp"]', "training.suite=search"]
    assert "exclude each other" in str(fault(file, *both))


def test_a_config_does_not_change() -> None:
    config = parse_config("")
    with pytest.raises(Exception, match="frozen"):
        config.seed = 1  # type: ignore[misc]
    assert hash(config) == hash(parse_config(""))


def test_a_dict_is_read_and_left_alone() -> None:
    given_dict = {"search": {"population": 5}}
    assert parse_config(given_dict, ["search.population=6"]).search.population == 6
    assert given_dict == {"search": {"population": 5}}


# Faults


@pytest.mark.parametrize(
    ("text", "line", "column", "words"),
    [
        ("sed = 1", 1, 1, "unknown key 'sed'\n    sed = 1\n    ^^^\ndid you mean 'seed'?"),
        ("\n[search]\npopulaton = 3", 3, 1, "did you mean 'population'?"),
        ("population = 4", 1, 1, "it belongs in [search]"),
        ("[search]\nbudget = '-5m'", 2, 1, "a budget must be positive"),
        ("[search]\nbudget = -5", 2, 1, "must be positive"),
        ("[search]\nbudget = 90", 2, 1, "needs a unit"),
        ("[search]\nbudget = 'soon'", 2, 1, "'soon' is no time"),
        ("[search]\nbudget = '0s'", 2, 1, "must be positive"),
        ("seed = 'a'", 1, 1, "expected a whole number, found 'a'"),
        ("seed = -1", 1, 1, "expected at least 0, found -1"),
        ("seed = 1.5", 1, 1, "expected a whole number, found 1.5"),
        ("deterministic = 1", 1, 1, "expected true or false, found 1"),
        ("grammar = 3", 1, 1, "expected text in quotes, found 3"),
        ("search = 3", 1, 1, "expected a table, found 3"),
        ("seed = 1979-05-27", 1, 1, "expected a whole number"),
        ("[training]\nsuite = 'serch'", 2, 1, "did you mean 'search'?"),
        ("[training]\nsuite = 'held_out'", 2, 1, "never used by a search"),
        ("[training]\nvalidation_suite = 'held_out'", 2, 1, "never used by a search"),
        ("[training]\nsuite = 'validation'", 2, 1, "shares data"),
        ("[training]\nworkloads = ['digits_conv']", 2, 1, "shares data with 'digits_conv'"),
        ("[training]\nworkloads = ['digits_mlp',\n  'digits_mpl']", 3, 3, "did you mean 'digits_mlp'?"),
        ("[training]\nworkloads = ['wine_layernorm']", 2, 14, "held out"),
        ("[training]\nworkloads = ['ruleforge.tasks.tables:wine_layernorm']", 2, 14, "'wine_layernorm'"),
        ("[training]\nworkloads = ['ruleforge.tasks.digits:digits_conv']", 2, 14, "of ruleforge itself"),
        ("[training]\nworkloads = ['digits_mlp', 'digits_mlp']", 2, 1, "named twice"),
        ("[training]\nworkloads = []", 2, 1, "at least one entry"),
        ("[training]\nworkloads = ['no.py:f']", 2, 14, "the task file 'no.py' does not exist"),
        ("[training]\nworkloads = ['no.py:']", 2, 14, "names no task"),
        ("[training]\nworkloads = 'digits_mlp'", 2, 1, "expected a list"),
        ("[training]\nsuite = 'search'\nworkloads = ['digits_mlp']", 3, 1, "exclude each other"),
        ("[training]\nschedules = ['constant', 'cosin']", 2, 26, "did you mean 'cosine'?"),
        ("[training]\nschedules = []", 2, 1, "at least one entry"),
        ("[training]\nlrs = { low = 1, high = 0.1, points = 3 }", 2, 1, "is no grid"),
        ("[training]\nlrs = { low = 0.0, high = 0.1, points = 3 }", 2, 9, "more than 0"),
        ("[training]\ngradient_clip = 0", 2, 1, "more than 0"),
        ("[training]\nupdate_plane = 'numbe'", 2, 1, "did you mean 'numba'?"),
        ("[training]\n[[training.rungs]]\nsteps = 3\n[[training.rungs]]\nsteps = 0", 5, 1, "rungs[1].steps"),
        ("[training]\n[[training.rungs]]\nlrs = 3", 2, 1, "training.rungs[0].steps is missing"),
        ("[training]\n[[training.rungs]]\nsteps = 3\npromote = 1.5", 4, 1, "at most 1"),
        ("[search]\nstrategy = 'nsga'", 2, 1, "did you mean 'nsga2'?"),
        ("[search]\nstrategy = 'islands'\npopulation = 6", 1, 1, "4 islands have no room"),
        ("[search]\nselection = 'lexicase'", 2, 1, "not among its values"),
        ("[search]\nprior = 'results/nowhere'", 2, 1, "there is no run 'results/nowhere'"),
        ("[search]\nprior = { name = 'x', weights = { add = 0.0 } }", 2, 35, "at least 0.01"),
        ("[search]\npopulation = -3", 2, 1, "expected at least 2, found -3"),
        ("[search]\nseed_rules = ['sgd', 'adma']", 2, 22, "did you mean 'ada"),
        ("[search]\nseed_rules = ['sgd', 'sgd']", 2, 1, "named twice: sgd"),
        ("[search]\nseed_rules = ['no.rule']", 2, 15, "cannot be opened"),
        ("[search]\nseed_rules = [{ name = 'q', text = 'update = gg' }]", 2, 15, "undefined name 'gg'"),
        ("[baselines]\nrules = ['sgd']", 2, 1, "adam is missing"),
        ("[baselines]\nrules = []", 2, 1, "at least one entry"),
        ("[objectives]\nspeedup = 'min'", 2, 1, "no search wants"),
        ("[objectives]\nspedup = 'max'", 2, 1, "did you mean 'speedup'?"),
        ("[objectives]\n", 1, 1, "no objective is named"),
        ("[objectives]\nspeedup = 'max'\n[weights]\nspeedup = 1", 3, 1, "exclude each other"),
        ("[weights]\ncomplexity = -1", 2, 1, "more than 0"),
        ("grammar = 'ful'", 1, 1, "did you mean 'full'?"),
        ("grammar = 'no.toml'", 1, 1, "cannot be opened"),
        ("[limits]\nflops_per_weight = inf", 2, 1, "finite"),
        ("[search", 1, None, "no valid TOML"),
        ("a = 1\na = 2", 2, None, "no valid TOML"),
        ("a = 'x", 1, None, "no valid TOML"),
    ],
)
def test_a_fault_is_named_with_its_place(text: str, line: int, column: int | None, words: str) -> None:
    error = fault(text)
    assert error.line == line, error
    assert column is None or error.column == column, error
    assert words in str(error)
    assert error.file == "x.toml"
    assert error.exit_code == 2


def test_all_faults_come_in_one_message() -> None:
    error = fault("sed = 1\n[search]\npopulation = -3\nbudget = '-1m'\n[training]\nsuite = 'serch'")
    text = str(error)
    assert "4 faults" in text
    for line, words in ((1, "'sed'"), (3, "-3"), (4, "positive"), (6, "serch")):
        assert any(f"line {line}," in each and words in each for each in text.split("\n")[1:]), text
    assert "sed" in error.as_json()["error"]
    assert error.as_json()["line"] == 1


@pytest.mark.parametrize("name", TIME_OBJECTIVES)
def test_a_measured_time_is_refused_while_deterministic(name: str) -> None:
    assert "deterministic = true" in fault(f"[objectives]\n{name} = 'min'").message
    loose = fault(f"deterministic = false\n[objectives]\n{name} = 'min'")
    assert "called latency" in loose.hint


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("[objectives]\nspeedup = 'max'\nlatency = 'min'", 3, "deterministic = true"),
        ("[limits]\nlatency_ns = 3", 2, "deterministic = true"),
        ("[limits]\nflops_per_weight = 1", 2, "no rule can meet flops_per_weight = 1: `update = g` takes 2"),
        ("[limits]\nbytes_per_weight = 11", 2, "no rule can meet bytes_per_weight = 11"),
        ("[limits]\nenergy_per_weight = 100.0", 2, "no rule can meet energy_per_weight"),
        ("[limits]\nstability = 1.5", 2, "1 is the most"),
        ("[limits]\nlr_robustness = 4.5", 2, "span 4 decades"),
        ("[limits]\nstates = 0\n[objectives]\nspeedup = 'max'\nslots = 'min'", 5, "no rule may have a state"),
        ("[limits]\nbytes_per_weight = 19\n[weights]\nspeedup = 1\nbytes = 0.1", 5, "the same bytes"),
        ("[limits]\nflops_per_weight = 2\n[objectives]\ncost = 'min'", 4, "only `update = g`"),
        ("[objectives]\nspeedup = 'max'\nsmoothness = 'min'", 3, "reads progress"),
        ("[limits]\nstability = 1\n[objectives]\nstability = 'max'", 4, "leaves 1 alone"),
        (
            "[training]\nlrs = { low = 0.1, high = 0.1, points = 1 }\n[objectives]\nlr_robustness = 'max'",
            4,
            "spans no range",
        ),
        (
            "[search]\nstrategy = 'hyper_only'\nseed_rules = ['adam']\n[limits]\nnodes = 5",
            4,
            "beyond the limits: 10 nodes",
        ),
    ],
)
def test_wishes_that_exclude_each_other_are_refused_with_the_reason(text: str, line: int, words: str) -> None:
    error = fault(text)
    assert words in error.message and error.line == line and error.hint
    assert error.exit_code == 2


def test_wishes_that_go_together_are_not_refused() -> None:
    parse_config(
        "deterministic = false\n[limits]\nbytes_per_weight = 20\nflops_per_weight = 3\nlatency_ns = 9\n"
        "stability = 0.5\nlr_robustness = 1\nfinal_loss = 0.2\nenergy_per_weight = 5000\n"
        "[objectives]\nspeedup = 'max'\nslots = 'min'\nbytes = 'min'\nlatency = 'min'\nconsistency = 'max'"
    )


def test_a_fault_in_an_override_names_the_override() -> None:
    error = fault("seed = 1\n[search]\npopulation = 5", "search.population=-1")
    assert "--set search.population=-1" in str(error)
    assert error.line is None
    assert "no assignment" in str(fault("", "population"))
    assert "a value, not a table" in str(fault("seed = 1", "seed.x=1"))
    assert "is no key" in str(fault("", ".x=1"))
    assert "unknown key 'populaton'" in str(fault("", "search.populaton=3"))


@pytest.mark.parametrize("depth", [200, 100_000])
def test_deep_nesting_is_a_message(depth: int) -> None:
    assert fault("a = " + "[" * depth + "]" * depth).exit_code == 2


def test_a_number_of_thousands_of_digits_is_a_message() -> None:
    assert "TOML" in fault("seed = " + "9" * 5000).message


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    large = tmp_path / "large.toml"
    large.write_text("#" * (MAX_BYTES + 1))
    with pytest.raises(ConfigError, match="256 KiB"):
        load_config(large)
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"seed = 1\n\xff\xfe")
    with pytest.raises(ConfigError, match="UTF-8") as caught:
        load_config(binary)
    assert caught.value.line == 2
    with pytest.raises(ConfigError, match="is a folder"):
        load_config(tmp_path)
    with pytest.raises(ConfigError, match="did you mean 'quickstart'"):
        load_config("quickstrat")


def test_a_grammar_that_can_generate_no_rule_is_named_with_its_own_line(tmp_path: Path) -> None:
    (tmp_path / "g.toml").write_text('ops = ["add"]\nterminals = ["w"]\n')
    error = fault('grammar = "g.toml"', folder=tmp_path)
    assert "can generate no rule" in str(error)
    assert "g.toml, line 2" in str(error)
    assert error.line == 1


def test_paths_count_from_the_configs_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "mine.rule").write_text("update = g\n")
    (inner / "c.toml").write_text('[search]\nseed_rules = ["mine.rule"]')
    monkeypatch.chdir(tmp_path)
    assert load_config("inner/c.toml").search.seed_rules[0].name == "mine"


# What ships


@pytest.mark.parametrize("name", config_names())
def test_shipped_configs_are_valid_and_name_their_schema(name: str) -> None:
    config = load_config(name)
    assert parse_config(resolved_toml(config)) == config
    path = find_config(name)
    first = path.read_text(encoding="utf-8").split("\n", 1)[0]
    assert first == "#:schema ../docs/search_config.schema.json"
    assert (path.parent / first.removeprefix("#:schema ")).is_file()


def test_the_promised_configs_ship() -> None:
    assert {"quickstart", "default", "overnight", "random_control"} <= set(config_names())


def test_the_control_differs_in_strategy_alone() -> None:
    default, control = load_config("default"), load_config("random_control")
    assert control.search.strategy == "random"
    same = control.search.model_copy(update={"strategy": default.search.strategy})
    assert control.model_copy(update={"search": same}) == default


def test_the_published_schema_is_current(project_root: Path) -> None:
    published = json.loads((project_root / "docs" / "search_config.schema.json").read_text(encoding="utf-8"))
    assert published == json_schema(), "regenerate it: make docs"


def test_the_schema_documents_every_key() -> None:
    schema = json_schema()
    tables = [schema, *schema["$defs"].values()]
    undocumented = [
        key
        for table in tables
        for key, value in table["properties"].items()
        if not value.get("description") and "$ref" not in value
    ]
    assert undocumented == []


def test_strategies_are_those_of_the_search() -> None:
    from ruleforge.search.strategies import STRATEGIES as AVAILABLE

    assert set(STRATEGIES) == set(AVAILABLE)


def test_reading_a_config_imports_nothing_heavy(project_root: Path) -> None:
    code = (
        "import sys; from ruleforge.app.config import load_config; load_config('quickstart');"
        "print(*[m for m in ('torch', 'sympy', 'numba', 'sklearn', 'deap') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=project_root, capture_output=True, text=True, timeout=60,
        env={**os.environ, "PYTHONPATH": str(project_root)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_of_very_many_faults_the_first_are_told() -> None:
    with pytest.raises(ConfigError, match="3000 faults") as caught:
        parse_config("".join(f"k{i} = 1\n" for i in range(3000)))
    lines = caught.value.message.splitlines()
    assert len(lines) == 22 and "'k0'" in lines[1] and lines[-1] == "  and 2980 more"
    assert len(caught.value.message) < 10_000


def test_a_list_without_end_is_refused_and_a_line_without_end_is_not_shown() -> None:
    with pytest.raises(ConfigError, match="20000 entries, at most 1000 are read") as caught:
        parse_config("[search]\nseed_rules = [" + ",".join(f'"ada{i}"' for i in range(20_000)) + "]\n")
    assert (caught.value.line, caught.value.column) == (2, 1)
    assert len(caught.value.context) < 500
    with pytest.raises(ConfigError) as caught:
        parse_config("seed = [" + "1, " * 50_000 + '"x"]\n')
    assert len(str(caught.value)) < 1000 and "^" in caught.value.context


@pytest.mark.parametrize(
    "text",
    [
        '[search]\nseed_rules = ["{}"]',
        '[search]\nseed_rules = ["{}.rule"]',
        '[search]\nprior = "{}"',
        '[training]\nworkloads = ["{}.py:factory"]',
        'seed = 1\ngrammar = "{}"',
        'seed = 1\ngrammar = "{}.toml"',
    ],
)
@pytest.mark.parametrize("name", ["x" * 300, "~nobodyatall/x", "x/" * 3000, "a\\u0000b", "\u00e9" * 200])
def test_a_path_that_no_file_can_have_is_refused(text: str, name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(text.format(name))
    assert caught.value.line == 2


@pytest.mark.parametrize("column", [1, 150, 5000, 9991])
def test_of_a_long_line_the_part_around_the_fault_is_shown(column: int) -> None:
    line = ("x" * 9 + " ") * 1000
    line = line[: column - 1] + "fault" + line[column + 4 :]
    shown, mark = caret([line], 1, column).split("\n")
    assert len(shown) <= 4 + 200
    assert shown[mark.index("^") :].startswith("fault") and mark.count("^") >= 5
