"""Compiles programs for a slice, and reads off what they take."""

import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from cai_jax.ahead.chips import GIB, Chip
from cai_jax.ahead.flops import matmul_flops
from cai_jax.ahead.hlo import Program as HLO
from cai_jax.ahead.hlo import Traffic
from cai_jax.ahead.table import StepReport
from cai_jax.generation.slots import Slots
from cai_jax.models.decoder import Prefix
from cai_jax.parallel.program import Program
from cai_jax.rl.rollout import Rollout
from cai_jax.rl.updates import Experience

WIDE = (Slots, Prefix, Rollout, Experience)
MORE_CHIPS = "take more chips, or train low-rank updates (lora.rank)"


def widest(programs: Iterable[Program]) -> list[tuple[Program, int]]:
    """The widest of the programs that differ in the width of their rows alone.

    It takes the most memory, and a run compiles the narrower ones where its rows are short. Rows
    are integers, the slots of a generator, what rows share or a rollout, and parameters are none of
    these: their width is what the shapes of those differ in.

    Args:
      programs: of stages, the widest of a kind first.

    Returns:
      Each widest program, with the number of narrower ones.
    """
    kinds: dict[Any, list[Program]] = {}
    for program in programs:
        structure = jax.tree.structure(program.args)  # it holds the graphs
        shapes = tuple(
            (x.dtype, x.ndim if isinstance(arg, WIDE) or _is_integer(x) else x.shape)
            for arg in program.args
            for x in jax.tree.leaves(arg)
        )
        static = tuple(program.static.items())
        key = (program.name, program.function, static, structure, shapes)
        kinds.setdefault(key, []).append(program)
    return [(kind[0], len({_widths(program) for program in kind}) - 1) for kind in kinds.values()]


def _is_integer(x: jax.ShapeDtypeStruct) -> bool:
    return jnp.issubdtype(x.dtype, jnp.integer)


def _widths(program: Program) -> tuple[tuple[int, ...], ...]:
    return tuple(x.shape for x in jax.tree.leaves(program.args))


@dataclass(frozen=True)
class Memory:
    """What a program takes of a chip's memory, in bytes.

    Attributes:
      arguments: its inputs; those that share a buffer count once.
      temporaries: what it allocates, with results that no donated argument holds.
      resident: arrays that are on the chip meanwhile, and are not passed to it.
    """

    arguments: int
    temporaries: int
    resident: int

    @property
    def total(self) -> int:
        """All three."""
        return self.arguments + self.temporaries + self.resident


@dataclass(frozen=True)
class Compiler:
    """Compiles programs for a slice of a kind of chip.

    Attributes:
      chip: its peaks.
      mesh: of training, over all devices of the slice.
    """

    chip: Chip
    mesh: Mesh
    _compiled: dict[str, Any] = field(default_factory=dict)  # by text: stages share programs

    def report(self, program: Program) -> StepReport:
        """Compiles one program: what it takes of a chip, or why it does not compile."""
        began, devices = time.monotonic(), self.mesh.size
        try:
            traced = program.trace()
            flops = matmul_flops(traced.jaxpr, devices) / devices
            compiled = self._compile(program, traced)
        except jax.errors.JaxRuntimeError as error:
            return StepReport(program.name, problem=_refusal(str(error), program.remedy))
        seconds = time.monotonic() - began
        memory, optimized = _memory(program, compiled), HLO(compiled.as_text())
        traffic = optimized.traffic()
        times = self._times(flops, traffic)
        bound = max(times, key=times.__getitem__)
        least = times[bound]
        per_second = lambda amount: amount / devices / least if least else 0.0
        # Tables are parameters, too, and only matmuls count: never more than there are.
        own = min(program.model_flops, flops * devices)
        return StepReport(
            program.name,
            problem=self._problem(program, memory),
            arguments=memory.arguments,
            temporaries=memory.temporaries,
            resident=memory.resident,
            share=memory.total / self.chip.memory,
            flops=flops,
            moved=traffic.memory,
            sent=traffic.wire,
            collectives=dict(traffic.collectives),
            decode_collectives=optimized.decode_collectives(),
            compile_seconds=round(seconds, 1),
            seconds=least,
            bound=bound if least else "",
            utilisation=per_second(own) / self.chip.flops,
            tokens_per_second=per_second(program.tokens),
            replicated=replicated(program.args),
            samples=program.mesh not in (self.mesh, None),
            unread=tuple(sorted(optimized.unread)),
        )

    def _compile(self, program: Program, traced: Any) -> Any:
        with program.layout():
            lowered = traced.lower()
        text = lowered.as_text()
        if text not in self._compiled:
            self._compiled[text] = lowered.compile()
        return self._compiled[text]

    def _times(self, flops: float, traffic: Traffic) -> Mapping[str, float]:
        """Seconds that each of three things takes at least."""
        return {
            "computing": flops / self.chip.flops,
            "memory": traffic.memory / self.chip.bandwidth,
            "links": traffic.wire / self.chip.links,
        }

    def _problem(self, program: Program, memory: Memory) -> str:
        """By how much a program does not fit, and the remedy; empty where it fits."""
        excess = memory.total - self.chip.memory
        if excess <= 0:
            return ""
        lasting = memory.arguments + memory.resident
        remedy = MORE_CHIPS if lasting > self.chip.memory else program.remedy
        more = f"; {program.offload} moves unused models to the hosts" if program.offload else ""
        return f"{excess / GIB:.1f} GiB a chip too much: {remedy}{more}"


def _memory(program: Program, compiled: Any) -> Memory:
    found = compiled.memory_analysis()
    return Memory(
        arguments=found.argument_size_in_bytes - device_bytes(program.aliased),
        temporaries=found.temp_size_in_bytes
        + found.output_size_in_bytes
        - found.alias_size_in_bytes,
        resident=device_bytes(program.resident),
    )


def _refusal(said: str, remedy: str) -> str:
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
