"""Config trees: what they say, what flags may change, what is refused, and what redoes work."""

import dataclasses
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from absl import flags
from conftest import ROOT, load_config, read_config

from cai_jax.commands.config_flag import define_config
from cai_jax.config import (
    STAGES,
    Config,
    ConfigError,
    differences,
    parse_config,
    results_of,
    with_defaults,
)


def presets() -> Iterator[tuple[str, str]]:
    """Every preset of every config file, as its error for an unknown one lists them."""
    for file in sorted((ROOT / "configs").glob("*.py")):
        with pytest.raises(ValueError, match="known: ") as error:
            read_config(file.stem, "none of them")
        for preset in str(error.value).rpartition("known: ")[2].split(", "):
            yield file.stem, preset


def flat(tree: dict, prefix: str = "") -> dict:
    """Values by dotted name."""
    values = {}
    for name, value in tree.items():
        inner = isinstance(value, dict)
        values |= flat(value, f"{prefix}{name}.") if inner else {prefix + name: value}
    return values


def changed(name: str, value) -> dict:
    """The microworld's config, which has every block, with one field changed."""
    tree = load_config("microworld")
    *blocks, field = name.split(".")
    block = tree
    for inner in blocks:
        block = block[inner]
    block[field] = value
    return tree


def leaves(block: type = Config, prefix: str = "") -> Iterator[tuple]:
    """Dotted name and pydantic's description of every field that is no block."""
    for name, field in block.__pydantic_fields__.items():
        kinds = (field.annotation, *getattr(field.annotation, "__args__", ()))
        inner = next((kind for kind in kinds if dataclasses.is_dataclass(kind)), None)
        if inner:
            yield from leaves(inner, f"{prefix}{name}.")
        else:
            yield prefix + name, field


def parse_flags(monkeypatch, *arguments: str) -> dict:
    """The config tree after a command line."""
    monkeypatch.setattr(sys, "argv", ["main", *arguments])
    values = flags.FlagValues()
    holder = define_config(values)
    values(sys.argv)
    return holder.value.to_dict()


FIELDS = dict(leaves())
MICROWORLD = flat(load_config("microworld"))
PRESETS = list(presets())


@pytest.mark.parametrize(("name", "preset"), PRESETS)
def test_every_preset_parses(name, preset):
    config = parse_config(read_config(name, preset).to_dict())
    assert config == parse_config(load_config(name, preset))
    assert config.workdir.startswith("runs/")
    assert config.rl.missing_stop_penalty > 0  # what never ends, pays
    assert config.rl.unusable_penalty > 0


def test_presets_have_workdirs_of_their_own():
    workdirs = [read_config(*preset).workdir for preset in PRESETS]
    assert len(set(workdirs)) == len(PRESETS) >= 8


@pytest.mark.parametrize(("name", "preset"), PRESETS)
def test_a_preset_says_only_what_differs_from_the_defaults(name, preset):
    said = read_config(name, preset).to_dict()
    defaults = flat(with_defaults({"pretrain": {}}))
    assert [field for field, value in flat(said).items() if defaults.get(field) == value] == []


def test_defaults_are_possible():
    assert parse_config(with_defaults({"workdir": "a"})) == parse_config({"workdir": "a"})
    full = with_defaults({"workdir": "a", "pretrain": {"corpus": "a:b"}, "model": {"source": ""}})
    assert parse_config(full).pretrain.corpus == "a:b"


def test_every_field_says_what_it_is_in_one_line():
    for name, field in FIELDS.items():
        assert field.description, name
        assert "\n" not in field.description, name


def test_flags_override_every_field(monkeypatch):
    wanted = {}
    for name, value in MICROWORLD.items():
        wanted[name] = {
            bool: lambda v: not v,
            int: lambda v: v + 1,
            float: lambda v: v + 0.25,
            str: lambda v: f"{v}-other",
        }[type(value)](value)
    assert {re.sub(r"(options)\..*", r"\1", name) for name in wanted} == set(FIELDS)
    arguments = [f"--config.{name}={value}" for name, value in wanted.items()]
    file = ROOT / "configs" / "microworld.py"
    assert flat(parse_flags(monkeypatch, f"--config={file}", *arguments)) == wanted


