"""The flag --config=FILE[:PRESET], with --config.FIELD=VALUE for every field."""

import re
import sys
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict
from ml_collections.config_flags import config_flags

from cai_jax.config import Config, ConfigError, parse_config, with_defaults
from cai_jax.reading import check_regular


class FileParser(config_flags.ConfigFileFlagParser):
    """Loads a config file, if there is one: ml_collections alone tells late, and not what to do."""

    def parse(self, path: str) -> ConfigDict:
        check_regular(Path(path.partition(":")[0]))
        return super().parse(path)


class ConfigParser(FileParser):
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
    """Defines the flag.

    A field that no config has is let through here: ``parse_config`` refuses it in better words.
    """
    loose = {"lock_config": False, "accept_new_attributes": True}
    holder = config_flags.DEFINE_config_file("config", None, "config file", flag_values, **loose)
    flag_values["config"].parser = ConfigParser("config", lock_config=False)
    return holder


CONFIG = define_config()
flags.mark_flag_as_required("config")


def config_file() -> Path:
    """The file that the flag names, without its preset."""
    return Path(config_flags.get_config_filename(flags.FLAGS["config"]).partition(":")[0])


def read_config() -> Config:
    """The config that the flags give.

    Raises:
      ConfigError: it cannot be run.
    """
    return parse_config(CONFIG.value.to_dict())
