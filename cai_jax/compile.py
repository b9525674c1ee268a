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

import jax
from absl import app, flags
from flax import nnx

from cai_jax.ahead.chips import CHIPS, Chip
from cai_jax.ahead.flops import matmul_flops
from cai_jax.ahead.hlo import Program as HLO
from cai_jax.ahead.table import GIB, StepReport, table
from cai_jax.config import ConfigError, parse_config
from cai_jax.main import CONFIG, host_flags, start
from cai_jax.parallel.program import Program
from cai_jax.stages.checks import unsplit_rows
from cai_jax.stages.models import Models
from cai_jax.stages.pipeline import stages_of
from cai_jax.stages.stage import open_run

log = logging.getLogger("cai_jax")
TOPOLOGY = flags.DEFINE_string("topology", None, "TPU slice, for example v5e:8x16")
SLICES = flags.DEFINE_integer(
    "slices", 1, "slices of it, joined by a data center network", lower_bound=1
)
ONLY = flags.DEFINE_string("only", "", "compile steps whose name has this in it alone")
OUT = flags.DEFINE_string("out", "", "file for the report as JSON; empty: none")
flags.mark_flag_as_required("topology")
MORE_DEVICES = "take more chips, or train low-rank updates (lora.rank)"


def main(argv: list[str]) -> None:
    """Compiles, reports, and fails if something does not fit."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {' '.join(argv[1:])}")
    if given := host_flags():
        raise ValueError(f"{given[0]}: compile ahead runs on this host alone; leave it out")
    out = Path(OUT.value) if OUT.value else None
    if out and not out.parent.is_dir():
        raise ValueError(f"--out={out}: there is no folder {out.parent}; make it first")

    config = parse_config(CONFIG.value.to_dict())
    if config.pretrain:
        raise ConfigError(
            "config.pretrain: this config makes its model itself, and is made for one machine; "
            "compile ahead takes one that names a pretrained model in config.model.source"
        )
    devices = topology_devices(TOPOLOGY.value, SLICES.value)
    run = open_run(config, devices, ahead=True)
    if problems := unsplit_rows(run):
        raise ConfigError("\n  ".join(problems))
    stages = [stage for stage in stages_of(config) if stage.name in config.stages]
    programs = [p for stage in stages for p in stage.programs(run.inputs(stage))]
    wanted = [p for p in widest(programs) if ONLY.value in p.name]
    if not wanted:
        names = ", ".join(dict.fromkeys(p.name for p in programs))
        raise ValueError(f"--only={ONLY.value}: no such program; there are: {names}")
    chip = chip_of(devices[0].device_kind)
    reports, compiled = [], {}
    for program in wanted:
        log.info("%s", program.name)
        reports.append(compile_program(program, chip, run.models, compiled))
    about = {
        "topology": TOPOLOGY.value,
        "slices": SLICES.value,
        "chips": len(devices),
        "chip": devices[0].device_kind,
        "peaks": asdict(chip),
        "mesh": dict(run.models.mesh.shape),
        "decoding_mesh": dict(run.models.decode_mesh.shape),
        "parameters": run.models.policy(run.models.policy_source("base")).size,
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


def chip_of(kind: str) -> Chip:
    """Published peaks of a chip.

    Raises:
      ValueError: none are known here.
    """
    if kind not in CHIPS:
        raise ValueError(f"--topology: no peaks are known of {kind!r}; add it to parallel/chips.py")
    return CHIPS[kind]


def widest(programs: Iterable[Program]) -> list[Program]:
    """Of the programs that differ in the width of their rows alone, the widest.

    It takes the most memory; a run compiles the narrower ones where its rows are short.
    """
    first: dict[Any, Program] = {}
    for program in programs:
        first.setdefault((program.name, program.args[0] if program.args else None), program)
    return list(first.values())


def compile_program(
    program: Program, chip: Chip, models: Models, compiled: dict[str, Any]
) -> StepReport:
    """Compiles one program and reads off what it takes.

    Args:
      program: of a stage.
      chip: its peaks.
      models: of the run.
      compiled: programs so far by their text: stages have some in common.
    """
    began, devices = time.monotonic(), models.mesh.size
    try:
        traced = program.trace()
        flops = matmul_flops(traced.jaxpr, devices) / devices
        with program.layout():
            lowered = traced.lower()
        text = lowered.as_text()
        if text not in compiled:
            compiled[text] = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        return StepReport(program.name, _problem(str(error), program.remedy))
    seconds = time.monotonic() - began
    memory = compiled[text].memory_analysis()
    arguments = memory.argument_size_in_bytes - device_bytes(program.aliased)
    temporaries = (
        memory.temp_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    )
    resident = device_bytes(program.resident)
    share = (arguments + temporaries + resident) / chip.memory
    optimized = HLO(compiled[text].as_text())
    traffic = optimized.traffic()
    times = {
        "computing": flops / chip.flops,
        "memory": traffic.memory / chip.bandwidth,
        "links": traffic.wire / chip.links,
    }
    bound = max(times, key=times.__getitem__)
    # Tables are parameters, too, and only matmuls count: never more than there are.
    own = min(program.model_flops / devices, flops)
    problem = ""
    if share > 1:
        held = arguments + resident > chip.memory
        remedy = (
            "take more chips, or train low-rank updates (lora.rank)" if held else program.remedy
        )
        more = f"; {program.offload} moves unused models to the hosts" if program.offload else ""
        problem = f"{(share - 1) * chip.memory / GIB:.1f} GiB a chip too much: {remedy}{more}"
    return StepReport(
        program.name,
        problem=problem,
        arguments=arguments,
        temporaries=temporaries,
        resident=resident,
        share=share,
        flops=flops,
        moved=traffic.memory,
        sent=traffic.wire,
        collectives=dict(traffic.collectives),
        decode_collectives=optimized.decode_collectives(),
        compile_seconds=round(seconds, 1),
        seconds=times[bound],
        bound=bound if times[bound] else "",
        utilisation=own / times[bound] / chip.flops if times[bound] else 0.0,
        tokens_per_second=program.tokens / devices / times[bound] if times[bound] else 0.0,
        replicated=replicated(program.args),
        samples=program.mesh not in (models.mesh, None),
        unread=tuple(sorted(optimized.unread)),
    )


def _problem(said: str, remedy: str) -> str:
    """What the compiler said, in one line."""
    if found := re.search(r"memory required for HLO temporaries \(([\d.]+)([GM])\)", said):
        size = float(found[1]) / (1024 if found[2] == "M" else 1)
        return f"temporaries alone take {size:.1f} GiB a chip: {remedy}"
    if found := re.search(r"Used ([\d.]+)G of ([\d.]+)G hbm", said):
        return f"takes {found[1]} GiB of {found[2]} GiB a chip: {remedy}"
    return f"does not compile: {said.splitlines()[0]}"


def device_bytes(tree: Any) -> int:
    """Bytes of one device that abstract arrays take."""
    return sum(
        prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree)
    )


def replicated(args: Iterable[Any]) -> dict[str, int]:
    """Bytes of the parameters, and of their moments, that lie whole on every chip, by name."""
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
