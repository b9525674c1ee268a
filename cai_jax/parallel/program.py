"""Programs: jitted functions with all that decides what is compiled."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh

# Arrays of a batch: on the host, on devices, or abstract.
Array = TypeVar("Array", np.ndarray, jax.Array, jax.ShapeDtypeStruct)


@dataclass(frozen=True)
class Program:
    """A jitted function, its static arguments, its mesh, and what it is called with.

    A stage makes its programs in one place: a run calls them, compile ahead lowers them, and
    benchmarks time them.

    Attributes:
      name: stage and step.
      function: jitted.
      args: the arrays it is called with, abstract: shapes, dtypes and shardings.
      static: keyword arguments that are compiled in.
      mesh: set while it is traced and called; None: ``function`` states all shardings itself.
      tokens: that one call samples, or else reads, over all devices, padding included.
      model_flops: of one call, over all devices: two for each parameter and token that are
        multiplied, and what the gradients take; recomputation excluded.
      resident: arrays that are on the devices during the call, and are not passed to it.
      aliased: arguments that share the buffers of other arguments.
      remedy: what to change where its temporaries do not fit.
      offload: what would move some of ``resident`` to the hosts' memory; empty: nothing.
    """

    name: str
    function: jax.stages.Wrapped
    args: tuple[Any, ...]
    static: Mapping[str, Any] = field(default_factory=dict)
    mesh: Mesh | None = None
    tokens: int = 0
    model_flops: float = 0.0
    resident: tuple[Any, ...] = ()
    aliased: tuple[Any, ...] = ()
    remedy: str = ""
    offload: str = ""

    def __call__(self, *args: Any) -> Any:
        """Calls the function with arrays like ``args``."""
        with self.layout():
            return self.function(*args, **self.static)

    def trace(self) -> Any:
        """The traced program; ``lower()`` of it is for the platform of its mesh."""
        with self.layout():
            return self.function.trace(*self.args, **self.static)

    def layout(self) -> AbstractContextManager[Any]:
        """The mesh, as a context."""
        return jax.set_mesh(self.mesh) if self.mesh else nullcontext()


def abstract(tree: Any) -> Any:
    """Shapes, dtypes and shardings of arrays, concrete or abstract."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree)
