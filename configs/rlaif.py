"""Constitutional AI on a pretrained model: critique-revision, SFT, AI feedback, PPO, report.

    python -m cai_jax.main --config=configs/rlaif.py             # laptop: SmolLM2-135M, two cores
    python -m cai_jax.main --config=configs/rlaif.py:smoke       # every stage, tiny sizes
    python -m cai_jax.main --config=configs/rlaif.py:small       # one GPU, or a patient CPU: 0.5B
    python -m cai_jax.main --config=configs/rlaif.py:colab       # one TPU of Colab: 1.5B

    python -m cai_jax.compile --config=configs/rlaif.py:colab --topology=v5e:1x1
    python -m cai_jax.compile --config=configs/rlaif.py:smollm2-1.7b --topology=v5e:4x4
    python -m cai_jax.compile --config=configs/rlaif.py:llama3-8b --topology=v5e:8x16
    python -m cai_jax.compile --config=configs/rlaif.py:llama3-70b --topology=v5p:4x4x8
    python -m cai_jax.compile --config=configs/rlaif.py:paper --topology=v5p:4x4x8

compile the presets for the slices that they are made for; docs/compile/ has what that says. A
preset says what differs from the defaults in cai_jax/config.py, where every field is explained.
Any field can be overridden: --config.rl.kl_coef=0.1.
"""

from ml_collections import ConfigDict


def get_config(preset: str = "laptop") -> ConfigDict:
    presets = {
        "laptop": laptop,
        "smoke": smoke,
        "small": small,
        "colab": colab,
        "smollm2-1.7b": smollm2_1_7b,
        "llama3-8b": llama3_8b,
        "llama3-70b": llama3_70b,
        "paper": paper,
    }
    if preset not in presets:
        raise ValueError(f"configs/rlaif.py: no preset {preset!r}; known: {', '.join(presets)}")
    return presets[preset]()


def laptop() -> ConfigDict:
    """The defaults, and an adapter that knows the form, for few-shots confuse so small a model."""
    c = _briefly()
    c.workdir = "runs/rlaif"
    # What the matmuls of so small a model give fits in memory (2.4 GB at most, in pm_train), and
    # need not be computed again.
    c.model.remat = "dots_with_no_batch_dims_saveable"
    c.warm_up = dict(source="adapters/smollm2-135m-instruct")
    c.generation = dict(critique_tokens=48, batch_size=48)
    c.sl_data = dict(few_shots=0, draw_by_tag=16.0)
    return c


def smoke() -> ConfigDict:
    c = laptop()
    c.workdir = "runs/smoke"
    c.generation = dict(batch_size=8, score_batch_size=8, critique_tokens=40, response_tokens=40)
    c.sl_data = dict(red_team_prompts=8, helpful_prompts=4, rounds=1, few_shots=0)
    c.sl_train = dict(batch_size=2, sequence_length=128)
    c.feedback = dict(prompts=6, helpful_prompts=4, audit_pairs=8)
    c.pm_train = dict(helpfulness_pairs=6, batch_size=4)
    c.second_model = dict(prompts=8, helpfulness_pairs=6)  # of so short replies few parse twice
    c.rl = dict(iterations=2, batch_size=8, response_tokens=16, watch_every=1, watch_prompts=4)
    c.evaluate = dict(red_team_prompts=4, helpful_prompts=4, labelled_pairs=4)
    c.evaluate.update(twins=2, judged_replies=2)
    return c


def small() -> ConfigDict:
    """Qwen2.5-0.5B-Instruct, which learns the form before it criticises."""
    c = _briefly()
    c.workdir = "runs/small"
    c.model.source = "hf:Qwen/Qwen2.5-0.5B-Instruct"
    c.warm_up = dict(epochs=2, learning_rate=5e-4)
    c.generation.critique_tokens = 48
    c.sl_data = dict(few_shots=0, draw_by_tag=16.0, red_team_prompts=96, helpful_prompts=48)
    c.sl_train = dict(sequence_length=320)
    c.feedback = dict(prompts=96, helpful_prompts=48)
    c.pm_train = dict(helpfulness_pairs=96, sequence_length=320)
    c.second_model = dict(prompts=40)
    c.rl = dict(iterations=20, learning_rate=1e-3)
    return c


