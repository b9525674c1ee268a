"""Compile ahead: what it reads off a program, and real programs for TPUs that are not here."""

import importlib.util
import json
import math
import os
import subprocess
import sys
from dataclasses import replace

import jax
import jax.numpy as jnp
import pytest
from commanded import command
from conftest import ROOT, at_rest, load_config, tiny_decoder
from hypothesis import given
from hypothesis import strategies as st

from cai_jax.ahead.chips import CHIPS
from cai_jax.ahead.compiler import Compiler, device_bytes, widest
from cai_jax.ahead.flops import matmul_flops
from cai_jax.ahead.hlo import Program as HLOProgram
from cai_jax.ahead.hlo import array_bytes
from cai_jax.ahead.table import Report, table
from cai_jax.config import parse_config
from cai_jax.generation.engine import Generator
from cai_jax.generation.sampling import Sampling
from cai_jax.models.config import LoRAConfig
from cai_jax.models.io.sources import ModelSource
from cai_jax.parallel.mesh import abstract_batch, decoding_mesh, make_mesh
from cai_jax.parallel.program import Program
from cai_jax.stages import evaluate, rl
from cai_jax.stages.stage import open_run

tpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="needs libtpu: pip install '.[tpu]'"
)
PRESETS = ("smollm2-1.7b", "llama3-8b", "llama3-70b", "paper")
NAMES = {
    *("sl_data: revisions", "sl_train: update", "feedback: responses", "feedback: labels"),
    *("pm_train: update", "pm_train: scores"),
    *("rl: weights to the sampler", "rl: responses", "rl: scores", "rl: advantages", "rl: updates"),
    *("evaluate: responses", "evaluate: scores", "evaluate: likelihoods"),
}

HLO = """HloModule jit_f, entry_computation_layout={()->f32[4]{0}}

%sliced (param_0: f32[32,4], param_1: s32[]) -> f32[4] {
  %param_0 = f32[32,4]{1,0} parameter(0)
  %param_1 = s32[] parameter(1)
  %ds = f32[1,4]{1,0} dynamic-slice(%param_0, %param_1, %param_1), dynamic_slice_sizes={1,4}
  ROOT %b = f32[4]{0} bitcast(%ds)
}

%body (p: (s32[], f32[32,4])) -> (s32[], f32[32,4]) {
  %p = (s32[], f32[32,4]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %w = f32[32,4]{1,0} get-tuple-element(%p), index=1
  %row = f32[4]{0} fusion(%w, %i), kind=kLoop, calls=%sliced
  %sum = f32[4]{0:T(128)S(1)} all-reduce(%row), replica_groups=[2,4]<=[8], to_apply=%add
  ROOT %t = (s32[], f32[32,4]{1,0}) tuple(%i, %w)
}

%cond (p: (s32[], f32[32,4])) -> pred[] {
  %p = (s32[], f32[32,4]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %limit = s32[] constant(32)
  %go = pred[] constant(true)
  %lt = pred[] compare(%i, %limit), direction=LT
  ROOT %and = pred[] and(%lt, %go)
}

ENTRY %main (a: f32[32,4]) -> f32[4] {
  %a = f32[32,4]{1,0} parameter(0)
  %zero = s32[] constant(0)
  %start = (s32[], f32[32,4]{1,0}) tuple(%zero, %a)
  %loop = (s32[], f32[32,4]{1,0}) while(%start), condition=%cond, body=%body
  ROOT %gathered = f32[32]{0} all-gather(%zero), replica_groups={{0,1},{2,3}}, dimensions={0}
}
"""


def test_loops_count_as_often_as_they_run_and_slices_as_what_they_read():
    traffic = HLOProgram(HLO).traffic()
    assert traffic.collectives == {"all-reduce": 32 * 16, "all-gather": 128}
    assert traffic.calls == {"all-reduce": 32, "all-gather": 1}
    # Rings: twice three quarters of every sum, half of what is gathered.
    assert traffic.wire == 32 * 16 * 1.5 + 128 / 2
    # A slice is read and written, the sum is read into the core's own memory; and the last line;
    # the condition reads its counter, its limit and its flags.
    condition = 4 + 4 + 1 + 3
    assert traffic.memory == 32 * (16 + 4 + 16 + 16 + condition) + 4 + 128


