"""Writes constitutions as the files that people edit: what ``load_constitution`` reads again."""

from dataclasses import asdict
from typing import Any

import yaml

from cai_jax.constitution.schema import Constitution

WIDTH = 96  # columns, which the last word of a line may pass
LONG = 60  # characters of a text that has lines of its own
FEW_SHOTS = {  # fields of Constitution, by their name in a file
    "critique_revision": "critique_examples",
    "multiple_choice": "choice_examples",
    "chain_of_thought": "thought_examples",
}


def to_yaml(constitution: Constitution) -> str:
    """The text of a file that holds the constitution."""
    fields = asdict(constitution)
    few_shots = {kind: fields.pop(field) for kind, field in FEW_SHOTS.items()}
    for kind in ("critique_revision", "feedback"):
        fields[kind] = [_without(entry, "weight", 1.0) for entry in fields[kind]]
    shown = {
        kind: [_without(entry, "reasoning", "") for entry in entries]
        for kind, entries in few_shots.items()
        if entries
    }
    cases = [case | {"dialogue": _dialogue(case["dialogue"])} for case in fields.pop("cases")]
    content = fields | ({"few_shots": shown} if shown else {}) | ({"cases": cases} if cases else {})
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=WIDTH)


def _without(entry: dict[str, Any], field: str, default: object) -> dict[str, Any]:
    """An entry without a field that says no more than its absence does."""
    return {name: value for name, value in entry.items() if (name, value) != (field, default)}


def _dialogue(turns: tuple[str, ...]) -> str | list[str]:
    """One turn is a text, several are lines."""
    return list(turns) if len(turns) > 1 else turns[0]


class _Dumper(yaml.SafeDumper):
    """Indents lists of entries, keeps words on one line, gives long texts lines of their own."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else ">" if len(text) > LONG else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def _words(dumper: yaml.SafeDumper, words: tuple[str, ...]) -> yaml.SequenceNode:
    return dumper.represent_sequence("tag:yaml.org,2002:seq", words, flow_style=True)


def _number(dumper: yaml.SafeDumper, number: float) -> yaml.ScalarNode:
    """Whole ones without a point, as people write them."""
    if number.is_integer():
        return dumper.represent_int(int(number))
    return dumper.represent_float(number)


_Dumper.add_representer(str, _text)
_Dumper.add_representer(tuple, _words)
_Dumper.add_representer(float, _number)
