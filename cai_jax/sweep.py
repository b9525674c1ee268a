"""Runs a config in variations, with several seeds each, and compares what they measured.

python -m cai_jax.sweep --config=configs/microworld.py --sweep=configs/sweeps/revisions.py \
    --workdir=runs/revisions --jobs=2

A sweep file has a function ``get_config()``; configs/sweeps/revisions.py shows all of it. Every run
is ``python -m cai_jax.main`` in a folder of its own, DIR/runs/VARIATION/SEED, with its output in
log.txt beside it; runs find in DIR/stages what others of them have finished, or in
--config.stage_store, which several sweeps may share. The same command again goes on where it was.
"""

import csv
import difflib
import logging
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from cai_jax.commands.config_flag import CONFIG, FileParser
from cai_jax.commands.front import start
from cai_jax.config import Config, ConfigError, groups_of, naming, parse_config
from cai_jax.evaluation.measure import Measure, with_interval
from cai_jax.evaluation.registry import sections
from cai_jax.evaluation.statistics import Estimate, difference_over_seeds, mean_over_seeds
from cai_jax.redaction import without_secrets
from cai_jax.report.figures import measures_by_variation
from cai_jax.report.summary import read_summary
from cai_jax.stages.evaluate import plan_of
from cai_jax.storage.files import explaining_disk, resolved
from cai_jax.storage.lock import owned
from cai_jax.storage.sealed import check_whole

log = logging.getLogger("cai_jax")
SECONDS = "seconds/{}"  # that a stage took: a key beside those of evaluation
TIME = Measure("seconds", "seconds", "lower", "that the stage took", low=0.0)
SWEEP = config_flags.DEFINE_config_file("sweep", None, "sweep file")
flags.FLAGS["sweep"].parser = FileParser("sweep")
WORKDIR = flags.DEFINE_string("workdir", None, "folder of runs and comparison", required=True)
JOBS = flags.DEFINE_integer("jobs", 1, "runs at once", lower_bound=1)
flags.mark_flag_as_required("sweep")


@dataclass(frozen=True)
class Variation:
    """One way to run the config."""

    name: str
    changes: dict[str, Any]  # values by dotted field
    keys: dict[str, str] = field(default_factory=dict)  # of its measurements, by measure
    kinds: dict[str, Measure] = field(default_factory=dict)  # unit and bounds of each


@dataclass(frozen=True)
class Sweep:
    """What a sweep file says.

    Attributes:
      title: of the figure.
      axis: what varies.
      seeds: of every variation.
      variations: in the order in which they are shown.
      measures: keys of measurements, by the names that they are shown under; "{sl_data.rounds}" in
        one stands for that field of the config. Pairs in the file, for a ConfigDict forgets the
        order of a dict.
      figure: names of the measures in the figure, which share a unit.
      unit: of the figure's measures.
    """

    title: str
    axis: str
    seeds: tuple[int, ...]
    variations: tuple[Variation, ...]
    measures: dict[str, str]
    figure: tuple[str, ...]
    unit: str


@dataclass(frozen=True)
class Result:
    """What one run measured, or why it did not."""

    variation: str
    seed: int
    error: str
    measures: dict[str, float]
    cases: dict[str, int] = field(
        default_factory=dict
    )  # independent, such as prompts, that each is of


def main() -> None:
    """Runs what is missing, and compares."""
    file = config_flags.get_config_filename(flags.FLAGS["sweep"])
    sweep = read_sweep(SWEEP.value.to_dict(), file)
    sweep = check_variations(sweep, CONFIG.value, file)
    overrides = config_flags.get_override_values(flags.FLAGS["config"])
    base = [f"--config={config_flags.get_config_filename(flags.FLAGS['config'])}"]
    base += [f"--config.{name}={value}" for name, value in overrides.items()]
    with naming("--workdir"):
        workdir = resolved(WORKDIR.value)
    if not CONFIG.value.stage_store:
        base.append(f"--config.stage_store={workdir / 'stages'}")
    with explaining_disk(workdir), owned(workdir):
        results = run_all(sweep, base, workdir, JOBS.value)
    print((workdir / "table.md").read_text(encoding="utf-8"))
    failed = [f"{r.variation}, seed {r.seed}" for r in results if r.error]
    if failed:
        raise ValueError(
            f"{len(failed)} of {len(results)} runs failed ({'; '.join(failed)}); the same command "
            "again tries them once more"
        )