def test_a_whole_number_in_a_file_can_become_a_fraction(monkeypatch, tmp_path):
    file = tmp_path / "whole.py"
    file.write_text(
        "from ml_collections import ConfigDict\n"
        "get_config = lambda: ConfigDict({'workdir': 'a', 'rl': {'kl_coef': 1}})\n"
    )
    config = parse_config(parse_flags(monkeypatch, f"--config={file}", "--config.rl.kl_coef=0.5"))
    assert config.rl.kl_coef == 0.5
    assert type(parse_config({"workdir": "a", "rl": {"kl_coef": 1}}).rl.kl_coef) is float


def test_flags_make_a_block_that_the_file_leaves_out(monkeypatch):
    block = ("--config.pretrain.corpus=a:b", "--config.pretrain.epochs=2", "--config.model.source=")
    file = ROOT / "configs" / "rlaif.py"
    config = parse_config(parse_flags(monkeypatch, f"--config={file}", *block))
    assert (config.pretrain.corpus, config.pretrain.epochs) == ("a:b", 2)


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ({"rl": {"kl_coeff": 0.1}}, "config.rl.kl_coeff: no such field; the nearest is kl_coef; "),
        ({"modle": {}}, "config.modle: no such field; the nearest is model; known: constitution, "),
        ({"rl": {"lora": {"rnk": 1}}}, "config.rl.lora.rnk: no such field; the nearest is rank; "),
        ({"report": {"zzz": 1}}, "config.report.zzz: no such field; known: transcripts"),
        ({"rl": {"gamma": 1.5}}, "config.rl.gamma: must be less than or equal to 1, found 1.5"),
        ({"rl": {"batch_size": 2.0}}, "config.rl.batch_size: must be a valid integer, found 2.0"),
        ({"rl": 3}, "config.rl: must be an object, found 3"),
        ({"pm_train": {"labels": "firm"}}, "config.pm_train.labels: must be 'soft', 'hard', 'shu"),
        (
            {"pm_train": {"labels": "none", "helpfulness_pairs": 0}},
            "config.pm_train.helpfulness_pairs: 0, but config.pm_train.labels = 'none' leaves no ",
        ),
        (
            {"constitution": {"groups": "nurses"}},
            "config.constitution.groups: Value error, each must be GROUP=F",
        ),
        (
            {"constitution": {"groups": "../a=a.yaml"}},
            "config.constitution.groups: a group '../a', of which folders",
        ),
        (
            {"constitution": {"groups": "a=a.yaml,a=b.yaml"}},
            "config.constitution.groups: Value error, a stands there tw",
        ),
        ({"rl": {"objective": "minimum"}}, "config.rl.objective: 'minimum', but there are no gr"),
        ({"workdir": " "}, "config.workdir: must have at least 1 character, found ' '"),
        ({"stages": "rl,pm"}, "config.stages.1: must be 'pretrain', "),
        ({"stages": []}, "config.stages: names no stage; 'all', or some of pretrain, "),
        ({"pretrain": {"corpus": "a:b"}}, "config.model.source: name a pretrained model, or "),
        ({"pretrain": {}}, "config.pretrain.corpus: missing (MODULE:FUNCTION"),
        ({"mesh": {"data": -1}}, "config.mesh: -1 stands on more than one axis"),
        ({"mesh": {"tensor": 0}}, "config.mesh.tensor: 0 devices"),
        ({"sl_train": {"micro_batches": 3}}, "config.sl_train.batch_size: 4 is not a multiple of"),
        ({"generation": {"context_tokens": 40}}, "config.generation.response_tokens: 96 leaves "),
    ],
)
def test_a_refusal_says_field_and_what_is_allowed(tree, words):
    with pytest.raises(ConfigError) as error:
        parse_config({"workdir": "a"} | tree)
    assert str(error.value).startswith(words)


