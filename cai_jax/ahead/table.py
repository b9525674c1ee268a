"""The report of compile-ahead on the steps of a run on a TPU slice, as a table."""

import re
from dataclasses import dataclass
from typing import Any

GIB = 2**30
TIGHT = 0.9  # share of the memory above which a step may not fit


@dataclass(frozen=True)
class StepReport:
    """What one step needs; sizes are in bytes per chip.

    Attributes:
      step: stage and step.
      problem: why it does not compile or fit, and the remedy; empty: it fits.
      arguments: its inputs.
      temporaries: what it allocates, with results that no donated argument holds.
      resident: models that are resident during the step and not passed to it.
      share: all three, as a share of the chip's memory.
      flops: floating point operations per chip, recomputation included.
      moved: bytes to and from the chip's memory.
      sent: bytes to other chips.
      collectives: bytes of results, by kind.
      decode_collectives: HLO types of those in the sampling loop, by kind.
      compile_seconds: on this machine.
      seconds: lower bound: the slowest of computing, memory and links, fully overlapped.
      bound: which of the three is the slowest.
      utilisation: share of the chip's peak FLOP/s, recomputation excluded.
      tokens_per_second: per chip; sampled tokens if the step samples, else tokens that it reads.
      replicated: bytes of the parameters that are replicated on every chip, by name.
      samples: whether it runs in the sampling layout.
      unread: loops of unknown length, which count once.
    """

    step: str
    problem: str = ""
    arguments: int = 0
    temporaries: int = 0
    resident: int = 0
    share: float = 0.0
    flops: float = 0.0
    moved: float = 0.0
    sent: float = 0.0
    collectives: dict[str, float] | None = None
    decode_collectives: dict[str, list[str]] | None = None
    compile_seconds: float = 0.0
    seconds: float = 0.0
    bound: str = ""
    utilisation: float = 0.0
    tokens_per_second: float = 0.0
    replicated: dict[str, int] | None = None
    samples: bool = False
    unread: tuple[str, ...] = ()


def table(reports: list[StepReport], about: dict[str, Any]) -> list[str]:
    """The lines of the report.

    Args:
      reports: one per step.
      about: facts of the slice and the model, as ``cai_jax.compile`` collects them.
    """
    chips, peaks = about["chips"], about["peaks"]
    slices = f"{about['slices']} x " if about["slices"] > 1 else ""
    lines = [
        f"{slices}{about['topology']}: {chips} chips, {about['chip']}; "
        f"{about['parameters'] / 1e9:.2f} billion parameters",
        f"training layout {about['mesh']}, sampling layout {about['decoding_mesh']}",
        "",
        "| step | arguments | temporaries | resident | of memory | TFLOP | GB moved | GB sent "
        "| compiled in | lower bound | limited by | utilisation | tokens/s/chip |",
        "| --- |" + " ---: |" * 8 + " ---: | --- | ---: | ---: |",
    ]
    for r in reports:
        if not r.share:
            lines.append(f"| {r.step} | see its PROBLEM |" + " |" * 11)
            continue
        gib = [f"{size / GIB:.2f} GiB" for size in (r.arguments, r.temporaries, r.resident)]
        lines.append(
            f"| {r.step} | {' | '.join(gib)} | {r.share:.0%} | {r.flops / 1e12:.1f} | "
            f"{r.moved / 1e9:.1f} | {r.sent / 1e9:.2f} | {r.compile_seconds:.0f} s | "
            f"{r.seconds:.3g} s | {r.bound} | {r.utilisation:.0%} | {r.tokens_per_second:.0f} |"
        )
    lines += ["", "Collectives, GB of results per chip:"]
    for r in reports:
        kinds = ", ".join(f"{k} {v / 1e9:.2f}" for k, v in sorted((r.collectives or {}).items()))
        lines.append(f"  {r.step}: {kinds or 'none'}")
        for kind, types in sorted((r.decode_collectives or {}).items()):
            shapes = sorted({re.sub(r"\{[^}]*\}", "", t) for t in types})
            lines.append(f"    per token: {len(types)} x {kind} of {', '.join(shapes)}")
    lines.append("")
    for layout, samples in (("training", False), ("sampling", True)):
        replicated: dict[str, int] = {}
        for r in reports:
            replicated |= (r.replicated or {}) if r.samples == samples else {}
        names = ", ".join(f"{n} ({size / 1024:.0f} KiB)" for n, size in sorted(replicated.items()))
        lines.append(
            f"Parameters replicated on every chip in the {layout} layout: {names or 'none'}"
        )
    for r in reports:
        if r.problem:
            lines.append(f"PROBLEM {r.step}: {r.problem}")
        elif r.share > TIGHT:
            lines.append(
                f"TIGHT {r.step}: {r.share:.0%} of memory, and the runtime needs some, too; stay "
                f"below {TIGHT:.0%}"
            )
        if r.unread:
            lines.append(f"UNKNOWN {r.step}: loops that count once: {', '.join(r.unread)}")
    if about["slices"] > 1:
        lines.append("The estimate ignores the slower network between slices.")
    lines += [
        "",
        f"Published peaks of a chip: {peaks['memory'] / GIB:.0f} GiB at "
        f"{peaks['bandwidth'] / 1e9:.0f} GB/s, {peaks['flops'] / 1e12:.0f} TFLOP/s in bfloat16, "
        f"links {peaks['links'] / 1e9:.0f} GB/s in total.",
        "Lower bound: the slowest of computing, memory and links, the other two fully overlapped; "
        "collectives are rings over all links; sampling runs to its token limit. Utilisation "
        "counts two operations per parameter and token, and those of the trained gradients; TFLOP "
        "also counts recomputation. Tokens are sampled ones if a step samples, else all that it "
        "reads, padding included, in every epoch. Real steps take longer: measure before you plan "
        "with it.",
    ]
    return lines
