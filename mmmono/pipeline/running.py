"""Run a function of a configuration as a Hydra command line with one-line error messages; see `entrypoint`."""

from __future__ import annotations

import difflib
import io
import logging
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException, InstantiationException
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from mmmono.core.cores import limit_threads
from mmmono.core.disk_trouble import explain_disk_trouble
from mmmono.core.errors import ConfigError, MmmonoError
from mmmono.core.extras import install
from mmmono.core.gpu_memory import enough_gpu_memory
from mmmono.core.memory import collect_rarely, keep_freed_memory
from mmmono.core.process_group import place_of_this_process
from mmmono.core.processes import end_with_parent, hold, release, serve
from mmmono.core.text import one_line
from mmmono.pipeline.command_line import hydra_arguments
from mmmono.pipeline.settings import CONF, check_settings
from mmmono.pipeline.shared_settings import own_settings

NO_GPU_MEMORY = (
    "end other programs that use the GPU, which nvidia-smi shows, or set device=cpu; what is finished is kept"
)
Objective: TypeAlias = float | tuple[float, ...] | None  # what a sweeper such as Optuna optimizes
LOGS = ("hydra.run.dir", "hydra.sweep.dir")  # settings of where Hydra writes, under `artifacts` unless they are given
COMMAND = "MMMONO_COMMAND"  # environment variable with the number of the process that runs the command


def _run_job(main: Callable[[DictConfig], Objective], cfg: DictConfig, config_name: str) -> Objective:
    """Check a job's configuration and run it: once for a command, once for each combination of settings in a multirun.

    Raises:
        MmmonoError: the job of a multirun failed. Outside of one, its error is printed and the process exits.
    """
    quiet()  # again, because a launcher's worker does not run the command
    limit_threads()
    _end_with_command()
    os.chdir(HydraConfig.get().runtime.cwd)  # resolve the user's relative paths, whatever hydra.job.chdir is
    try:
        _check_mandatory(cfg)
        _check_objective(cfg)
        check_settings(cfg, config_name)
        with enough_gpu_memory(NO_GPU_MEMORY):
            return _tracked(main, cfg, config_name)
    except (MmmonoError, OmegaConfBaseException, InstantiationException) as error:
        if _is_bug(error):
            raise
        if _is_search():  # the sweeper continues without printing why a trial failed
            print(f"error: job {HydraConfig.get().job.num}: {error_line(error)}", file=sys.stderr)
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            raise MmmonoError(f"job {HydraConfig.get().job.num}: {error_line(error)}") from error
        _fail(error)  # before Hydra prints its own line
    except Exception:  # a bug
        if _is_search():
            traceback.print_exc()
        raise


def run_command(main: Callable[[DictConfig], Objective], config_name: str) -> None:
    """Run Hydra on the arguments of the command line, or serve the process that does so and started this one."""

    def checked(cfg: DictConfig) -> Objective:
        return _run_job(main, cfg, config_name)

    checked.__module__, checked.__qualname__ = main.__module__, main.__qualname__
    run = hydra.main(config_path=str(CONF), config_name=config_name, version_base="1.3")(checked)
    if not CONF.is_dir():
        sys.exit(f"error: no configuration at {CONF}: install mmmono again")
    quiet()
    collect_rarely()
    place = place_of_this_process()
    command = [config_name, *sys.argv[1:]]
    if place is not None and place.rank > 0:
        sys.exit(serve(place, command))  # rank 0 runs the command and sends tasks to the other processes
    keep_freed_memory()
    os.environ[COMMAND] = str(os.getpid())
    try:
        sys.argv[1:] = [added(argument) for argument in hydra_arguments(sys.argv[1:])]
        sys.argv[1:] = own_settings(config_name, sys.argv[1:], CONF)
        if place is not None:
            hold(place, command)
        run()
    except (MmmonoError, HydraException, OmegaConfBaseException) as error:
        _fail(error)
    except OSError as error:  # from Hydra's run logs, or from looking for artifacts
        setting = next((name for name in LOGS if any(given.startswith(f"{name}=") for given in command)), "artifacts")
        if (explained := explain_disk_trouble(error, error.filename or f"{setting}=", setting)) is None:
            raise
        _fail(explained)
    except ValueError as error:
        if "No trials are completed" not in str(error):
            raise
        _fail(MmmonoError("every trial of the search has failed, as the lines above say"))
    finally:
        release()


