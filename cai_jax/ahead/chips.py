"""Peak numbers of accelerators, as their makers publish them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Chip:
    """Peak numbers of one chip."""

    memory: float  # bytes of HBM
    bandwidth: float  # bytes per second, of HBM
    flops: float  # bfloat16 floating point operations per second
    links: float  # bytes per second to other chips of the slice, over all links, one way


GIB = 2.0**30
# Google Cloud, "TPU versions": HBM, its bandwidth, bf16 peak, inter-chip interconnect in Gbit/s.
CHIPS = {
    "TPU v4": Chip(32 * GIB, 1228e9, 275e12, 2400e9 / 8),
    "TPU v5 lite": Chip(16 * GIB, 819e9, 197e12, 1600e9 / 8),
    "TPU v5": Chip(95 * GIB, 2765e9, 459e12, 4800e9 / 8),
    "TPU v6 lite": Chip(32 * GIB, 1600e9, 918e12, 3200e9 / 8),
}
