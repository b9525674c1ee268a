"""How every command starts: flags, log, cache of programs; and how a user's mistake ends it."""

import logging
import math
import os
import select
import sys
from collections.abc import Callable
from pathlib import Path

from absl import app, flags
from absl import logging as absl_logging

from cai_jax.parallel.link import HostLostError
from cai_jax.redaction import without_secrets

log = logging.getLogger("cai_jax")


def start(main: Callable[..., None], files: bool = False) -> None:
    """Runs the ``main`` of a command, once its flags are parsed.

    Args:
      main: takes the files, if the command does, else nothing.
      files: what stands on the command line beside the flags names files.

    A mistake of the user is one message and exit code 1. A host that did not come has a code of its
    own, with which GKE starts the run again.
    """
    app.run(lambda given: _guarded(main, given[1:], files), flags_parser=_parse_flags)


def _parse_flags(argv: list[str]) -> list[str]:
    """Parses flags; an unknown one, or a broken config file, ends with one line."""
    if not {"--help", "-help", "-h"}.isdisjoint(argv):
        print(_help(argv[0]))
        sys.exit()
    try:
        given = flags.FLAGS(argv)
        for name in flags.FLAGS:
            value = flags.FLAGS[name].value
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"--{name}: {value} is no finite number; give one")
        return given
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        # ml_collections hands on the traceback of a config file; its last line is the error.
        text = str(error).strip()
        sys.exit(f"error: {text.splitlines()[-1] if 'Traceback' in text else text}")


def _help(command: str) -> str:
    """What a command does, and all flags of ours that it has, wherever they are defined.

    absl's own names those of the file alone that is run, and calls it a failure.
    """
    shown = flags.FlagValues()
    for module, defined in flags.FLAGS.flags_by_module_dict().items():
        if module == command or module.startswith("cai_jax."):
            for flag in defined:
                shown[flag.name] = flag
    listed = shown.get_help(include_special_flags=False)
    return f"{sys.modules['__main__'].__doc__}\nflags:\n\n{listed}"


def _guarded(main: Callable[..., None], arguments: list[str], files: bool) -> None:
    if arguments and not files:
        sys.exit(f"error: {arguments[0]}: no such flag; flags are --NAME=VALUE")
    _log_to_stderr()
    try:
        _keep_programs()
        main([Path(name) for name in arguments]) if files else main()
        sys.stdout.flush()
    except BrokenPipeError as error:
        _end_unread(error)
    except HostLostError as error:
        print(without_secrets(f"error: {error}"), file=sys.stderr)
        sys.exit(error.exit_code)
    except (ValueError, FloatingPointError, OSError) as error:
        sys.exit(without_secrets(f"error: {error}"))


class _PublicFormatter(logging.Formatter):
    """Lines of the log."""

    def format(self, record: logging.LogRecord) -> str:
        return without_secrets(super().format(record))


def _end_unread(error: BrokenPipeError) -> None:
    """Ends well if it is standard output that nobody reads on: files are written before."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)  # tells of errors alone
    if not poll.poll(0):
        sys.exit(f"error: {error}")
    # The interpreter flushes once more at its end.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _log_to_stderr() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(_PublicFormatter("%(asctime)s %(message)s", "%H:%M:%S"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False  # absl would print it again
    absl_logging.set_verbosity(absl_logging.WARNING)  # Orbax and clu report every file
    # What happens in a thread of Orbax is raised where that is waited for, and told in a sentence.
    absl_logging.get_absl_handler().addFilter(lambda record: not record.exc_info)
    sys.unraisablehook = _report_unraisable


def _report_unraisable(told: "sys.UnraisableHookArgs") -> None:
    """Python's traceback, but for TensorStore's when Orbax closed its loop at an error."""
    if str(told.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(told)


def _keep_programs() -> None:
    """Programs compiled once are found again by the next command with the same shapes."""
    import jax

    from cai_jax.models.io.sources import cache_folder

    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:  # which may be a bucket
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "xla"))
