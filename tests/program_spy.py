"""Which programs a run calls, and which ones compile ahead lists; as sets that can be compared."""

import logging
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax
import pytest
from flax import nnx

from cai_jax.generation.readings import read_prefix
from cai_jax.parallel.program import Program
from cai_jax.stages.stage import Run, Stage


@dataclass
class Calls:
    """What was called, by stage, and what was compiled, by name."""

    by_stage: dict[str, set] = field(default_factory=dict)
    compiled: Counter = field(default_factory=Counter)


def function_name(program: Program) -> str:
    inner = getattr(program.function, "__wrapped__", program.function)
    while isinstance(inner, partial):
        inner = inner.func
    return inner.__name__


def described(x: Any) -> Any:
    """An array by shape, dtype, memory and the indices on every device; a graph as it is."""
    if isinstance(x, nnx.GraphDef):
        return x
    where = x.sharding.devices_indices_map(tuple(x.shape))
    places = sorted((device.id, str(index)) for device, index in where.items())
    return f"{x.dtype}{tuple(x.shape)} {x.sharding.memory_kind} {places}"


def key(program: Program, args: tuple) -> tuple:
    leaves = jax.tree.leaves(args, is_leaf=lambda x: isinstance(x, nnx.GraphDef))
    arrays = tuple(map(described, leaves))
    if not leaves:  # what it makes tells an initializer from another
        made = jax.tree.leaves(jax.eval_shape(program.function))
        arrays = tuple(f"{x.dtype}{x.shape}" for x in made)
    # The values themselves: algorithms of one set of constants have one hash.
    static = tuple(sorted(program.static.items(), key=lambda item: item[0]))
    return (function_name(program), program.mesh, static, arrays)


def listed(run: Run, stage: Stage) -> set:
    """What compile ahead lists for a stage."""
    return {key(program, program.args) for program in stage.programs(run.inputs(stage))}


def check_listed(called: set, planned: set) -> None:
    """All that ran was listed, and every kind that is listed ran.

    A kind may be listed for widths of rows that a run has not.
    """
    assert called <= planned, {name for name, *_ in called - planned}
    kinds = lambda keys: {(name, *rest[:2]) for name, *rest in keys}
    missing = kinds(planned) - kinds(called)
    assert {name for name, *_ in missing} <= {read_prefix.__name__}, missing


@contextmanager
def spying(stages: list[Stage]) -> Iterator[tuple[Calls, list[Stage]]]:
    """The same stages, whose calls are noted."""
    calls = Calls()
    call = Program.__call__

    def noted(stage: Stage):
        def execute(inputs, folder):
            seen = calls.by_stage.setdefault(stage.name, set())

            def spy(program, *args):
                seen.add(key(program, args))
                return call(program, *args)

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(Program, "__call__", spy)
                return stage.execute(inputs, folder)

        return replace(stage, execute=execute)

    class Compiles(logging.Handler):
        def emit(self, record):
            if found := re.match(r"Compiling jit\((?:partial\()?(\w+)\)? ?", record.getMessage()):
                calls.compiled[found[1]] += 1

    handler, log = Compiles(), logging.getLogger("jax._src.interpreters.pxla")
    propagate, log.propagate = log.propagate, False
    log.addHandler(handler)
    try:
        with jax.log_compiles(True):
            yield calls, [noted(stage) for stage in stages]
    finally:
        log.removeHandler(handler)
        log.propagate = propagate
