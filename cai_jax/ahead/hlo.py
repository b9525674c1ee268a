"""What a compiled program transfers: bytes to and from HBM, and between devices.

XLA's own cost analysis counts the body of a loop once; here it counts once per iteration.
"""

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod

COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
_BYTES = {"pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "bf16": 2, "f16": 2, "s32": 4, "u32": 4,
          "f32": 4, "s64": 8, "u64": 8, "f64": 8}  # fmt: skip
_ARRAY = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\](\{[^}]*\})?")
_INSTRUCTION = re.compile(r"^\s*(ROOT )?%?([\w.\-]+) = (.*?) ([a-z][a-z\d\-]*)\((.*)$")
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_CALLED = re.compile(r"\b(?:calls|to_apply|body|condition)=%?([\w.\-]+)")
_BODY = re.compile(r"\bbody=%?([\w.\-]+)")
_CONDITION = re.compile(r"\bcondition=%?([\w.\-]+)")
_BRANCHES = re.compile(r"\bbranch_computations=\{([^}]*)\}")
_NAMES = re.compile(r"%([\w.\-]+)")
_CHANNEL = re.compile(r"\bchannel_id=(\d+)")
# Instructions that name or group arrays, and transfer nothing.
_FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "partition-id",
         "replica-id", "after-all", "iota", "opt-barrier", "add-dependency"}  # fmt: skip


@dataclass(frozen=True)
class Instruction:
    """One line of HLO."""

    name: str
    type: str
    op: str
    operands: tuple[str, ...]
    text: str  # from the operands on
    root: bool


@dataclass
class Traffic:
    """What one device transfers, in bytes."""

    memory: float = 0.0  # read from HBM and written to it
    collectives: dict[str, float] = field(default_factory=lambda: defaultdict(float))  # by kind
    calls: dict[str, float] = field(default_factory=lambda: defaultdict(float))  # their number
    wire: float = 0.0  # sent to other devices, with ring algorithms

    def add(self, other: "Traffic", times: float) -> None:
        """Adds the traffic of a computation that is called ``times`` times."""
        self.memory += other.memory * times
        self.wire += other.wire * times
        for kind in other.collectives:
            self.collectives[kind] += other.collectives[kind] * times
            self.calls[kind] += other.calls[kind] * times


def array_bytes(type_: str, everywhere: bool = False) -> int:
    """Bytes of an HLO type in HBM; arrays in another memory space, such as VMEM (S(1)), count as 0.

    Args:
      type_: an array or a tuple of arrays, as HLO writes it.
      everywhere: count the arrays of all memory spaces.
    """
    return sum(
        _BYTES.get(kind, 0) * prod(int(d) for d in dims.split(",") if d)
        for kind, dims, layout in _ARRAY.findall(type_)
        if everywhere or not re.search(r"S\([1-9]\d*\)", layout)
    )


