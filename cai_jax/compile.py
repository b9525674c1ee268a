"""Compiles every jitted step of a run for a TPU slice that need not be there.

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
import re
import time
from collections.abc import Iterable
from dataclasses import asdict
from importlib import util
from math import prod
from pathlib import Path
from typing import Any

from absl import app, flags

from cai_jax.ahead.table import GIB, StepReport, table
from cai_jax.main import CONFIG, host_flags, start

log = logging.getLogger("cai_jax")
TOPOLOGY = flags.DEFINE_string("topology", None, "TPU slice, for example v5e:8x16")
SLICES = flags.DEFINE_integer(
    "slices", 1, "slices of it, joined by a data center network", lower_bound=1
)
ONLY = flags.DEFINE_string("only", "", "compile steps whose name has this in it alone")
OUT = flags.DEFINE_string("out", "", "file for the report as JSON; empty: none")
flags.mark_flag_as_required("topology")


def main(argv: list[str]) -> None:
    """Compiles, reports, and fails if something does not fit."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {' '.join(argv[1:])}")
    if given := host_flags():
        raise ValueError(f"{given[0]}: compile ahead runs on this host alone; leave it out")
    out = Path(OUT.value) if OUT.value else None
    if out and not out.parent.is_dir():
        raise ValueError(f"--out={out}: there is no folder {out.parent}; make it first")
    from cai_jax.config import ConfigError, parse_config
    from cai_jax.stages import evaluate, feedback, pm_train, rl, sl_data, sl_train
    from cai_jax.stages.checks import unsplit_rows
    from cai_jax.stages.plan import Plan
    from cai_jax.stages.run import Run

    config = parse_config(CONFIG.value.to_dict())
    if config.pretrain:
        raise ConfigError(
            "config.pretrain: this config makes its model itself, and is made for one machine; "
            "compile ahead takes one that names a pretrained model in config.model.source"
        )
    devices = topology_devices(TOPOLOGY.value, SLICES.value)
    plan = Plan(Run(config, devices))
    if problems := unsplit_rows(plan.run):
        raise ConfigError("\n  ".join(problems))
    modules = (sl_data, sl_train, feedback, pm_train, rl, evaluate)
    modules = [module for module in modules if module.STAGE.name in config.stages]
    steps = [step for module in modules for step in module.steps(plan)]
    wanted = [step for step in steps if ONLY.value in step.name]
    if not wanted:
        names = ", ".join(step.name for step in steps)
        raise ValueError(f"--only={ONLY.value}: no such step; there are: {names}")
    chip = chip_of(devices[0].device_kind)
    reports, compiled = [], {}
    for step in wanted:
        log.info("%s", step.name)
        reports.append(compile_step(step, chip, plan.run.mesh, compiled))
    about = {
        "topology": TOPOLOGY.value,
        "slices": SLICES.value,
        "chips": len(devices),
        "chip": devices[0].device_kind,
        "peaks": asdict(chip),
        "mesh": dict(plan.run.mesh.shape),
        "decoding_mesh": dict(plan.run.decode_mesh.shape),
        "parameters": plan.parameters(plan.source()),
    }
    print("\n".join(table(reports, about)))
    if out:
        report = about | {"steps": [asdict(report) for report in reports]}
        out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if failed := [report.step for report in reports if report.problem]:
        raise ValueError(f"not for {TOPOLOGY.value}: {', '.join(failed)}; see above")


def topology_devices(name: str, slices: int) -> list[Any]:
    """Devices of a TPU slice that can be compiled for, and not run on.

    Raises:
      ValueError: libtpu is not installed, or knows no such slice.
    """
    if util.find_spec("libtpu") is None:
        raise ValueError("--topology: libtpu is not installed; pip install -e '.[tpu]'")
    from jax.experimental import topologies

    try:
        more = {"num_slices": slices} if slices > 1 else {}
        if name.startswith("v4:"):
            more["chip_config_name"] = "megacore"  # both cores of a chip as one device
        description = topologies.get_topology_desc(name, "tpu", **more)
    except Exception as error:  # JAX hands on whatever the plugin says
        raise ValueError(
            f"--topology={name}: no such slice ({str(error).splitlines()[0]}); they are named as "
            "v5e:4x4, v6e:8x16, v5p:4x4x8"
        ) from error
    return list(description.devices)


