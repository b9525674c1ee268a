"""Runs Constitutional AI: flags, config, checks, stages, in that order.

python -m cai_jax.main --config=configs/rlaif.py --config.rl.kl_coef=0.1

On several hosts the same command runs on each, with --multihost where the environment knows the
others (TPU VM, GKE, Slurm), or with --coordinator, --num_hosts and --host_id.
"""

import os
import re
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow only reads data here
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # no word on missing PyTorch
if not sys.stderr.isatty():
    os.environ.setdefault("TQDM_MININTERVAL", "10")  # seconds; logs are not for animation

import logging
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import ConfigDict
from ml_collections.config_flags import config_flags

from cai_jax.config import Config, ConfigError, parse_config, with_defaults
from cai_jax.parallel.link import HostLostError

log = logging.getLogger("cai_jax")


class ConfigParser(config_flags.ConfigFileFlagParser):
    """Loads a config file as a tree of all fields, so that flags can override every one."""

    def parse(self, path: str) -> ConfigDict:
        config = ConfigDict(with_defaults(super().parse(path).to_dict()))
        for argument in sys.argv:
            if override := re.match(r"--?(?:no)?config\.([^=]+)", argument):
                _make_blocks(config, override[1])
        return config


def _make_blocks(config: ConfigDict, field: str) -> None:
    """Makes the blocks around a field: ml_collections sets no field of a block that is not there.

    Raises:
      ConfigError: one of them is a field that holds a value.
    """
    for name in field.split(".")[:-1]:
        if name not in config:
            config[name] = ConfigDict()
        config = config[name]
        if not isinstance(config, ConfigDict):
            raise ConfigError(f"config.{field}: no such field; {name} is a value, not a block")


def define_config(flag_values: flags.FlagValues = flags.FLAGS) -> flags.FlagHolder:
    """The flag --config=FILE[:PRESET], with --config.FIELD=VALUE for every field.

    A field that no config has is let through here: ``parse_config`` refuses it in better words.
    """
    loose = {"lock_config": False, "accept_new_attributes": True}
    holder = config_flags.DEFINE_config_file("config", None, "config file", flag_values, **loose)
    flag_values["config"].parser = ConfigParser("config", lock_config=False)
    return holder


CONFIG = define_config()
MULTIHOST = flags.DEFINE_bool("multihost", False, "find the other hosts (TPU VM, GKE, Slurm)")
COORDINATOR = flags.DEFINE_string("coordinator", "", "HOST:PORT of host 0, where nothing knows it")
NUM_HOSTS = flags.DEFINE_integer("num_hosts", 0, "with --coordinator: how many", lower_bound=0)
HOST_ID = flags.DEFINE_integer(
    "host_id", -1, "with --coordinator: this host's number, from 0", lower_bound=-1
)
START_TIMEOUT = flags.DEFINE_integer(
    "start_timeout", 300, "seconds to wait for a host to come", lower_bound=1
)
flags.mark_flag_as_required("config")


def main(argv: list[str]) -> None:
    """Runs the stages that the config names."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {' '.join(argv[1:])}")
    config = parse_config(CONFIG.value.to_dict())
    from cai_jax.parallel import hosts

    settings = asdict(config)
    settings["model"].pop("cache")
    where = MULTIHOST.value, COORDINATOR.value, NUM_HOSTS.value, HOST_ID.value
    with hosts.together(*where, START_TIMEOUT.value, settings, Path(config.workdir)):
        if not hosts.is_main():
            log.setLevel(logging.ERROR)  # the main host says it
            os.environ["TQDM_DISABLE"] = "1"
        run_config(config)


def host_flags() -> list[str]:
    """The flags of several hosts that were given."""
    own = (MULTIHOST, COORDINATOR, NUM_HOSTS, HOST_ID, START_TIMEOUT)
    return [f"--{flag.name}" for flag in own if flag.present]


def run_config(config: Config) -> None:
    """Runs the stages that the config names, on all devices that JAX sees."""
    log.info("workdir %s", config.workdir)

    import jax

    from cai_jax.models.io.sources import cache_folder
    from cai_jax.parallel import hosts
    from cai_jax.stages.checks import check_inputs, check_models
    from cai_jax.stages.pipeline import stages_of
    from cai_jax.stages.runner import run_stages
    from cai_jax.stages.stage import open_run

    # Programs compiled once are found again by the next run with the same shapes.
    jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "xla"))
    run, stages = open_run(config), stages_of(config)
    check_inputs(run, stages)
    with hosts.main_first("reading the models"):
        check_models(run)
    run.workdir.claim(config)
    run_stages(run, stages)
    page = run.workdir.folder("report") / "index.html"
    if page.exists():
        log.info("report: %s", page)
        log.info("summary: %s", page.with_name("summary.json"))


def parse_flags(argv: list[str]) -> list[str]:
    """Parses flags; an unknown config field or a broken config file ends with one line."""
    try:
        return flags.FLAGS(argv)
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        # ml_collections hands on the traceback of a config file; its last line is the error.
        text = str(error).strip()
        sys.exit(f"error: {text.splitlines()[-1] if 'Traceback' in text else text}")


def start(main: Callable[[list[str]], None]) -> None:
    """Runs a ``main`` with its log on stderr; errors of the user are one message and exit code 1.

    A host that did not come has a code of its own, with which GKE starts the run again.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False  # absl would print it again

    def guarded(argv: list[str]) -> None:
        absl_logging.set_verbosity(absl_logging.WARNING)  # Orbax and clu report every file
        try:
            main(argv)
        except HostLostError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(error.exit_code)
        except (ValueError, FloatingPointError, OSError) as error:
            sys.exit(f"error: {error}")

    app.run(guarded, flags_parser=parse_flags)


if __name__ == "__main__":
    start(main)
