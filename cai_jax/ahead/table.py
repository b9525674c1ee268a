"""The report of compile-ahead on the steps of a run on a TPU slice, as a table."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from cai_jax.ahead.chips import GIB, Chip

TIGHT = 0.9  # share of the memory above which a step may not fit


@dataclass(frozen=True)
class StepReport:
    """What one step needs; sizes are in bytes per chip.

    Attributes:
      step: stage and step.
      problem: why it does not compile or fit, and the remedy; empty: it fits.
      arguments: its inputs.
      temporaries: what it allocates, with results that no donated argument holds.
      resident: models that are on the chip during the step and not passed to it.
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
      narrower: programs that differ in shorter rows alone, and are not compiled.
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
    narrower: int = 0


@dataclass(frozen=True)
class Report:
    """What a run needs of a slice.

    Attributes:
      topology: name of the slice.
      slices: of this kind.
      chips: of all slices.
      chip: its kind.
      peaks: of a chip.
      mesh: sizes of the axes of training.
      decoding_mesh: sizes of the axes of sampling.
      parameters: of the base model.
      steps: in the order of the stages.
    """

    topology: str
    slices: int
    chips: int
    chip: str
    peaks: Chip
    mesh: Mapping[str, int]
    decoding_mesh: Mapping[str, int]
    parameters: int
    steps: tuple[StepReport, ...]


def table(report: Report) -> str:
    """The report as people read it."""
    slices = f"{report.slices} x " if report.slices > 1 else ""
    lines = [
        f"{slices}{report.topology}: {report.chips} chips, {report.chip}; "
        f"{report.parameters / 1e9:.2f} billion parameters",
        f"training layout {dict(report.mesh)}, sampling layout {dict(report.decoding_mesh)}",
        "",
        "| step | arguments | temporaries | resident | of memory | TFLOP | GB moved | GB sent "
        "| compiled in | lower bound | limited by | utilisation | tokens/s/chip |",
        "| --- |" + " ---: |" * 8 + " ---: | --- | ---: | ---: |",
        *map(_row, report.steps),
        "",
        "Collectives, GB of results per chip:",
        *(line for step in report.steps for line in _collectives(step)),
        "",
        _replicated("training", [step for step in report.steps if not step.samples]),
        _replicated("sampling", [step for step in report.steps if step.samples]),
        *_narrower(report.steps),
        *(line for step in report.steps for line in _warnings(step)),
    ]
    if report.slices > 1:
        lines.append("The estimate ignores the slower network between slices.")
    return "\n".join([*lines, "", _peaks(report.peaks), LEGEND])


LEGEND = (
    "Lower bound: the slowest of computing, memory and links, the other two fully overlapped; "
    "collectives are rings over all links; sampling runs to its token limit. Utilisation counts "
    "two operations per parameter and token, and those of the trained gradients; TFLOP also counts "
    "recomputation. Tokens are sampled ones if a step samples, else all that it reads, padding "
    "included, in every epoch. Real steps take longer: measure before you plan with it."
)


def _row(step: StepReport) -> str:
    if step.problem and not step.share:
        return f"| {step.step} | see its PROBLEM |" + " |" * 11
    gib = [f"{size / GIB:.2f} GiB" for size in (step.arguments, step.temporaries, step.resident)]
    return (
        f"| {step.step} | {' | '.join(gib)} | {step.share:.0%} | {step.flops / 1e12:.1f} | "
        f"{step.moved / 1e9:.1f} | {step.sent / 1e9:.2f} | {step.compile_seconds:.0f} s | "
        f"{step.seconds:.3g} s | {step.bound} | {step.utilisation:.0%} | "
        f"{step.tokens_per_second:.0f} |"
    )


def _collectives(step: StepReport) -> Iterator[str]:
    kinds = ", ".join(f"{k} {v / 1e9:.2f}" for k, v in sorted((step.collectives or {}).items()))
    yield f"  {step.step}: {kinds or 'none'}"
    for kind, types in sorted((step.decode_collectives or {}).items()):
        shapes = sorted({re.sub(r"\{[^}]*\}", "", t) for t in types})
        yield f"    per token: {len(types)} x {kind} of {', '.join(shapes)}"


def _replicated(layout: str, steps: list[StepReport]) -> str:
    sizes: dict[str, int] = {}
    for step in steps:
        sizes |= step.replicated or {}
    names = ", ".join(f"{name} ({size / 1024:.0f} KiB)" for name, size in sorted(sizes.items()))
    return f"Parameters replicated on every chip in the {layout} layout: {names or 'none'}"


def _narrower(steps: tuple[StepReport, ...]) -> Iterator[str]:
    several = [step for step in steps if step.narrower]
    if several:
        yield "Compiled with the longest rows alone:"
    for step in several:
        yield f"  {step.step}, and {step.narrower} narrower widths"


def _warnings(step: StepReport) -> Iterator[str]:
    if step.problem:
        yield f"PROBLEM {step.step}: {step.problem}"
    elif step.share > TIGHT:
        yield (
            f"TIGHT {step.step}: {step.share:.0%} of memory, and the runtime needs some, too; stay "
            f"below {TIGHT:.0%}"
        )
    if step.unread:
        yield f"UNKNOWN {step.step}: loops that count once: {', '.join(step.unread)}"


def _peaks(chip: Chip) -> str:
    return (
        f"Published peaks of a chip: {chip.memory / GIB:.0f} GiB at "
        f"{chip.bandwidth / 1e9:.0f} GB/s, {chip.flops / 1e12:.0f} TFLOP/s in bfloat16, "
        f"links {chip.links / 1e9:.0f} GB/s in total."
    )