def chip_of(kind: str) -> Any:
    """Published peaks of a chip.

    Raises:
      ValueError: none are known here.
    """
    from cai_jax.ahead.chips import CHIPS

    if kind not in CHIPS:
        raise ValueError(f"--topology: no peaks are known of {kind!r}; add it to parallel/chips.py")
    return CHIPS[kind]


def compile_step(step: Any, chip: Any, mesh: Any, compiled: dict[str, Any]) -> StepReport:
    """Compiles one step and reads off what it takes.

    Args:
      step: of a plan.
      chip: its peaks.
      mesh: the layout of training.
      compiled: programs so far by their text: stages have some in common.
    """
    import jax

    from cai_jax.ahead.flops import matmul_flops
    from cai_jax.ahead.hlo import Program

    began = time.monotonic()
    try:
        traced = step.trace()
        flops = matmul_flops(traced.jaxpr, mesh.size) / mesh.size
        with step.layout():
            lowered = traced.lower()
        text = lowered.as_text()
        if text not in compiled:
            compiled[text] = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        return StepReport(step.name, _problem(str(error), step.mend))
    seconds = time.monotonic() - began
    memory = compiled[text].memory_analysis()
    arguments = memory.argument_size_in_bytes - placed_bytes(step.twice)
    temporaries = (
        memory.temp_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    )
    beside = placed_bytes(step.beside)
    share = (arguments + temporaries + beside) / chip.memory
    program = Program(compiled[text].as_text())
    traffic = program.traffic()
    times = {
        "computing": flops / chip.flops,
        "memory": traffic.memory / chip.bandwidth,
        "links": traffic.wire / chip.links,
    }
    bound = max(times, key=times.get)
    # Tables are parameters, too, and only products count: never more than there are.
    own = min(step.operations / mesh.size, flops)
    problem = ""
    if share > 1:
        held = arguments + beside > chip.memory
        mend = "take more chips, or train low-rank updates (lora.rank)" if held else step.mend
        more = f"; {step.offload} moves models that wait to the hosts" if step.offload else ""
        problem = f"{(share - 1) * chip.memory / GIB:.1f} GiB a chip too much: {mend}{more}"
    return StepReport(
        step.name,
        problem=problem,
        arguments=arguments,
        temporaries=temporaries,
        beside=beside,
        share=share,
        flops=flops,
        moved=traffic.memory,
        sent=traffic.wire,
        collectives=dict(traffic.collectives),
        decode_collectives=program.decode_collectives(),
        compile_seconds=round(seconds, 1),
        seconds=times[bound],
        bound=bound,
        utilisation=own / times[bound] / chip.flops,
        tokens_per_second=step.tokens / mesh.size / times[bound],
        replicated=replicated(step.args),
        samples=step.mesh not in (mesh, None),
        unread=tuple(sorted(program.unread)),
    )


def _problem(said: str, mend: str) -> str:
    """What the compiler said, in one line."""
    if found := re.search(r"memory required for HLO temporaries \(([\d.]+)([GM])\)", said):
        size = float(found[1]) / (1024 if found[2] == "M" else 1)
        return f"temporaries alone take {size:.1f} GiB a chip: {mend}"
    if found := re.search(r"Used ([\d.]+)G of ([\d.]+)G hbm", said):
        return f"takes {found[1]} GiB of {found[2]} GiB a chip: {mend}"
    return f"does not compile: {said.splitlines()[0]}"


def placed_bytes(tree: Any) -> int:
    """Bytes of one chip that abstract arrays take."""
    import jax

    return sum(
        prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree)
    )


def replicated(args: Iterable[Any]) -> dict[str, int]:
    """Bytes of the parameters, and of their moments, that lie whole on every chip, by name."""
    import jax
    from flax import nnx

    states = jax.tree.leaves(args, is_leaf=lambda x: isinstance(x, nnx.State))
    return {
        jax.tree_util.keystr(path[:-1], simple=True, separator="."): x.size * x.dtype.itemsize
        for state in states
        if isinstance(state, nnx.State)
        for path, x in jax.tree_util.tree_leaves_with_path(state)
        if x.size > 1 and x.sharding.is_fully_replicated
    }


if __name__ == "__main__":
    start(main)
