"""The method on a small synthetic world with an oracle to check it by.

    python -m cai_jax.main --config=configs/microworld.py        # 5.5 minutes on two cores
    python -m cai_jax.main --config=configs/microworld.py:fast   # 3.5 minutes, for tests

Its stages are those of configs/rlaif.py; only model, prompts, constitution and sizes differ. The
model is pretrained here, and an oracle reads its replies at evaluation.
"""

from ml_collections import ConfigDict


def get_config(preset: str = "whole") -> ConfigDict:
    presets = {"whole": whole, "fast": fast}
    if preset not in presets:
        raise ValueError(
            f"configs/microworld.py: no preset {preset!r}; known: {', '.join(presets)}"
        )
    return presets[preset]()


def whole() -> ConfigDict:
    c = ConfigDict()
    c.seed = 0
    c.workdir = "runs/microworld"
    c.stages = "all"
    c.rerun_changed = False
    c.stage_store = ""

    c.model = dict(
        source="",
        system_prompt="",
        compute_dtype="float32",
        architecture="",
        attention="auto",
        remat="nothing_saveable",
        cache="",
    )
    c.pretrain = dict(
        corpus="cai_jax.microworld.corpus:dialogues",
        options=dict(
            dialogues=42_000.0,
            critic_recall=0.9,
            direct_recall=0.6,
            evasive_revisions=0.2,
            judge_accuracy=0.99,
            thought_accuracy=0.995,
            position_bias=0.65,
            kind_replies=0.15,
        ),
        num_layers=3,
        d_model=96,
        num_heads=4,
        d_ff=256,
        max_length=512,
        epochs=1,
        batch_size=8,
        micro_batches=1,
        sequence_length=128,
        learning_rate=3e-3,
        warmup_steps=100,
        max_grad_norm=1.0,
    )
    c.mesh = dict(data=1, fsdp=-1, tensor=1, decode_tensor=0)
    c.constitution = dict(
        path="constitutions/microworld/harmless.yaml", critique_principles=0, feedback_principles=0
    )
    folder = "datasets/microworld"
    c.data = dict(
        red_team_prompts=f"{folder}/red_team_prompts.jsonl",
        helpful_prompts=f"{folder}/helpful_prompts.jsonl",
        helpfulness_pairs=f"{folder}/helpfulness_pairs.jsonl",
        harmlessness_pairs=f"{folder}/harmlessness_pairs.jsonl",
        held_out_percent=30,
    )
    c.generation = dict(
        temperature=0.7,
        top_k=0,
        top_p=1.0,
        batch_size=64,
        score_batch_size=64,
        response_tokens=32,
        critique_tokens=24,
        context_tokens=512,
    )
    full = dict(rank=0, alpha=1.0)
    c.sl_data = dict(
        red_team_prompts=200,
        helpful_prompts=320,
        helpful_samples=3,
        rounds=4,
        critique=True,
        few_shots=0,
    )
    c.sl_train = dict(
        lora=full,
        trained_layers=0,
        epochs=6,
        batch_size=32,
        micro_batches=1,
        sequence_length=128,
        learning_rate=1e-3,
        warmup_steps=5,
        max_grad_norm=1.0,
    )
    c.feedback = dict(
        method="multiple_choice",
        source="",
        prompts=200,
        pairs_per_prompt=4,
        temperature=1.2,
        principles_per_pair=4,
        labels="soft",
        few_shots=0,
        contrast_scale=5.0,
        reasoning_tokens=40,
        clamp_low=0.4,
        clamp_high=0.6,
        audit_pairs=200,
    )
    c.pm_train = dict(
        source="",
        lora=full,
        trained_layers=0,
        helpfulness_pairs=1280,
        epochs=2,
        batch_size=32,
        micro_batches=1,
        sequence_length=64,
        learning_rate=1e-3,
        warmup_steps=5,
        max_grad_norm=1.0,
    )
    c.rl = dict(
        lora=full,
        trained_layers=0,
        iterations=30,
        batch_size=128,
        minibatches=4,
        micro_batches=1,
        epochs=2,
        prompt_tokens=24,
        response_tokens=32,
        temperature=1.0,
        learning_rate=1e-4,
        warmup_steps=2,
        max_grad_norm=1.0,
        adam_eps=1e-5,
        kl_coef=0.5,
        kl_target=0.0,
        kl_horizon=1000,
        gamma=1.0,
        lam=0.95,
        clip_ratio=0.2,
        clip_value=0.2,
        value_coef=0.5,
        entropy_coef=0.0,
        offload=False,
        unusable_score=-2.0,
        missing_stop_penalty=1.0,
        helpful_fraction=0.5,
        max_sampler_gap=0.01,
        max_first_ratio_error=1e-5,
    )
    c.evaluate = dict(
        red_team_prompts=76,
        helpful_prompts=129,
        labelled_pairs=80,
        bootstrap_samples=2000,
        oracle="cai_jax.microworld.oracle:judge",
    )
    c.report = dict(transcripts=6)
    return c


def fast() -> ConfigDict:
    """Less practice at everything: what the method does still shows, by smaller margins."""
    c = whole()
    c.workdir = "runs/microworld_fast"
    c.pretrain.options.dialogues = 24_000.0
    c.sl_data.helpful_samples = 2
    c.pm_train.helpfulness_pairs = 960
    c.rl.iterations = 20
    c.evaluate.labelled_pairs = 140  # nearly all: one seed has to show it
    return c
