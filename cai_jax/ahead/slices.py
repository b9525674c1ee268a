"""TPU slices that programs are compiled for, and that need not be there."""

from collections.abc import Sequence
from importlib import util
from typing import Any

import jax
from jax.experimental import topologies

from cai_jax.ahead.chips import CHIPS, Chip


def topology_devices(name: str, slices: int) -> list[jax.Device]:
    """Devices that can be compiled for, and not run on.

    Args:
      name: of a slice, for example v5e:8x16.
      slices: of this kind, joined by a data center network.

    Raises:
      ValueError: libtpu is not installed, or knows no such slice.
    """
    if util.find_spec("libtpu") is None:
        raise ValueError("libtpu is not installed; pip install -e '.[tpu]'")
    more: dict[str, Any] = {"num_slices": slices} if slices > 1 else {}
    if name.endswith(":1x1"):  # a host has four chips unless told otherwise
        more["chips_per_host_bounds"] = (1, 1, 1)
    if name.startswith("v4:"):
        more["chip_config_name"] = "megacore"  # both cores of a chip as one device
    try:
        return list(topologies.get_topology_desc(name, "tpu", **more).devices)
    except Exception as error:  # JAX passes on whatever the plugin raises
        raise ValueError(
            f"no such slice ({str(error).splitlines()[0]}); name one as v5e:4x4, v6e:8x16, "
            "v5p:4x4x8"
        ) from error


def chip_of(devices: Sequence[jax.Device]) -> Chip:
    """Published peaks of the devices' chip.

    Raises:
      ValueError: none are known here.
    """
    kind = devices[0].device_kind
    if kind not in CHIPS:
        raise ValueError(f"no peaks are known of {kind!r}; add it to CHIPS in ahead/chips.py")
    return CHIPS[kind]