def _tracked(main: Callable[[DictConfig], Objective], cfg: DictConfig, job: str) -> Objective:
    """Run a job with the tracker selected by `logger=`."""
    if "logger" not in cfg:
        return main(cfg)
    from mmmono.pipeline.tracking import tracking  # not at the top, so that --help needs no pandas

    with tracking(instantiate(cfg.logger), cfg, job):
        return main(cfg)


def added(argument: str) -> str:
    """Turn `+trainer.key=value` into `++trainer.key=value`, which also works if the setting exists."""
    return f"+{argument}" if argument.startswith("+trainer.") else argument


def _fail(error: Exception) -> NoReturn:
    if "MMMONO_TRACEBACK" in os.environ:
        traceback.print_exc()
    print(f"error: {one_line(error_line(error))}", file=sys.stderr)
    sys.exit(1)


def quiet() -> None:
    """Silence progress bars and warnings of other libraries that users cannot act on; call it in every process."""
    _open_closed_streams()
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # makes Hydra raise errors instead of printing them
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TQDM_DISABLE", "0" if sys.stderr.isatty() else "1")  # no progress bars in logs
    logging.raiseExceptions = False  # a log that cannot be written; `ending_in_a_line` says so of standard output
    setattr(JobReturn, "return_value", property(_result, vars(JobReturn)["return_value"].fset))  # noqa: B010 - for mypy, it is a read-only property
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # for terminals and file names that are not UTF-8
            stream.reconfigure(errors="backslashreplace")
    for message in (
        ".*does not have many workers.*",
        ".*log_every_n_steps.*",
        ".*LeafSpec.*",
        ".*litlogger.*",
        "Checkpoint directory .* exists.*",  # expected when a training resumes
    ):
        warnings.filterwarnings("ignore", message=message)


def _result(job: JobReturn) -> Any:
    """Return a job's value or raise its error, without the log line that Hydra's own property writes."""
    if job.status == JobStatus.FAILED:
        raise job._return_value
    return job._return_value


def _open_closed_streams() -> None:
    """Let streams that whoever started this process has closed lead nowhere, before a file gets their number."""
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            try:
                os.fstat(number)
            except OSError:
                os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115, PTH123 - open to the end


def _end_with_command() -> None:
    """In a worker process of the joblib launcher, end when the command has been killed: workers would go on alone."""
    command = os.environ.get(COMMAND)
    launched = HydraConfig.get().mode == RunMode.MULTIRUN and "joblib" in HydraConfig.get().launcher._target_
    if launched and command is not None and int(command) != os.getpid():
        end_with_parent(int(command))


def _is_bug(error: Exception) -> bool:
    """Whether an instantiation failed because of a bug rather than a setting."""
    cause = _purpose(error)
    if not isinstance(error, InstantiationException) or isinstance(cause, MmmonoError):
        return False
    return cause is not error and not isinstance(cause, TypeError | ValueError | ImportError | OSError)


def _purpose(error: BaseException) -> BaseException:
    """Return the first `MmmonoError` in an error's chain of causes, or else the root cause."""
    cause = error
    while not isinstance(cause, MmmonoError) and cause.__cause__ is not None:
        cause = cause.__cause__
    return cause


def _check_mandatory(cfg: DictConfig) -> None:
    missing = sorted(OmegaConf.missing_keys(cfg))
    if missing:
        key = missing[0]
        group = key.split(".")[0]
        chosen = HydraConfig.get().runtime.choices.get(group)
        raise ConfigError(f"{group}={chosen} needs a value for {key}: give {key}=...")


