"""What compile ahead found out about the steps of a run on a TPU slice, as a table."""

import re
from dataclasses import dataclass
from typing import Any

GIB = 2**30
TIGHT = 0.9  # of the memory: above it, a step may not fit


@dataclass(frozen=True)
class StepReport:
    """What one step takes; sizes are bytes of one chip.

    Attributes:
      step: stage and step.
      problem: why it does not compile or fit, and what to change; empty: it fits.
      arguments: what it is called with.
      temporaries: what it needs while it runs, results that reuse no argument included.
      beside: models that wait on the chip meanwhile.
      share: all three, of the chip's memory.
      flops: operations of one chip, recomputation included.
      moved: to and from the chip's memory.
      sent: to other chips.
      collectives: results by kind.
      decode_collectives: types of those in the sampling loop, by kind.
      compile_seconds: on this machine.
      seconds: at best: the slowest of computing, memory and links, wholly overlapped.
      bound: which of them that is.
      utilisation: of the chip's peak by the model's own operations, recomputation excluded.
      tokens_per_second: a chip; sampled ones where the step samples, else all that it reads.
      replicated: parameters that every chip holds whole, by name, and their bytes.
      samples: whether it runs in the layout of sampling.
      unread: loops of unknown length, counted once.
    """

    step: str
    problem: str = ""
    arguments: int = 0
    temporaries: int = 0
    beside: int = 0
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
    """The report as lines."""
    chips, peaks = about["chips"], about["peaks"]
    slices = f"{about['slices']} x " if about["slices"] > 1 else ""
    lines = [
        f"{slices}{about['topology']}: {chips} chips, {about['chip']}; "
        f"{about['parameters'] / 1e9:.2f} billion parameters",
        f"training layout {about['mesh']}, sampling layout {about['decoding_mesh']}",
        "",
        "| step | arguments | temporaries | beside | of memory | TFLOP | GB moved | GB sent "
        "| compiled in | takes at best | bound by | utilisation | tokens/s/chip |",
        "| --- |" + " ---: |" * 8 + " ---: | --- | ---: | ---: |",
    ]
    for r in reports:
        if not r.share:
            lines.append(f"| {r.step} | see its PROBLEM |" + " |" * 11)
            continue
        gib = [f"{size / GIB:.2f} GiB" for size in (r.arguments, r.temporaries, r.beside)]
        lines.append(
            f"| {r.step} | {' | '.join(gib)} | {r.share:.0%} | {r.flops / 1e12:.1f} | "
            f"{r.moved / 1e9:.1f} | {r.sent / 1e9:.2f} | {r.compile_seconds:.0f} s | "
            f"{r.seconds:.3g} s | {r.bound} | {r.utilisation:.0%} | {r.tokens_per_second:.0f} |"
        )
    lines += ["", "Collectives, GB of results a chip:"]
    for r in reports:
        kinds = ", ".join(f"{k} {v / 1e9:.2f}" for k, v in sorted((r.collectives or {}).items()))
        lines.append(f"  {r.step}: {kinds or 'none'}")
        for kind, types in sorted((r.decode_collectives or {}).items()):
            shapes = sorted({re.sub(r"\{[^}]*\}", "", t) for t in types})
            lines.append(f"    a token: {len(types)} x {kind} of {', '.join(shapes)}")
    lines.append("")
    for layout, samples in (("training", False), ("sampling", True)):
        whole: dict[str, int] = {}
        for r in reports:
            whole |= (r.replicated or {}) if r.samples == samples else {}
        said = ", ".join(f"{name} ({size / 1024:.0f} KiB)" for name, size in sorted(whole.items()))
        lines.append(
            f"Parameters that every chip holds whole in the layout of {layout}: {said or 'none'}"
        )
    for r in reports:
        if r.problem:
            lines.append(f"PROBLEM {r.step}: {r.problem}")
        elif r.share > TIGHT:
            lines.append(
                f"TIGHT {r.step}: {r.share:.0%} of memory, of which the runtime takes some, too; "
                f"stay below {TIGHT:.0%}"
            )
        if r.unread:
            lines.append(f"UNKNOWN {r.step}: counted once are the loops {', '.join(r.unread)}")
    if about["slices"] > 1:
        lines.append("The network between slices is not estimated: what passes it takes longer.")
    lines += [
        "",
        f"Published peaks of a chip: {peaks['memory'] / GIB:.0f} GiB at "
        f"{peaks['bandwidth'] / 1e9:.0f} GB/s, {peaks['flops'] / 1e12:.0f} TFLOP/s in bfloat16, "
        f"links {peaks['links'] / 1e9:.0f} GB/s in all.",
        "Takes at best: the slowest of computing, memory and links, the other two hidden behind "
        "it; collectives as rings over all links; sampling runs to its limit. Utilisation counts "
        "two operations a parameter and token, and those of the gradients that are trained; TFLOP "
        "counts what is computed again, too. Tokens are sampled ones where a step samples, else "
        "all that it reads, padding included, in every epoch. Real steps take longer: measure "
        "before you plan by it.",
    ]
    return lines
