"""An exported file works where ruleforge is not installed, in a plain training script."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from ruleforge.core.known import KNOWN
from ruleforge.export import export, write

SCRIPT = """
import sys
sys.path.insert(0, {folder!r})

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "ruleforge":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())
try:
    import ruleforge
except ModuleNotFoundError:
    pass
else:
    raise SystemExit("ruleforge is importable here")

import torch
from {module} import {name}

torch.manual_seed(0)
net = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 1))
x = torch.randn(64, 8)
y = x.sum(1, keepdim=True)
optimizer = {name}(net.parameters(), lr=1e-2, weight_decay=1e-2)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 100)
losses = []
for _ in range(100):
    optimizer.zero_grad()
    loss = torch.nn.functional.mse_loss(net(x), y)
    loss.backward()
    optimizer.step()
    scheduler.step()
    losses.append(loss.item())
print(losses[0], losses[-1])
heavy = [m for m in sys.modules if m.split(".")[0] in ("ruleforge", "numba", "deap", "sklearn")]
assert not heavy, heavy
assert losses[-1] < 0.3 * losses[0]
"""


@pytest.mark.parametrize("name", ["lion", "cautious_adamw"])
def test_trains_without_ruleforge(name: str, tmp_path: Path) -> None:
    write(tmp_path / "found_rule.py", export(KNOWN[name].rule, "torch", class_name="FoundRule"))
    script = SCRIPT.format(folder=str(tmp_path), module="found_rule", name="FoundRule")
    done = subprocess.run(
        [sys.executable, "-I", "-c", script],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_imports_torch_and_the_standard_library_alone(name: str) -> None:
    source = export(KNOWN[name].rule, "torch")
    modules = re.findall(r"^(?:import|from) ([\w.]+)", source, re.MULTILINE)
    assert {module.split(".")[0] for module in modules} <= {"torch", *sys.stdlib_module_names}
    assert re.findall(r"^from torch\S* import .*", source, re.MULTILINE) == [
        "from torch import Tensor",
        "from torch.optim.optimizer import Optimizer, ParamsT",
    ]