def _is_search() -> bool:
    """Whether this is a multirun with an optimizing sweeper, such as Optuna's."""
    return HydraConfig.get().mode == RunMode.MULTIRUN and "direction" in HydraConfig.get().sweeper


def _check_objective(cfg: DictConfig) -> None:
    """Raise ConfigError if an optimizing sweeper has no objective."""
    if _is_search() and cfg.get("objective") is None:
        sweeper = HydraConfig.get().sweeper
        raise ConfigError(
            f"{sweeper._target_.rpartition('.')[2]} has nothing to optimize: run experiments/train.py with objective=fvu, "
            "or with hparams_search=..., which names one"
        )


def error_line(error: Exception) -> str:
    """Format an error as one line, with the most similar existing key if a key is unknown."""
    cause = _purpose(error)
    if isinstance(cause, MmmonoError):
        return str(cause)
    if isinstance(error, InstantiationException) and cause is not error:
        where = re.search(r"full_key: (\S+)", str(error))
        return f"{where[1] if where else 'a setting'} has a value that cannot work: {cause}"
    if isinstance(error, OmegaConfBaseException) and error.full_key:
        return _key_error_line(error)
    text = " ".join(line.strip() for line in str(error).splitlines() if line.strip())
    if match := re.match(r"Could not override '([^']+)'", text):
        key, whole = match[1], str(getattr(cause, "full_key", ""))
        if whole.startswith(f"{key}.") and "." in key:  # a mapping with names of the user's own
            return f"{key} has no entry {whole.removeprefix(f'{key}.')!r}: add it with +{whole}=…"
        key = whole if whole.startswith(f"{key}.") else key  # of a section that was given as a whole
        return f"no setting is called {key!r}{_nearest(key)}; --help lists them all"
    if match := re.match(r"In '[^']*': Could not (?:find|load) '([^']+)'", text):
        group, _, option = match[1].rpartition("/")
        if group in ("hydra/launcher", "hydra/sweeper"):
            return (
                f"{group}={option} is not installed: the extra 'sweep' brings joblib, submitit_local, submitit_slurm and "
                f"optuna: {install('sweep')}"
            )
        folders = re.findall(r"^\tprovider=.*?, path=file://(.+)$", str(error), re.MULTILINE)  # the user's own, too
        options = (
            sorted({file.stem for folder in folders for file in Path(folder, group).glob("*.yaml")}) if group else []
        )
        available = f": choose one of {', '.join(options)}" if options else ""
        return f"{group}={option} names no option{available}"
    return text


def _key_error_line(error: OmegaConfBaseException) -> str:
    """Format an error of OmegaConf that knows the setting it is about: a missing one, or one that cannot be resolved."""
    if isinstance(error, ConfigAttributeError | ConfigKeyError):
        return f"{error.full_key} is missing, and this command reads it: give it a value"
    reason = re.sub(r"^\w+ raised while resolving interpolation: ", "", str(error).splitlines()[0]).strip('"')
    return f"{error.full_key} has no value: {reason}"


def _nearest(key: str) -> str:
    groups = [folder.name for folder in CONF.iterdir() if folder.is_dir()] if "." not in key else []
    known: dict[str, list[str]] = {group: [] for group in groups}
    for file in sorted(CONF.rglob("*.yaml")):
        group = file.parent.name if file.parent != CONF else ""
        for path in (".".join(path) for path in _leaf_paths(OmegaConf.load(file))):
            for name in {f"{group}.{path}" if group else path, *([path] if group == "features" else [])}:
                known.setdefault(name, []).extend([f"{group}={file.stem}"] if group else [])
    if options := known.get(key):
        return f" here: it belongs to {', '.join(options[:3])}{' and more' if len(options) > 3 else ''}"
    if key in known:
        return " here, though another entrypoint has it"
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    return f", did you mean {close[0]!r}?" if close else ""


def _leaf_paths(node: object) -> list[list[str]]:
    if not isinstance(node, DictConfig):
        return [[]]
    return [[str(key), *rest] for key in node for rest in _leaf_paths(node._get_node(key))]