def read_sweep(tree: Mapping[str, Any], file: str) -> Sweep:
    """Checks what ``get_config`` of a sweep file returns.

    Raises:
      ConfigError: a field is missing, unknown or empty, or names clash.
    """
    known = set(Sweep.__dataclass_fields__)
    if set(tree) != known:
        odd = min(set(tree) ^ known)
        problem = "unknown field" if odd in tree else "missing field"
        raise ConfigError(f"{file}: {problem} {odd!r}; known: {', '.join(sorted(known))}")
    if empty := [name for name in sorted(known) if not tree[name]]:
        raise ConfigError(f"{file}: {empty[0]} is empty")
    variations = []
    for number, entry in enumerate(tree["variations"]):
        if not isinstance(entry, dict) or set(entry) != {"name", "changes"}:
            raise ConfigError(
                f"{file}: variations[{number}] must be dict(name=..., changes={{field: value}})"
            )
        variations.append(Variation(**entry))
    seeds = tuple(tree["seeds"]) if isinstance(tree["seeds"], list | tuple) else ()
    if len(set(seeds)) < max(len(seeds), 1) or any(type(seed) is not int for seed in seeds):
        raise ConfigError(f"{file}: seeds must be different whole numbers, found {tree['seeds']!r}")
    names = [v.name for v in variations]
    for name in names:
        if not isinstance(name, str) or names.count(name) > 1 or not name.strip(" ."):
            raise ConfigError(f"{file}: variation {name!r}: names are texts, all different")
        if set("/\\\0") & set(name):
            raise ConfigError(f"{file}: variation {name!r}: it names a folder; no slashes")
    try:
        measures: dict[str, str] = dict(tree["measures"])
    except (TypeError, ValueError):
        raise ConfigError(f"{file}: measures must be pairs of a name and a path") from None
    if strange := set(tree["figure"]) - set(measures):
        raise ConfigError(f"{file}: figure names {min(strange)!r}, which is none of measures")
    lists = {"seeds": seeds, "figure": tuple(tree["figure"]), "variations": tuple(variations)}
    return Sweep(**{**tree, **lists, "measures": measures})


def check_variations(sweep: Sweep, config: ConfigDict, file: str) -> Sweep:
    """The sweep, with the keys of its measures in every variation.

    Raises:
      ConfigError: a variation changes what is no field, or to what it cannot be; or it would not
        measure what the sweep compares.
    """
    variations = []
    for variation in sweep.variations:
        changed = ConfigDict(config.to_dict(), type_safe=False)  # parse_config tells types
        try:
            changed.update_from_flattened_dict(variation.changes)
            keys, kinds = measure_keys(sweep.measures, parse_config(changed.to_dict()))
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise ConfigError(f"{file}: variation {variation.name!r}: {error}") from None
        variations.append(replace(variation, keys=keys, kinds=kinds))
    return replace(sweep, variations=tuple(variations))


def measure_keys(
    measures: Mapping[str, str], config: Config
) -> tuple[dict[str, str], dict[str, Measure]]:
    """Keys that a run of a config will have in its summary, and what they are, by measures' names.

    Raises:
      ConfigError: it will have no such key, or no summary.
    """
    if "report" not in config.stages:
        raise ConfigError("config.stages: a sweep reads report/summary.json; add report")
    known = dict.fromkeys(map(SECONDS.format, config.stages), TIME)
    for section in sections(plan_of(config, groups_of(config))):
        known |= section.declared()
    keys = {}
    for name, template in measures.items():
        keys[name] = template.format(**vars(config))
        if keys[name] not in known:
            (near,) = difflib.get_close_matches(keys[name], known, 1, cutoff=0)
            raise ConfigError(f"no measure {keys[name]!r} ({name}); the nearest is {near!r}")
    return keys, {name: known[key] for name, key in keys.items()}


