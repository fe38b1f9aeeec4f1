"""The command `polywan VERB`: each verb is a module, imported when it is called."""

from __future__ import annotations

import importlib
import os
import sys
from io import TextIOWrapper

import click

from polywan import __version__
from polywan.cli.suggesting import Suggesting

VERBS = {
    "lab": "try polywan without hardware: providers, failures and real traffic in private namespaces",
    "init": "find the uplinks and write the configuration",
    "check": "check the configuration",
    "doctor": "find what is wrong with this machine, and how to fix it",
    "plan": "show what would change in the kernel",
    "run": "run the daemon in the foreground",
    "reload": "put a changed configuration in force",
    "try": "put a configuration in force that is rolled back unless confirmed",
    "confirm": "keep the configuration on trial",
    "rollback": "end the trial, or go back to a configuration of the history",
    "history": "list the configurations that were in force",
    "down": "remove everything and leave the kernel as found",
    "status": "show state, share and reason of every uplink",
    "top": "show every uplink, its traffic and connections on one screen, second by second",
    "uplink": "disable, drain, enable or test an uplink",
    "metrics": "print metrics for Prometheus, or write them into a file",
    "quota": "show what is used of each quota, and enter what the provider says",
    "events": "show what happened to every uplink, when and why",
    "report": "show a month of the uplinks: availability, outages, volume",
    "flows": "list connections and their uplinks",
    "affinity": "list or forget clients that keep their uplink",
    "why": "explain which uplink a connection would take",
    "exec": "run a program over one uplink",
    "show": "show the rules, routes and configuration in force",
    "web": "serve the page",
    "bundle": "write one file for a bug report, with secrets and public addresses masked",
    "version": "print the version",
}
"""The verbs in the order in which `polywan --help` lists them."""

MODULES = {**{verb: verb for verb in VERBS}, "try": "trial", "supervise": "supervise"}
"""The module of each verb; `supervise` is not listed, since no user calls it."""

EXIT = """\b
Exit codes: 0 ok, 1 failure, 2 usage, 3 configuration invalid, 4 daemon
unreachable, 5 permission, 6 degraded, 7 every uplink down, 8 rolled back,
9 drift found."""


class _Lazy(Suggesting):
    """Imports a verb's module only when the verb is used, so that `status` starts fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        if cmd_name not in MODULES:
            return None
        if cmd_name == "version":
            return _version
        module = importlib.import_module(f"polywan.cli.{MODULES[cmd_name]}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))


@click.command(name="version")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def _version(as_json: bool) -> None:
    """Print the version.

    \b
    Examples:
      polywan version
      polywan version --json
    """
    import json

    click.echo(json.dumps({"version": __version__}) if as_json else f"polywan {__version__}")


@click.group(cls=_Lazy, epilog=EXIT, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="polywan")
def group() -> None:
    """Use every Internet link of this box at once.

    \b
    Examples:
      polywan lab                    see it work, without hardware or root
      polywan init                   find the uplinks, write /etc/polywan/polywan.toml
      polywan check                  check /etc/polywan/polywan.toml
      polywan status                 what every uplink does right now
    """


def main() -> None:
    """Run the command and turn every error into a message and an exit code."""
    from polywan.core.errors import PolywanError

    output = sys.stdout
    if isinstance(output, TextIOWrapper) and output.errors == "strict":
        # A terminal that has no arrow shows a question mark.
        output.reconfigure(errors="replace")
    try:
        code = group.main(prog_name="polywan", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        sys.exit(130)
    except PolywanError as error:
        click.echo(str(error), err=True)
        sys.exit(exit_code(error))
    except BrokenPipeError:
        drop_output()
        sys.exit(0)
    except SystemExit:
        # When nobody reads on, as in `polywan events | head`, click ends like this and changes the output.
        if sys.stdout is output:
            raise
        drop_output()
        sys.exit(0)
    except Exception as error:
        # An isolated Python, as in the Debian package, has not looked at it.
        if sys.flags.dev_mode or os.environ.get("PYTHONDEVMODE"):
            raise
        click.echo(_unexpected(error), err=True)
        drop_output()
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)


def _unexpected(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        what = error.filename if error.filename is not None else "cannot write the output"
        return f"{what}: {error.strerror.lower()}"
    text = f"{type(error).__name__}: {error}".rstrip(": ")
    return f"internal error in polywan ({text}); PYTHONDEVMODE=1 polywan … shows where"


def drop_output() -> None:
    """Let nobody try to write what is left: Python would at its end, and complain."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())


def exit_code(error: Exception) -> int:
    """Exit code for an error of polywan's own."""
    import errno

    from polywan.core.errors import CapacityError, ConfigError, ControlError, KernelError, NotPermitted, UnreadableError

    match error:
        case UnreadableError():
            return 5
        case ConfigError() | CapacityError():
            return 3
        case ControlError(status=0):
            return 4
        case ControlError(status=400):
            return 2
        case ControlError(status=403) | NotPermitted():
            return 5
        case KernelError(errno=errno.EPERM | errno.EACCES):
            return 5
        case _:
            return 1