CHAIN = """HloModule jit_f, entry_computation_layout={()->f32[4]{0}}

%start (p: f32[4]) -> (f32[4], f32[16]) {
  %p = f32[4]{0} parameter(0)
  %ag.1 = f32[16]{0} all-gather(%p), channel_id=7, replica_groups=[2,4]<=[8], dimensions={0}
  ROOT %s = (f32[4]{0}, f32[16]{0}) custom-call(%ag.1), custom_call_target="AsyncCollectiveStart"
}

%done (q: f32[4]) -> f32[16] {
  %q = f32[4]{0} parameter(0)
  %ag.2 = f32[16]{0} all-gather(%q), channel_id=7, replica_groups=[2,4]<=[8], dimensions={0}
  ROOT %d = f32[16]{0} custom-call(%ag.2), custom_call_target="AsyncCollectiveDone"
}

%all-reduce-scatter.1 (x: f32[16]) -> f32[4] {
  %x = f32[16]{0} parameter(0)
  %ar = f32[16]{0} all-reduce(%x), channel_id=8, replica_groups=[2,4]<=[8], to_apply=%add
  %id = u32[] partition-id()
  ROOT %part = f32[4]{0} dynamic-slice(%ar, %id), dynamic_slice_sizes={4}
}

ENTRY %main (a: f32[4]) -> f32[4] {
  %a = f32[4]{0} parameter(0)
  %one = (f32[4]{0}, f32[16]{0}) fusion(%a), kind=kCustom, calls=%start
  %two = f32[16]{0} fusion(%a), kind=kCustom, calls=%done
  ROOT %three = f32[4]{0} fusion(%two), kind=kCustom, calls=%all-reduce-scatter.1
}
"""


def test_a_chain_of_fusions_is_one_collective_and_a_sum_that_is_cut_a_reduce_scatter():
    traffic = HLOProgram(CHAIN).traffic()
    assert traffic.collectives == {"all-gather": 64, "reduce-scatter": 64}
    assert traffic.wire == 2 * 64 * 3 / 4


def test_a_loop_that_cannot_be_read_is_told():
    program = HLOProgram(HLO.replace("direction=LT", "direction=GT"))
    assert program.traffic().calls == {"all-reduce": 1, "all-gather": 1}
    assert program.unread == {"loop"}
    assert not HLOProgram(HLO).unread


def test_collectives_of_sampling_are_those_of_loops_that_data_ends():
    assert list(HLOProgram(HLO).decode_collectives()) == ["all-reduce"]
    counted = HLO.replace("ROOT %and = pred[] and(%lt, %go)", "").replace("%lt =", "ROOT %lt =")
    assert HLOProgram(counted).decode_collectives() == {}


ITEM_BYTES = {"pred": 1, "s8": 1, "bf16": 2, "s32": 4, "f32": 4, "u64": 8}
# The layouts that XLA prints: none, plain, tiled, in HBM, in another memory space.
LAYOUTS = {"": True, "{}": True, ":T(8,128)(2,1)": True, ":T(128)S(0)": True, ":T(128)S(1)": False}


@st.composite
def hlo_arrays(draw) -> tuple[str, int, bool]:
    """An array type of HLO, its bytes, and whether it is in HBM."""
    kind = draw(st.sampled_from(sorted(ITEM_BYTES)))
    shape = draw(st.lists(st.integers(0, 9), max_size=4))
    layout = draw(st.sampled_from(sorted(LAYOUTS)))
    order = ",".join(str(i) for i in reversed(range(len(shape))))
    written = f"{{{order}{layout}}}" if layout.startswith(":") else layout
    text = f"{kind}[{','.join(map(str, shape))}]{written}"
    return text, ITEM_BYTES[kind] * math.prod(shape), LAYOUTS[layout]


@given(st.lists(hlo_arrays(), min_size=1, max_size=4))
def test_an_hlo_type_has_the_bytes_of_its_arrays(found):
    texts, sizes, in_hbm = zip(*found, strict=True)
    text = texts[0] if len(found) == 1 else f"({', '.join(texts)})"
    assert array_bytes(text, everywhere=True) == sum(sizes)
    assert array_bytes(text) == sum(size for size, in_ in zip(sizes, in_hbm, strict=True) if in_)