def run_all(sweep: Sweep, base: Sequence[str], workdir: Path, jobs: int) -> list[Result]:
    """Runs every variation with every seed, ``jobs`` at once; one that fails stops no other.

    The first variation of every seed comes first, so that runs at once do not wait for each other
    for what the variations of a seed share; then seed by seed. The comparison is written again
    after every run: a sweep that is stopped has compared what it has.
    """
    first, *others = sweep.variations
    wanted = [(first, seed) for seed in sweep.seeds]
    wanted += [(variation, seed) for seed in sweep.seeds for variation in others]
    shares = _shares_of_cores(jobs)
    results: list[Result] = []

    def one(variation: Variation, seed: int) -> Result:
        cores = shares.get()
        try:
            return run_one(sweep, base, workdir, variation, seed, cores)
        finally:
            shares.put(cores)

    with ThreadPoolExecutor(jobs) as pool:
        try:
            for future in as_completed([pool.submit(one, *each) for each in wanted]):
                result = future.result()
                results.append(result)
                how = f"FAILED: {result.error}" if result.error else "done"
                place = f"{len(results)} of {len(wanted)}"
                log.info("%s: %s, seed %d: %s", place, result.variation, result.seed, how)
                write_comparison(sweep, results, workdir)
        except BaseException:  # Ctrl-C reaches the runs by itself; none may start after it
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return results


def _shares_of_cores(jobs: int) -> SimpleQueue[set[int]]:
    """A share of this machine's cores for each of the jobs; empty sets where it has too few.

    Runs that all take all cores wait for each other: measured on two cores, two runs at once were
    no faster than one after the other, and 1.4 times faster with a core each.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    shares: SimpleQueue[set[int]] = SimpleQueue()
    for job in range(jobs):
        shares.put(set(cores[job::jobs]) if 1 < jobs <= len(cores) else set())
    return shares


def run_one(
    sweep: Sweep,
    base: Sequence[str],
    workdir: Path,
    variation: Variation,
    seed: int,
    cores: set[int],
) -> Result:
    """One run in a process of its own, on some cores; an empty set is all of them."""
    folder = workdir / "runs" / variation.name / str(seed)
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "cai_jax.main", *base]
    command += [f"--config.{name}={value}" for name, value in variation.changes.items()]
    command += [f"--config.seed={seed}", f"--config.workdir={folder / 'run'}"]
    with open(folder / "log.txt", "w", encoding="utf-8") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
        if cores:
            os.sched_setaffinity(process.pid, cores)
        code = process.wait()
    if code:
        said = (folder / "log.txt").read_text(encoding="utf-8", errors="replace").splitlines()
        said = [line.strip() for line in said if line.strip()] or ["no output"]
        error = next((line for line in reversed(said) if line.startswith("error: ")), said[-1])
        return Result(variation.name, seed, f"{error} ({folder / 'log.txt'})", {})
    return read_result(folder / "run" / "report" / "summary.json", variation, seed)


def read_result(summary: Path, variation: Variation, seed: int) -> Result:
    """What the summary of a run says of the sweep's measures."""
    try:
        check_whole(summary)
        written = read_summary(summary)
        measured = {
            key: (m.mean, m.units or m.n) for key, m in written.evaluation.measurements.items()
        }
        measured |= {SECONDS.format(stage): (t.seconds, 1) for stage, t in written.stages.items()}
        found = {name: measured[key] for name, key in variation.keys.items()}
    except (OSError, ValueError) as error:
        return Result(variation.name, seed, f"{summary}: {error}", {})
    except KeyError as error:
        return Result(variation.name, seed, f"{summary}: nothing to measure {error} on", {})
    values = {name: value for name, (value, _) in found.items()}
    cases = {name: n for name, (_, n) in found.items()}
    return Result(variation.name, seed, "", values, cases)


def _cell(e: Estimate) -> str:
    return with_interval(e, "{:.2f}".format)