class Program:
    """The computations of an optimized HLO module.

    Args:
      text: as ``compiled.as_text()`` gives it.
    """

    def __init__(self, text: str):
        self.computations: dict[str, dict[str, Instruction]] = {}
        self.entry = ""
        self.unread: set[str] = set()  # loops without a known limit; they count once
        self._traffic: dict[str, Traffic] = {}
        current: dict[str, Instruction] = {}
        for line in text.splitlines():
            if head := _COMPUTATION.match(line):
                current = self.computations.setdefault(head[2], {})
                self.entry = head[2] if head[1] else self.entry
            elif found := _INSTRUCTION.match(line):
                root, name, type_, op, rest = found.groups()
                operands = tuple(_NAMES.findall(rest.partition(")")[0]))
                current[name] = Instruction(name, type_, op, operands, rest, bool(root))

    def traffic(self) -> Traffic:
        """Traffic of one call of the program."""
        return self._traffic_of(self.entry)

    def decode_collectives(self) -> dict[str, list[str]]:
        """HLO types of the collectives, by kind, in loops of data-dependent length: of sampling."""
        found: dict[str, list[str]] = defaultdict(list)
        for computation in self.computations.values():
            for i in computation.values():
                if i.op == "while" and not self._trip_count(i)[1]:
                    body = _one_called(_BODY, i)
                    for kind, inner, _ in self._collectives(body, set()):
                        found[kind].append(inner.type)
        return dict(found)

    def _trip_count(self, loop: Instruction) -> tuple[int, bool]:
        """Most iterations of a loop, by the limit in its condition; and whether that is exact."""
        condition = self.computations.get(_one_called(_CONDITION, loop), {})
        for i in condition.values():
            if i.op == "compare" and "direction=LT" in i.text:
                limit = condition.get(i.operands[-1])
                if limit is not None and limit.op == "constant":
                    return int(limit.text.partition(")")[0]), i.root
        self.unread.add(loop.name)
        return 1, True

    def _collectives(
        self, name: str, seen: set[str]
    ) -> Iterator[tuple[str, Instruction, dict[str, Instruction]]]:
        """Kind, instruction and computation of every collective in a computation and below it.

        A TPU overlaps a collective with matmuls as a chain of fusions that all hold it. Of those on
        one channel the first counts; ``seen`` collects the channels.
        """
        computation = self.computations.get(name, {})
        for i in computation.values():
            kind, channel = _kind(i), _CHANNEL.search(i.text)
            if kind is None:
                for called in _called(i):
                    yield from self._collectives(called, seen)
            elif channel is None or channel[1] not in seen:
                seen.update(channel.groups() if channel else ())
                # XLA fuses an all-reduce and the slice of each device to a fusion of this name.
                yield "reduce-scatter" if "all-reduce-scatter" in name else kind, i, computation

    def _traffic_of(self, name: str) -> Traffic:
        """Traffic of one call of a computation."""
        if name not in self._traffic:
            total = Traffic()
            seen: set[str] = set()
            for i in self.computations.get(name, {}).values():
                self._add(total, i, self.computations[name], seen)
            self._traffic[name] = total
        return self._traffic[name]

    def _add(
        self, total: Traffic, i: Instruction, computation: dict[str, Instruction], seen: set[str]
    ) -> None:
        """Adds the traffic of one instruction of a computation to ``total``."""
        if i.op.endswith(("-done", "-update")) and i.op != "dynamic-update-slice":
            return
        if i.op == "while":
            trips, _ = self._trip_count(i)
            for called in _called(i):
                total.add(self._traffic_of(called), trips)
            return
        if i.op in ("call", "conditional", "async-start"):
            branches = [self._traffic_of(called) for called in _called(i)]
            if branches:
                total.add(max(branches, key=lambda branch: branch.memory), 1)
            return
        if (kind := _kind(i)) is not None:
            self._add_collective(total, kind, i, computation)
        if i.op == "fusion":  # it may hold a collective; its memory is counted below
            for called in _called(i):
                for found in self._collectives(called, seen):
                    self._add_collective(total, *found)
        if i.op not in _FREE:
            total.memory += self._memory_bytes(i, computation)

    def _add_collective(
        self, total: Traffic, kind: str, i: Instruction, computation: dict[str, Instruction]
    ) -> None:
        size, devices = self._collective_bytes(kind, i, computation), _group_size(i.text)
        total.collectives[kind] += size
        total.calls[kind] += 1
        share = (devices - 1) / devices
        factor = {"all-reduce": 2 * share, "collective-permute": 1.0}.get(kind, share)
        total.wire += size * factor

    def _collective_bytes(
        self, kind: str, i: Instruction, computation: dict[str, Instruction]
    ) -> int:
        """The larger side: the result of a gather, or the operand of a scatter."""
        operands = sum(
            array_bytes(computation[o].type, True) for o in i.operands if o in computation
        )
        if kind == "reduce-scatter":
            return operands
        result = array_bytes(i.type, True)
        if i.op.endswith("-start"):  # its result includes the operands
            result -= operands
        return max(operands, result)

    def _memory_bytes(self, i: Instruction, computation: dict[str, Instruction]) -> int:
        """Bytes that one instruction reads from HBM and writes to it."""
        sizes = [array_bytes(computation[o].type) if o in computation else 0 for o in i.operands]
        out = array_bytes(i.type)
        if i.op in ("dynamic-slice", "gather", "slice"):
            return 2 * out
        if i.op in ("dynamic-update-slice", "scatter"):
            return 2 * (sizes[1] if len(sizes) > 1 else out)
        if i.op != "fusion":
            return sum(sizes) + out
        body = self.computations.get(next(iter(_called(i)), ""), {})
        root = next((x for x in body.values() if x.root), None)
        for number, parameter in _parameters(body):
            read = self._bytes_read(parameter, body)
            sizes[number] = sizes[number] if read is None else min(sizes[number], read)
        if root is not None:
            parts = [body.get(o) for o in root.operands] if root.op == "tuple" else [root]
            for part in parts:
                if part is not None and part.op == "dynamic-update-slice":
                    update = body.get(part.operands[1])
                    out -= array_bytes(part.type) - (array_bytes(update.type) if update else 0)
        return sum(sizes) + max(out, 0)

    def _bytes_read(self, value: Instruction, body: dict[str, Instruction]) -> int | None:
        """Bytes of a value that a fusion reads, if it reads only slices; None: all of them."""
        total = 0
        for user in body.values():
            if value.name not in user.operands:
                continue
            first = user.operands[0] == value.name
            if user.op in ("dynamic-slice", "gather", "slice") and first:
                total += array_bytes(user.type, True)
            elif user.op == "dynamic-update-slice" and first:
                continue  # written in place
            elif user.op in ("bitcast", "fusion"):
                for inner, inner_body in self._passed_on(value, user, body):
                    read = self._bytes_read(inner, inner_body)
                    if read is None:
                        return None
                    total += read
            else:
                return None
        return total

    def _passed_on(
        self, value: Instruction, user: Instruction, body: dict[str, Instruction]
    ) -> list[tuple[Instruction, dict[str, Instruction]]]:
        """What a bitcast or a nested fusion calls the value, each with its computation."""
        if user.op == "bitcast":
            return [(user, body)]
        called = self.computations.get(_called(user)[0], {})
        numbers = [n for n, name in enumerate(user.operands) if name == value.name]
        return [(x, called) for n, x in _parameters(called) if n in numbers]