def test_flops_of_loops_branches_and_derivatives():
    x, w = jnp.ones((8, 16)), jnp.ones((16, 16))
    once = 2 * 8 * 16 * 16

    def scanned(x, w):
        step = jax.checkpoint(lambda x: jnp.tanh(x @ w))
        return jax.lax.scan(lambda x, _: (step(x), None), x, length=5)[0].sum()

    def until(x, w):
        go = lambda c: (c[0] < 7) & (c[1].sum() > 0)
        x = jax.lax.while_loop(go, lambda c: (c[0] + 1, c[1] @ w), (0, x))[1]
        return jax.lax.cond(x.sum() > 0, lambda: x @ w @ w, lambda: x)

    flops = lambda f: matmul_flops(jax.jit(f).trace(x, w).jaxpr, 1)
    assert flops(scanned) == 5 * once
    assert flops(jax.grad(scanned, (0, 1))) == 4 * 5 * once  # again, and two matmuls backward
    assert flops(until) == (7 + 2) * once


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_whole_and_divide(preset, monkeypatch):
    monkeypatch.chdir(ROOT)
    config = parse_config(load_config("rlaif", preset))
    sizes = ModelSource(ROOT / config.model.architecture).config
    mesh = config.mesh
    assert sizes.num_heads % mesh.tensor == sizes.num_kv_heads % mesh.decode_tensor == 0
    for stage, parts in (
        (config.sl_train, config.sl_train.micro_batches),
        (config.pm_train, config.pm_train.micro_batches),
        (config.rl, config.rl.minibatches * config.rl.micro_batches),
    ):
        assert stage.batch_size % parts == 0
        assert stage.lora.rank == 0


def test_programs_of_an_iteration_fit_each_other(monkeypatch):
    """What one program of an iteration gives is what the next is compiled for."""
    monkeypatch.chdir(ROOT)
    source = "configs/models/smollm2-1.7b-instruct"
    changes = {"model.source": source, "mesh.fsdp": 4, "mesh.tensor": 2, "mesh.decode_tensor": 2}
    run = open_run(parse_config(load_config("rlaif", "smoke", **changes)), ahead=True)
    programs = {program.name: program for program in rl.programs(run.inputs(rl.STAGE))}
    moved = results(programs["rl: weights to the sampler"])
    assert shapes(moved) == shapes(programs["rl: responses"].args[1])
    experience, _ = results(programs["rl: advantages"])
    assert shapes(experience) == shapes(programs["rl: updates"].args[2])


@pytest.mark.parametrize(
    ("stage", "steps"),
    [
        (rl, ("weights to the sampler", "responses", "advantages", "updates")),
        (evaluate, ("responses", "likelihoods")),
    ],
)
def test_what_is_offloaded_is_not_resident(monkeypatch, stage, steps):
    monkeypatch.chdir(ROOT)

    def resident(offload: bool) -> dict[str, int]:
        changes = {"model.source": "configs/models/smollm2-1.7b-instruct", "rl.offload": offload}
        run = open_run(parse_config(load_config("rlaif", "smoke", **changes)), ahead=True)
        programs = stage.programs(run.inputs(stage.STAGE))
        return {program.name: device_bytes(program.resident) for program in programs}

    kept, offloaded = resident(False), resident(True)
    assert kept.keys() == offloaded.keys()
    for step in steps:
        name = f"{stage.STAGE.name}: {step}"
        assert kept[name] > offloaded[name]


def results(program: Program):
    return jax.eval_shape(lambda *args: program.function(*args, **program.static), *program.args)


def shapes(tree) -> list:
    return [(x.shape, x.dtype) for x in jax.tree.leaves(tree)]


def matmul(mesh, width: int, **fields) -> Program:
    """Rows of integers, looked up and multiplied."""
    rows = abstract_batch((16, width), jnp.int32, mesh)
    table = abstract_batch((64, 32), jnp.float32, mesh)
    function = jax.jit(lambda rows, table: jnp.tanh(table[rows] @ table.T))
    return Program("step", function, (rows, table), mesh=mesh, **fields)


def test_what_a_program_takes_of_a_chip(mesh8):
    tokens, flops = 16 * 8, 2 * 16 * 8 * 32 * 64
    program = matmul(mesh8, 8, tokens=tokens, model_flops=flops)
    report = Compiler(CHIPS["TPU v4"], mesh8).report(program)
    assert not report.problem
    assert report.flops == flops / 8
    assert report.arguments == (16 * 8 + 64 * 32) * 4 / 4  # over data and fsdp, not over tensor
    assert report.tokens_per_second == pytest.approx(tokens / 8 / report.seconds)
    assert report.utilisation == pytest.approx(flops / 8 / report.seconds / CHIPS["TPU v4"].flops)


