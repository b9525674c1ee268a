"""Turns published JSON, lines of text or a Markdown list into a constitution.

python -m cai_jax.constitution import FILE... --out=FILE.yaml [--name=NAME] [--author=NAME]

A .json file maps names to {"prompt": ..., "edit_request": ...}, or lists questions that compare two
responses, or sentences; a .txt file has a sentence a line; a .md file has lists, whose headings
become tags. Several files become one constitution. What lint finds in it is left to a person.
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from cai_jax.commands.files import write_whole
from cai_jax.commands.front import start
from cai_jax.commands.workshop.made import made_file
from cai_jax.constitution.imports import import_constitution
from cai_jax.constitution.lint import lint
from cai_jax.constitution.write import to_yaml
from cai_jax.reading import YAML_BYTES

OUT = flags.DEFINE_string("out", None, "YAML file to write; its name is the name", required=True)
OVERWRITE = flags.DEFINE_bool("overwrite", False, "replace what --out names, edited or not")
NAME = flags.DEFINE_string("name", "", "of the constitution; the file's, if none is given")
AUTHOR = flags.DEFINE_string("author", "unknown", "whoever wrote the principles")


def main(files: Sequence[Path]) -> None:
    """Writes the constitution, and says what is left to do."""
    if not files:
        raise ValueError("import which file? such as principles.md")
    out = made_file(OUT.value, OVERWRITE.value, files)
    made = import_constitution(files, NAME.value or out.stem, AUTHOR.value)
    text = to_yaml(made)
    if len(text.encode()) > YAML_BYTES:
        raise ValueError(f"{out} would have more than {YAML_BYTES} bytes; import parts of it")
    write_whole(out, text)
    print(
        f"{out}: {len(made.critique_revision)} principles of critique, {len(made.feedback)} of"
        " feedback. Go over the texts that templates wrote, above all the opposites."
    )
    findings = lint(out).findings
    if findings:
        print(f"lint has {len(findings)} findings:", *findings, sep="\n")


if __name__ == "__main__":
    start(main, files=True)
