"""What compiling takes."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax

STEPS = (
    "/jax/core/compile/jaxpr_to_mlir_module_duration",
    "/jax/core/compile/backend_compile_duration",  # or a load from the persistent cache
)


@contextmanager
def compilation() -> Iterator[list[float]]:
    """Collects the seconds of each lowering and compilation within the block, in a list."""
    found: list[float] = []

    def heard(event: str, duration_secs: float, **_: Any) -> None:
        if event in STEPS:
            found.append(duration_secs)

    jax.monitoring.register_event_duration_secs_listener(heard)
    try:
        yield found
    finally:
        jax.monitoring.unregister_event_duration_listener(heard)