def test_a_missing_field_is_named():
    with pytest.raises(ConfigError, match=r"^config\.workdir: missing"):
        parse_config({})


def test_all_problems_are_told_at_once():
    with pytest.raises(ConfigError) as error:
        parse_config({"workdir": "a", "rl": {"gamma": 2.0, "lamda": 1.0}, "seed": -1})
    lines = [line.strip().split(":")[0] for line in str(error.value).splitlines()]
    assert sorted(lines) == ["config.rl.gamma", "config.rl.lamda", "config.seed"]


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_refuses_other_types_by_name(name):
    for wrong in ([[1]], object(), Path("a")):
        with pytest.raises(ConfigError, match=rf"config\.{re.escape(name)}[.:]"):
            parse_config(changed(name, wrong))


def test_numbers_are_finite_and_bounded():
    numbers = {n: v for n, v in MICROWORLD.items() if type(v) in (int, float)}
    for name in [name for name, value in numbers.items() if type(value) is float]:
        for wrong in (float("nan"), float("inf")):
            with pytest.raises(ConfigError, match=rf"config\.{name}: must be a finite number"):
                parse_config(changed(name, wrong))
    unbounded = {name for name in numbers if "options" in name}
    unbounded |= {"rl.unusable_score", "red_team.threshold"}
    for name in set(numbers) - unbounded:
        with pytest.raises(ConfigError, match=rf"config\.{name}: must be greater than"):
            parse_config(changed(name, type(numbers[name])(-1_000_000)))


def test_stages_are_in_the_order_in_which_they_run():
    for said in ("rl,sl_data,rl", ["rl", "sl_data"], ("sl_data", "rl")):
        assert parse_config({"workdir": "a", "stages": said}).stages == ("sl_data", "rl")
    assert parse_config({"workdir": "a", "stages": "all"}).stages == STAGES


def test_fields_that_change_how_and_not_what():
    config = parse_config(load_config("microworld"))
    results = {re.sub(r"(options)\..*", r"\1", name) for name in flat(results_of(config))}
    trained = ("pretrain", "warm_up", "sl_train", "pm_train", "rl")
    sizes = ("batch_size", "score_batch_size", "prompt_bucket_tokens", "score_pack_tokens")
    assert set(FIELDS) - results == {
        *("workdir", "stages", "rerun_changed", "stage_store", "reuse_from", "rl.offload"),
        # They refuse or warn, and change no result.
        *("generation.context_tokens", "rl.max_sampler_gap", "rl.max_first_ratio_error"),
        *("rl.max_kl", "rl.max_degenerate", "training.max_skipped_steps"),
        *(f"model.{name}" for name in ("architecture", "attention", "remat", "cache")),
        *(f"mesh.{name}" for name in ("data", "fsdp", "tensor", "decode_tensor")),
        *(f"generation.{name}" for name in sizes),
        *("constitution.groups", "evaluate.benchmarks"),  # dicts, empty here
        *(f"{stage}.micro_batches" for stage in (*trained, "rl.direct")),
        *(f"resume.{name}" for name in ("every_steps", "every_iterations", "keep", "max_share")),
    }


@pytest.mark.parametrize(
    ("name", "value", "same"),
    [
        ("rl.micro_batches", 2, True),
        ("mesh.tensor", 2, True),
        ("workdir", "elsewhere", True),
        ("rl.minibatches", 2, False),
        ("rl.batch_size", 64, False),
        ("rl.lora.alpha", 2.0, False),
        ("pretrain.options", {"dialogues": 1.0}, False),
    ],
)
def test_results_say_whether_work_is_repeated(name, value, same):
    one, other = parse_config(changed("seed", 0)), parse_config(changed(name, value))
    assert one != other
    assert (not [*differences(results_of(one), results_of(other))]) == same


def test_a_config_does_not_change():
    config = parse_config({"workdir": "a"})
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.rl.kl_coef = 0.2
    assert dataclasses.replace(config, workdir="b").workdir == "b"