def colab() -> ConfigDict:
    """Qwen2.5-1.5B-Instruct with low-rank updates, on one chip of 16 GiB, v5e:1x1."""
    c = _briefly()
    c.workdir = "runs/colab"
    c.model.update(
        source="hf:Qwen/Qwen2.5-1.5B-Instruct",
        compute_dtype="bfloat16",
        architecture="configs/models/qwen2.5-1.5b-instruct",
    )
    c.generation = dict(batch_size=48, score_batch_size=24, critique_tokens=64, context_tokens=1536)
    c.sl_data = dict(draw_by_tag=16.0, red_team_prompts=200, helpful_prompts=120)
    c.sl_train = dict(batch_size=16, micro_batches=4, sequence_length=512)
    c.feedback = dict(prompts=200, helpful_prompts=120, principles_per_pair=2)
    c.pm_train = dict(helpfulness_pairs=150, batch_size=16, micro_batches=2, sequence_length=320)
    c.second_model = dict(prompts=40)
    c.rl = dict(iterations=40, batch_size=64, micro_batches=2, learning_rate=5e-4, watch_every=5)
    c.evaluate = dict(samples_per_prompt=4, twins=60, judged_replies=60)
    return c


def smollm2_1_7b() -> ConfigDict:
    """16 chips, v5e:4x4."""
    c = _pod("HuggingFaceTB/SmolLM2-1.7B-Instruct", "smollm2-1.7b-instruct")
    c.workdir = "runs/smollm2-1.7b"
    c.mesh = dict(decode_tensor=2)
    c.generation.batch_size = 64  # it has as many key heads as query heads: large caches
    return c


def llama3_8b() -> ConfigDict:
    """128 chips, v5e:8x16; 256 as well."""
    c = _pod("meta-llama/Llama-3.1-8B-Instruct", "llama-3.1-8b-instruct")
    c.workdir = "runs/llama3-8b"
    c.mesh = dict(tensor=4, decode_tensor=8)
    return c


def llama3_70b() -> ConfigDict:
    """128 chips, v5p:4x4x8."""
    c = _pod("meta-llama/Llama-3.1-70B-Instruct", "llama-3.1-70b-instruct")
    c.workdir = "runs/llama3-70b"
    c.mesh = dict(tensor=4, decode_tensor=8)
    c.sl_train.learning_rate = 2e-6
    c.pm_train.learning_rate = 2e-6
    c.rl.learning_rate = 5e-7
    return c


def paper() -> ConfigDict:
    """The sizes of Bai et al. 2022, on the open model nearest to theirs (52 billion parameters).

    Bring as many prompts and pairs: datasets/ has samples of the format. Numbers that the paper
    does not state are those of ``llama3-70b``.
    """
    c = llama3_70b()
    c.workdir = "runs/paper"
    c.constitution = dict(critique_principles=16, feedback_principles=16)
    c.sl_data.update(red_team_prompts=182_831, helpful_prompts=135_296, helpful_samples=2)
    c.sl_train.update(batch_size=1024, micro_batches=8, sequence_length=1024)
    c.feedback.prompts = 182_831
    c.pm_train.helpfulness_pairs = 135_296
    return c


def _briefly() -> ConfigDict:
    """A word to the model: left to itself, the smallest ends one reply of three in time."""
    c = ConfigDict()
    c.model = dict(
        system_prompt="You are a helpful assistant. Answer briefly, in one or two sentences."
    )
    c.generation = dict()
    return c


def _pod(repository: str, architecture: str) -> ConfigDict:
    """What all models on TPU slices share: full finetuning, and samples at the temperature of 1."""
    full = dict(lora=dict(rank=0, alpha=1.0), trained_layers=0)
    c = ConfigDict()
    c.model = dict(
        source=f"hf:{repository}",
        compute_dtype="bfloat16",
        architecture=f"configs/models/{architecture}",
    )
    c.generation = dict(
        temperature=1.0,
        batch_size=256,
        score_batch_size=128,
        score_pack_tokens=512,
        response_tokens=256,
        critique_tokens=256,
    )
    c.sl_data = dict(red_team_prompts=10_000, helpful_prompts=10_000, rounds=4)
    c.sl_train = dict(
        **full,
        batch_size=128,
        micro_batches=2,
        sequence_length=2048,
        learning_rate=5e-6,
        warmup_steps=20,
    )
    c.feedback = dict(
        method="multiple_choice",
        prompts=10_000,
        helpful_prompts=10_000,
        temperature=1.0,
        principles_per_pair=4,
        chains=5,
        audit_pairs=1000,
    )
    c.second_model = dict(prompts=2_000)
    c.pm_train = dict(
        **full,
        helpfulness_pairs=10_000,
        batch_size=128,
        micro_batches=2,
        sequence_length=1024,
        learning_rate=5e-6,
        warmup_steps=20,
    )
    c.rl = dict(
        **full,
        iterations=500,
        batch_size=256,
        minibatches=4,
        prompt_tokens=256,
        response_tokens=256,
        watch_every=50,
        watch_prompts=256,
        temperature=1.0,
        learning_rate=1e-6,
        value_learning_rate=5e-5,
        warmup_steps=10,
        kl_coef=0.02,
    )
    c.evaluate = dict(
        red_team_prompts=500,
        helpful_prompts=500,
        labelled_pairs=500,
        judge_principles=4,
        twins=150,
        judged_replies=500,
    )
    return c
