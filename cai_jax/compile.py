"""Compiles every program of a run for a TPU slice that need not be there.

python -m cai_jax.compile --config=configs/rlaif.py:llama3-8b --topology=v5e:8x16

prints what each step takes of a chip's memory, what it computes and moves, and how long it takes
at best. It needs ``pip install -e '.[tpu]'``, and no TPU, no weights and no data.
"""

import os

# Without these libtpu looks for a TPU on this machine, and waits.
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # nothing runs: two may compile at once
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TPU_MIN_LOG_LEVEL", "3")

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, replace

import jax
from absl import flags

from cai_jax.ahead.compiler import Compiler, widest
from cai_jax.ahead.slices import chip_of, topology_devices
from cai_jax.ahead.table import Report, StepReport, table
from cai_jax.commands.config_flag import config_file, read_config
from cai_jax.commands.files import check_out, out_file, write_whole
from cai_jax.commands.front import start
from cai_jax.config import Config, ConfigError, naming
from cai_jax.parallel.program import Program
from cai_jax.stages.checks import unsplit_rows
from cai_jax.stages.pipeline import stages_of
from cai_jax.stages.stage import Run, open_run

log = logging.getLogger("cai_jax")
TOPOLOGY = flags.DEFINE_string("topology", None, "TPU slice, for example v5e:8x16", required=True)
SLICES = flags.DEFINE_integer(
    "slices", 1, "slices of it, joined by a data center network", lower_bound=1
)
ONLY = flags.DEFINE_string("only", "", "compile steps whose name has this in it alone")
OUT = flags.DEFINE_string("out", "", "file for the report as JSON; empty: none")


def main() -> None:
    """Compiles, reports, and fails if something does not fit."""
    out = out_file(OUT.value) if OUT.value else None
    if out and not out.parent.is_dir():
        raise ValueError(f"--out={out}: there is no folder {out.parent}; make it first")
    if out:
        check_out(out, inputs=[config_file()])
    config = read_config()
    if config.pretrain:
        raise ConfigError(
            "config.pretrain: this config makes its model itself, and is made for one machine; "
            "compile ahead takes one that names a pretrained model in config.model.source"
        )
    with naming(f"--topology={TOPOLOGY.value}"):
        devices = topology_devices(TOPOLOGY.value, SLICES.value)
        chip = chip_of(devices)
    run = open_run(config, devices, ahead=True)
    for stage in stages_of(config):
        stage.check(run.inputs(stage))
    if problems := unsplit_rows(run):
        raise ConfigError("\n  ".join(problems))
    # A program that another process has compiled says nothing of its memory, and takes no time.
    jax.config.update("jax_enable_compilation_cache", False)
    compiler = Compiler(chip, run.models.mesh)
    steps = [_compiled(compiler, *each) for each in _wanted(programs_of(run, config))]
    report = Report(
        topology=TOPOLOGY.value,
        slices=SLICES.value,
        chips=len(devices),
        chip=devices[0].device_kind,
        peaks=chip,
        mesh=dict(run.models.mesh.shape),
        decoding_mesh=dict(run.models.decode_mesh.shape),
        parameters=run.models.policy(run.models.policy_source("base")).size,
        steps=tuple(steps),
    )
    if out:
        write_whole(out, json.dumps(asdict(report), indent=1) + "\n")
    print(table(report))
    if failed := [step.step for step in steps if step.problem]:
        raise ValueError(f"not for {TOPOLOGY.value}: {', '.join(failed)}; see above")


def programs_of(run: Run, config: Config) -> list[Program]:
    """All programs of the stages that the config names."""
    wanted = [stage for stage in stages_of(config) if stage.name in config.stages]
    return [program for stage in wanted for program in stage.programs(run.inputs(stage))]


def _wanted(programs: Sequence[Program]) -> list[tuple[Program, int]]:
    """The programs that --only names, without those for shorter rows, whose number is given."""
    found = [each for each in widest(programs) if ONLY.value in each[0].name]
    if not found:
        names = ", ".join(dict.fromkeys(p.name for p in programs))
        raise ValueError(f"--only={ONLY.value}: no such program; there are: {names}")
    return found


def _compiled(compiler: Compiler, program: Program, narrower: int) -> StepReport:
    log.info("%s", program.name)
    return replace(compiler.report(program), narrower=narrower)


if __name__ == "__main__":
    start(main)
