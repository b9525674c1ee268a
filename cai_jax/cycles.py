"""Attacks a run's RL-CAI, trains again with what succeeded, and so on.

python -m cai_jax.cycles --config=configs/microworld.py:red_team --workdir=runs/cycles --cycles=2

Every cycle is an ordinary run of the config, DIR/cycle-K, that anybody can start by itself. From
the second one on, its stage red_team attacks RL-CAI of the cycle before, judged by that cycle's
preference model; what succeeded in all cycles is DIR/cycle-K.jsonl, which all stages train on, as
config.data.red_team_attacks. Each trains from the same base model as the first: cycles then differ
by their prompts alone, and no distance to the base adds up. Stages that read no attacks are taken
from DIR/stages. The same command again goes on where it was.
"""

import logging
import subprocess
import sys
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from cai_jax.commands.config_flag import CONFIG, read_config
from cai_jax.commands.files import write_whole
from cai_jax.commands.front import start
from cai_jax.config import ConfigError, groups_of
from cai_jax.data.readers import Attack, read_attacks
from cai_jax.evaluation.measure import with_interval
from cai_jax.evaluation.registry import sections
from cai_jax.red_teaming.attacks import FILE, text_of
from cai_jax.report.summary import read_summary
from cai_jax.stages.evaluate import plan_of
from cai_jax.storage.files import resolved
from cai_jax.storage.sealed import check_whole

WORKDIR = flags.DEFINE_string("workdir", None, "folder of the cycles", required=True)
CYCLES = flags.DEFINE_integer("cycles", 2, "runs, the first without attacks", lower_bound=1)
# What is told of each cycle, where the run measures it.
TOLD = (
    "attacks.success/rl_cai/",
    "oracle.helpful/rl_cai/helpful",
    "evasiveness.engages/rl_cai/helpful/rule",
    "twins.over_refusal/rl_cai/",
)
log = logging.getLogger("cai_jax")


def main() -> None:
    """Runs the cycles one after another, until the attacker finds nothing new."""
    config, root = read_config(), resolved(WORKDIR.value)
    if not config.red_team.rounds or not config.evaluate.attacks:
        raise ConfigError(
            "config.red_team.rounds and config.evaluate.attacks: nobody attacks, or nobody "
            "measures it; set both above 0"
        )
    if config.constitution.groups:
        raise ConfigError(
            "config.constitution.groups: an attack is judged by one preference model, and each "
            "group has its own; empty it, and name one constitution in config.constitution.path"
        )
    plan = plan_of(config, groups_of(config))
    declared = [key for section in sections(plan) for key in section.declared()]
    columns = {"measure": [key for key in declared if key.startswith(TOLD)]}
    for cycle in range(CYCLES.value):
        run_cycle(root, cycle)
        columns[f"cycle {cycle}"] = told(root, cycle, columns["measure"])
        rows = [list(columns), ["---"] * len(columns), *zip(*columns.values(), strict=True)]
        write_whole(root / "table.md", "".join(f"| {' | '.join(row)} |\n" for row in rows))
        if cycle and not attacks_of(root, cycle):
            log.info("cycle %d: no attack succeeded; the attacker has stalled", cycle)
            break
    print((root / "table.md").read_text(encoding="utf-8"))


def told(root: Path, cycle: int, keys: list[str]) -> list[str]:
    """What a cycle measured, with intervals; empty where there was nothing to measure."""
    file = root / f"cycle-{cycle}" / "report" / "summary.json"
    check_whole(file)
    summary = read_summary(file)
    found = map(summary.evaluation.measurements.get, keys)
    return [with_interval(m, "{:.3f}".format) if m else "" for m in found]


def run_cycle(root: Path, cycle: int) -> None:
    """One run in a process of its own.

    Raises:
      ValueError: it failed.
    """
    command = [sys.executable, "-m", "cai_jax.main"]
    command.append(f"--config={config_flags.get_config_filename(flags.FLAGS['config'])}")
    overrides = config_flags.get_override_values(flags.FLAGS["config"])
    command += [f"--config.{name}={value}" for name, value in overrides.items()]
    command += [f"--config.workdir={root / f'cycle-{cycle}'}"]
    if not CONFIG.value.stage_store:
        command.append(f"--config.stage_store={root / 'stages'}")
    if cycle:
        before = root / f"cycle-{cycle - 1}"
        command += [
            f"--config.red_team.target={before / 'rl' / 'checkpoint'}",
            f"--config.red_team.judge={before / 'pm_train' / 'checkpoint'}",
        ]
        if attacks := [attack for k in range(cycle) for attack in attacks_of(root, k)]:
            file = root / f"attacks-{cycle}.jsonl"
            write_whole(file, text_of(attacks))
            command.append(f"--config.data.red_team_attacks={file}")
    else:
        command.append("--config.red_team.rounds=0")
    log.info("cycle %d: %s", cycle, " ".join(command[2:]))
    if subprocess.run(command, check=False).returncode:
        raise ValueError(f"cycle {cycle} failed, see above; the same command again goes on there")


def attacks_of(root: Path, cycle: int) -> list[Attack]:
    """Attacks that succeeded in a cycle."""
    file = root / f"cycle-{cycle}" / "red_team" / FILE
    return read_attacks(file) if file.exists() else []


if __name__ == "__main__":
    start(main)