def write_comparison(sweep: Sweep, results: Sequence[Result], workdir: Path) -> None:
    """Writes results.csv, a row a run; table.md and figure.svg, means with 95 % intervals.

    table.md goes on with the differences from the first variation, paired by seed, and the
    smallest ones that so many seeds would have detected.
    """
    with open(workdir / "results.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["variation", "seed", *map(_in_csv, sweep.measures), "error"])
        writer.writeheader()
        order = [v.name for v in sweep.variations]
        for r in sorted(results, key=lambda r: (order.index(r.variation), r.seed)):
            about = {"variation": _in_csv(r.variation), "seed": r.seed, "error": _in_csv(r.error)}
            writer.writerow(about | {_in_csv(name): value for name, value in r.measures.items()})
    done = {
        v.name: [r for r in results if r.variation == v.name and not r.error]
        for v in sweep.variations
    }
    means = {
        name: {
            m: mean_over_seeds(
                [r.measures[m] for r in runs], *_kind(sweep, m).bounds, _cases(runs, m)
            )
            for m in sweep.measures
        }
        for name, runs in done.items()
        if runs
    }
    seeds = {name: len(done[name]) for name in means}
    cells = {m: [_cell(row[m]) for row in means.values()] for m in sweep.measures}
    text = _table(sweep, seeds, cells) + GIVEN + _differences(sweep, done)
    (workdir / "table.md").write_text(text, encoding="utf-8")
    if means:
        curves = {m: [row[m] for row in means.values()] for m in sweep.figure}
        figure = measures_by_variation(curves, list(means), sweep.title, sweep.axis, sweep.unit)
        (workdir / "figure.svg").write_text(without_secrets(figure), encoding="utf-8")


GIVEN = (
    "\nMeans over seeds with 95 % intervals: n is the number of seeds; a share is known no better "
    "than from all its prompts. Given the config, its files and its held-out prompts.\n"
)


def _kind(sweep: Sweep, measure: str) -> Measure:
    """Unit and bounds of a measure."""
    return sweep.variations[0].kinds.get(measure, Measure(measure, "", "", ""))


def _cases(runs: Sequence[Result], measure: str) -> int | None:
    """Cases behind all runs; None: they are not known."""
    return sum(run.cases.get(measure, 0) for run in runs) or None


def _table(sweep: Sweep, seeds: Mapping[str, int], cells: Mapping[str, Sequence[str]]) -> str:
    """Cells by measure, with a column a variation."""
    rows = [[sweep.axis, "unit", *seeds], ["---", "---", *["---:"] * len(seeds)]]
    rows.append(["n", "seeds", *map(str, seeds.values())])
    rows += [[m, _kind(sweep, m).unit, *row] for m, row in cells.items()]
    return "".join(f"| {' | '.join(map(_in_table, row))} |\n" for row in rows)


def _in_table(text: str) -> str:
    """A text as a cell of a Markdown table."""
    return " ".join(without_secrets(text).split()).replace("\\", "\\\\").replace("|", "\\|")


def _in_csv(text: str) -> str:
    """A text as a cell of a spreadsheet, which would compute what begins like a formula."""
    text = without_secrets(text)
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def _differences(sweep: Sweep, done: Mapping[str, Sequence[Result]]) -> str:
    """Every measure of every variation minus the first one's of the same seed."""
    base, *others = sweep.variations
    first = {r.seed: r for r in done[base.name]}
    paired = {v.name: [(r, first[r.seed]) for r in done[v.name] if r.seed in first] for v in others}
    paired = {name: pairs for name, pairs in paired.items() if pairs}
    if not paired:
        return ""
    cells: dict[str, list[str]] = {}
    detected: dict[str, list[str]] = {}
    for m in sweep.measures:
        low, high = _kind(sweep, m).bounds
        most = None if low is None or high is None else high - low
        for pairs in paired.values():
            gains = [run.measures[m] - other.measures[m] for run, other in pairs]
            mean, least = difference_over_seeds(gains, most, _cases([run for run, _ in pairs], m))
            cells.setdefault(m, []).append(_cell(mean))
            detected.setdefault(m, []).append("" if least is None else f"{least:.2f}")
    seeds = {name: len(pairs) for name, pairs in paired.items()}
    return (
        f"\nMinus {_in_table(base.name)}, paired by seed:\n\n{_table(sweep, seeds, cells)}"
        "\nTrue differences that so many seeds would have shown with 80 % power:\n\n"
        f"{_table(sweep, seeds, detected)}"
    )


if __name__ == "__main__":
    start(main)