def test_arrays_that_are_shared_or_stay_are_counted_once(mesh8):
    compiler, plain = Compiler(CHIPS["TPU v4"], mesh8), matmul(mesh8, 8)
    _, weights = plain.args
    alone = compiler.report(plain)
    shared = compiler.report(replace(plain, aliased=(weights,), resident=(weights, weights)))
    assert alone.arguments - shared.arguments == 64 * 32 * 4 / 4
    assert shared.resident == 2 * (alone.arguments - shared.arguments)


def test_a_program_that_computes_and_moves_nothing_has_a_report(mesh8):
    nothing = Program("nothing", jax.jit(lambda: None), ())
    report = Compiler(CHIPS["TPU v4"], mesh8).report(nothing)
    assert (report.flops, report.seconds, report.bound, report.utilisation) == (0, 0, "", 0)
    about = Report("v4:2x2x2", 1, 8, "TPU v4", CHIPS["TPU v4"], {}, {}, 0, (report,))
    assert "| nothing | 0.00 GiB |" in table(about)


def test_the_widest_rows_stand_for_narrower_ones(mesh8):
    wide = matmul(mesh8, 64)
    narrow = [replace(matmul(mesh8, width), function=wide.function) for width in (32, 16, 16)]
    ((found, narrower),) = widest([wide, *narrow])
    assert found is wide
    assert narrower == 2


def test_models_whose_graphs_differ_are_no_narrower_rows(mesh):
    programs = [
        program
        for lora in (None, LoRAConfig(2, 4.0), LoRAConfig(4, 8.0))
        for program in Generator(
            at_rest(tiny_decoder(lora=lora)), mesh, (1,), 2, bucket_tokens=16, max_tokens=40
        ).programs("responses", 8, Sampling())
    ]
    found = widest(programs)
    prompts = [(program, more) for program, more in found if program.name == "responses, prompts"]
    assert [program.args[3].shape for program, _ in prompts] == [(2, 32)] * 3
    decoding = [(program, more) for program, more in found if program.name == "responses"]
    assert [program.args[2].cache.values[0].shape[2] for program, _ in decoding] == [40] * 3
    assert [more for _, more in found] == [1, 2] * 3  # prompts of 16, too, into slots of both sizes