def _parameters(body: dict[str, Instruction]) -> list[tuple[int, Instruction]]:
    """The parameters of a computation with their numbers."""
    return [(int(x.text.partition(")")[0]), x) for x in body.values() if x.op == "parameter"]


def _one_called(pattern: re.Pattern[str], i: Instruction) -> str:
    """The computation that ``pattern`` finds in an instruction.

    Raises:
      ValueError: there is none; the text is no HLO of this version.
    """
    found = pattern.search(i.text)
    if found is None:
        raise ValueError(f"HLO instruction {i.name}: no {pattern.pattern} in {i.text[:80]!r}")
    return found[1]


def _called(i: Instruction) -> list[str]:
    """The computations that an instruction calls; none of a collective, whose sum is trivial."""
    names = _CALLED.findall(i.text)
    for branches in _BRANCHES.findall(i.text):
        names += _NAMES.findall(branches)
    return [] if _kind(i) else names


def _kind(i: Instruction) -> str | None:
    """The kind of a collective; None of other instructions."""
    name = i.op.removesuffix("-start")
    return name if name in COLLECTIVES else None


def _group_size(text: str) -> int:
    """Number of devices in one group of a collective."""
    if found := re.search(r"replica_groups=\[(\d+),(\d+)\]", text):
        return int(found[2])
    if found := re.search(r"replica_groups=\{\{([\d,]+)\}", text):
        return found[1].count(",") + 1
    if found := re.search(r"replica_groups=mesh\[([^\]]*)\]\s*\{([^}]*)\}", text):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", found[1]))
        return prod(int(sizes[axis]) for axis in re.findall(r"'(\w+)'", found[2]))
    return 2
