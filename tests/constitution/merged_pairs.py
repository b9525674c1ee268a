"""What merge makes of pairs of sentences, the first of each in one file, the second in another."""

import json
import tempfile
from pathlib import Path

from cai_jax.constitution.imports import import_constitution
from cai_jax.constitution.merge import Merge, Source, merge

VERDICTS = ("joined", "conflict", "alike", "nothing")


def merged(pairs) -> Merge:
    """Both files, imported as sentences are, and merged; principles are x-0, y-0 and so on."""
    files = []
    with tempfile.TemporaryDirectory() as folder:
        for at, side in enumerate("xy"):
            path = Path(folder, f"{side}.json")
            path.write_text(json.dumps({f"{side}-{n}": pair[at] for n, pair in enumerate(pairs)}))
            files.append(Source(import_constitution([path], side, "us")))
    return merge(files)


def verdicts(pairs) -> list[str]:
    """One of VERDICTS a pair."""
    found = merged(pairs)
    ids = lambda pair: frozenset(member.entry.id for member in pair.members)
    known = {ids(pair): "alike" for pair in found.alike}
    known |= {ids(pair): "conflict" for pair in found.conflicts}
    known |= {ids(entry): "joined" for entry in found.entries}
    # Imported sentences are principles of both kinds, whose ids differ by a suffix.
    bare = lambda found: frozenset(id_.removesuffix("-compared") for id_ in found)
    return [
        next((v for v in VERDICTS if v in {known[k] for k in known if bare(k) == pair}), "nothing")
        for pair in (frozenset((f"x-{n}", f"y-{n}")) for n in range(len(pairs)))
    ]
