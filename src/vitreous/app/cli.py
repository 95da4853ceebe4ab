"""The command line: one command a job, derived from its parameters, and the commands in `app/commands`.

Exit codes: 0 done, 1 our fault, 2 the input's fault (one line), 3 done but for items that are named (failed.star),
130/143 stopped by a signal. Help imports no job.
"""

from __future__ import annotations

import ast
import importlib
import logging
import sys
import tempfile
import traceback
from functools import cache
from pathlib import Path

import click

from vitreous import __version__
from vitreous.core.errors import LOST, InputError
from vitreous.job import catalogue


class Suite(click.Group):
    """Commands by name, imported only when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Workflows first, then jobs in the order of the road."""
        return [*commands(), *catalogue()]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command, or make it from its job; None where there is no such thing."""
        name = cmd_name.replace("_", "-")
        if name in commands():
            module = importlib.import_module(f"vitreous.app.commands.{name.replace('-', '_')}")
            command: click.Command = module.command
            return command
        if name in catalogue():
            from vitreous.app.job_command import make_command

            return make_command(catalogue()[name])
        return None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """`vitreous simulate movies` is `vitreous simulate-movies`."""
        if len(args) > 1 and f"{args[0]}-{args[1]}" in catalogue():
            args = [f"{args[0]}-{args[1]}", *args[2:]]
        if "--ranks" in " ".join(args):
            from vitreous.app.early_ranks import start_early

            start_early(args)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Two blocks: workflows and jobs."""
        with formatter.section("Workflows and tools"):
            formatter.write_dl(list(commands().items()))
        with formatter.section("Jobs (vitreous JOB --help)"):
            formatter.write_dl([(entry.name, entry.help) for entry in catalogue().values()] or [("none", "")])


@cache
def commands() -> dict[str, str]:
    """Commands of `app/commands` and the first line of their modules' docstrings, without importing them."""
    found = {}
    for path in sorted((Path(__file__).parent / "commands").glob("[!_]*.py")):
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        found[path.stem.replace("_", "-")] = docstring.partition("\n")[0]
    return found


@click.command(cls=Suite, context_settings={"help_option_names": ["--help", "-h"], "max_content_width": 110})
@click.version_option(__version__, prog_name="vitreous")
@click.option("--quiet", is_flag=True, help="say only what went wrong")
def suite(quiet: bool) -> None:
    """Cryo-EM image processing: movies in, maps out."""
    start_logging(logging.WARNING if quiet else logging.INFO)


class _LiveStderr(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to whatever stderr is now: a progress bar puts its own there while it runs."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        self.stream = sys.stderr
        super().emit(record)


class _ForTheConsole(logging.Filter):
    """Leaves out what is only for the log file, and does not name the same device for every job of a road."""

    def __init__(self) -> None:
        super().__init__()
        self.device = ""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to show a record."""
        if getattr(record, "file_only", False):
            return False
        if record.name == "vitreous.runtime.device":
            known, self.device = self.device, record.getMessage()
            return known != self.device
        return True


def start_logging(level: int) -> None:
    """Our own messages to stderr; other libraries' only when they warn."""
    root = logging.getLogger()
    for handler in [one for one in root.handlers if isinstance(one, _LiveStderr)]:
        root.removeHandler(handler)
    console = _LiveStderr()
    console.setFormatter(logging.Formatter("%(message)s"))
    console.setLevel(level)
    console.addFilter(_ForTheConsole())
    root.addHandler(console)
    root.setLevel(logging.WARNING)
    logging.getLogger("vitreous").setLevel(logging.INFO)


def _say(message: str) -> None:
    """One line, whatever the message holds."""
    click.echo("error: " + " ".join(message.split()), err=True)


def run(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    from vitreous.pipeline.stop import JobFailed, Stopped, stop_on_signals
    from vitreous.runtime.launch import adopt_srun

    adopt_srun()
    try:
        with stop_on_signals():
            code = suite.main(args=arguments, prog_name="vitreous", standalone_mode=False)
    except InputError as error:
        _say(str(error))
        return 2
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return 0
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        command = context.command_path if context is not None else "vitreous"
        _say(f"{command}: {error.format_message()} ({command} --help lists what there is)")
        return 2
    except Stopped as error:
        _say(str(error))
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        _say("stopped by SIGINT")
        return 130
    except JobFailed as error:
        _say(str(error))
        return LOST if error.may_go_on else 1
    except BrokenPipeError:
        return 0
    except Exception as error:
        with tempfile.NamedTemporaryFile("w", prefix="vitreous_", suffix=".log", delete=False) as file:
            file.write(traceback.format_exc())
        _say(f"{type(error).__name__}: {error} (our fault; traceback in {file.name})")
        return 1
    return code if isinstance(code, int) else 0


def main() -> None:
    """Entry point of the `vitreous` program."""
    from vitreous.runtime.launch import is_rank, leave

    code = run()
    if is_rank():
        leave(code)
    sys.exit(code)
