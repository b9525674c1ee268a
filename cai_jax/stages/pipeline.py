"""The stages in the order in which they run."""

from cai_jax.config import Config
from cai_jax.stages import (
    evaluate,
    feedback,
    pm_train,
    pretrain,
    red_team,
    report,
    rl,
    sl_data,
    sl_train,
    warm_up,
)
from cai_jax.stages.stage import Stage

STAGES: tuple[Stage, ...] = (
    pretrain.STAGE,
    warm_up.STAGE,
    sl_data.STAGE,
    sl_train.STAGE,
    red_team.STAGE,
    feedback.STAGE,
    pm_train.STAGE,
    pm_train.SECOND,
    rl.STAGE,
    evaluate.STAGE,
    report.STAGE,
)


def stages_of(config: Config) -> list[Stage]:
    """The stages of a run; some are there only where the config asks for their model."""
    left_out = set()
    if not config.pretrain:
        left_out.add("pretrain")
    if not config.warm_up.epochs:
        left_out.add("warm_up")
    if not config.red_team.rounds:
        left_out.add("red_team")
    if not config.second_model.prompts:
        left_out.add("second_model")
    return [stage for stage in STAGES if stage.name not in left_out]