def test_several_slices_split_data_alone():
    with pytest.raises(ValueError, match=r"mesh axis data has size 1, over 2 slices"):
        make_mesh(1, -1, 1, [Device(i, i // 4) for i in range(8)])


def test_no_layout_of_sampling_spans_slices():
    mesh = make_mesh(2, -1, 1, [Device(i, i // 4, platform="cpu") for i in range(8)])
    assert dict(decoding_mesh(mesh, 4).shape) == {"data": 2, "fsdp": 1, "tensor": 4}
    with pytest.raises(ValueError, match=r"size 8, which does not divide the 4 devices of a slice"):
        decoding_mesh(mesh, 8)


class Device:
    """As much of a device as a mesh asks for."""

    def __init__(self, number: int, slice_index: int, platform: str = "tpu"):
        self.id, self.slice_index = number, slice_index
        self.platform, self.device_kind, self.process_index = platform, "TPU v5 lite", 0


def compiled(tmp_path, *flags: str) -> tuple[subprocess.CompletedProcess, dict]:
    out = tmp_path / "report.json"
    done = command("compile", f"--out={out}", *flags, env=os.environ | {"XLA_FLAGS": ""})
    return done, json.loads(out.read_text()) if out.exists() else {}


def refusal(tmp_path, *flags: str) -> str:
    done, _ = compiled(tmp_path, *flags)
    assert done.returncode == 1
    return done.stderr.strip().splitlines()[-1]


def test_the_microworld_is_not_compiled_ahead(tmp_path):
    said = refusal(tmp_path, "--config=configs/microworld.py", "--topology=v5e:2x2")
    assert said.startswith("error: config.pretrain:")


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--multihost", "Unknown command line flag 'multihost'"),
        ("--out=nowhere/report.json", f"there is no folder {ROOT / 'nowhere'}; make it"),
        ("--config.generation.response_tokens=2048", "leaves no room for a prompt"),
    ],
)
def test_bad_flags_are_refused_at_once(tmp_path, flag, words):
    flags = ["--config=configs/rlaif.py:llama3-8b", "--topology=v5e:2x2", flag]
    assert words in refusal(tmp_path, *flags)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A model of two layers, to compile in seconds."""
    fields = json.loads((ROOT / "configs/models/llama-3.1-8b-instruct/config.json").read_text())
    fields |= {"num_hidden_layers": 2, "hidden_size": 512, "intermediate_size": 1024}
    fields |= {"num_attention_heads": 8, "num_key_value_heads": 4, "vocab_size": 32_768}
    fields |= {"bos_token_id": 1, "eos_token_id": 2}
    folder = tmp_path_factory.mktemp("small")
    (folder / "config.json").write_text(json.dumps(fields))
    return folder


@tpu
@pytest.mark.tpu
def test_steps_compile_for_a_tpu_slice(tmp_path, small):
    flags = ["--config=configs/rlaif.py:llama3-8b", "--topology=v5e:2x4"]
    flags += [f"--config.model.architecture={small}", "--config.mesh.tensor=2"]
    flags += ["--config.mesh.decode_tensor=4", "--config.rl.lora.rank=0"]
    done, report = compiled(tmp_path, *flags)
    assert done.returncode == 0, done.stderr[-3000:]
    steps = {step["step"]: step for step in report["steps"]}
    assert set(steps) >= NAMES
    assert steps["evaluate: responses"]["resident"] > steps["sl_data: revisions"]["resident"] == 0
    assert steps["sl_train: initial optimizer state"]["flops"] == 0
    assert all(steps[name]["narrower"] for name in ("sl_data: revisions", "rl: responses"))
    for step in steps.values():
        assert not step["problem"]
        assert not step["unread"]
        # While sampling there is no fsdp, and a norm's scales are not worth splitting otherwise.
        names = {name.rpartition(".")[0] for name in step["replicated"]}
        norms = {"blocks.attention_norm", "blocks.mlp_norm", "norm"}
        assert names == (norms if step["samples"] else set()), step["step"]
        assert 0 < step["share"] < 0.9
    # A token of a response: activations are summed, and neither weights nor probabilities travel,
    # only the latter's sums over blocks of the vocabulary.
    sampling = steps["rl: responses"]["decode_collectives"]
    assert set(sampling) == {"all-reduce", "all-gather"}
    rows, d_model, blocks = 256 // 2, 512, 256
    assert max(array_bytes(x, True) for x in sampling["all-reduce"]) <= 4 * rows * (d_model + 2)
    assert max(array_bytes(x, True) for x in sampling["all-gather"]) <= 4 * rows * blocks
    assert "reduce-scatter" in steps["sl_train: update"]["collectives"]
    # Forward, again in the backward pass, and two matmuls backward.
    update = steps["sl_train: update"]
    matrices = report["parameters"] - 32_768 * 512  # the embedding is looked up
    assert update["flops"] * 8 == pytest.approx(8 * matrices * 128 * 2048, rel=0.3)


@tpu
@pytest.mark.tpu
def test_what_does_not_fit_is_reported_with_the_remedy(tmp_path, small):
    flags = ["--config=configs/rlaif.py:llama3-8b", "--topology=v5e:2x2", "--only=sl_train"]
    flags += [f"--config.model.architecture={small}", "--config.sl_train.batch_size=8192"]
    flags += ["--config.sl_train.micro_batches=1", "--config.mesh.decode_tensor=4"]
    done, report = compiled(tmp_path, *flags)
    assert done.returncode == 1
    assert "raise config.sl_train.micro_batches" in report["steps"][0]["problem"]


@tpu
@pytest.mark.tpu
def test_rows_that_would_be_computed_everywhere_are_refused(tmp_path, small):
    flags = ["--config=configs/rlaif.py:llama3-8b", "--topology=v5e:2x4", "--config.mesh.tensor=1"]
    said = refusal(tmp_path, *flags, "--config.rl.batch_size=16")
    assert "config.rl.batch_size: 4 rows at once do not split over 8 devices" in said


@tpu
@pytest.mark.tpu
@pytest.mark.parametrize("topology", ["v4:2x2x1", "v5e:2x2", "v5p:2x2x1", "v6e:2x2"])
def test_every_kind_of_chip_is_known(topology):
    script = (
        "import cai_jax.compile\n"  # keeps libtpu from looking for a TPU
        "from cai_jax.ahead.slices import chip_of, topology_devices\n"
        "from cai_jax.parallel.mesh import make_mesh\n"
        f"devices = topology_devices({topology!r}, 1)\n"
        "print(make_mesh(devices=devices).size, chip_of(devices).memory)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.startswith("4 "), done.stderr[-2000:]


@tpu
@pytest.mark.tpu
def test_slices_that_do_not_exist_are_refused(tmp_path):
    done, _ = compiled(tmp_path, "--config=configs/rlaif.py:llama3-8b", "--topology=v5e:7x9")
    assert done.returncode == 1
    assert "error: --topology=v5e:7x9: no such slice" in done.stderr
