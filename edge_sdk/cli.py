"""``edge-sdk``: the command line of a station.

Only argparse is imported here; a command's own imports wait until it runs, so that ``--help`` is
there at once.  Data goes to stdout, talk to stderr.  0: it worked; 1: it did not, and the last line
says why; 2: it was asked wrongly.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from edge_sdk.errors import EdgeError

__all__ = ["main", "parser"]

EXAMPLES = """\
examples:
  edge-sdk doctor station.yaml                             is everything there that the station needs?
  edge-sdk run station.yaml                                inspect until Ctrl-C or SIGTERM
  edge-sdk run station.yaml --frames 500 --json            inspect 500 frames, summary as JSON
  edge-sdk replay station.yaml pictures/ --out again.jsonl  judge a folder or a video again
  edge-sdk status station.yaml                             what the running station is doing
  edge-sdk activate station.yaml press-3-2.bundle --wait 30  bring in another bundle, no frame lost
  edge-sdk upload station.yaml                             send the outbox to the hub, for good

The station's settings stand in station.yaml; relative paths in it are relative to the file.
Exit code: 0 it worked, 1 it did not (the last line says why), 2 it was asked wrongly.
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


class _Version(argparse.Action):
    def __init__(self, **settings: Any) -> None:
        super().__init__(nargs=0, help="show the version and leave", **settings)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from edge_sdk import __version__

        print(f"edge-sdk {__version__}")
        parser.exit()


def _count(text: str) -> int:
    value = int(text) if text.isdigit() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no count; give a whole number from 1 up")
    return value


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is no time; give seconds above 0")
    return value


def parser() -> argparse.ArgumentParser:
    """The command line, as ``--help`` and the reference show it."""
    whole = _Parser(
        prog="edge-sdk",
        description="Run a visual inspection station and look after it.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    whole.add_argument("--version", action=_Version)
    commands = whole.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def command(name: str, what: str, example: str) -> argparse.ArgumentParser:
        made = commands.add_parser(
            name,
            help=what,
            description=what[0].upper() + what[1:] + ".",
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        made.add_argument("--json", action="store_true", help="one JSON object on stdout")
        made.add_argument(
            "--debug", action="store_true", help="tracebacks and developers' log lines on stderr"
        )
        return made

    run = command(
        "run", "inspect what the camera sees, until stopped", "edge-sdk run station.yaml --frames 500 --json"
    )
    run.add_argument("station", metavar="STATION.yaml", help="the station's settings")
    run.add_argument("--frames", type=_count, metavar="N", help="end after N frames came in")
    run.add_argument("--seconds", type=_seconds, metavar="S", help="end after S seconds")
    run.add_argument("--inspections", metavar="FILE", help="append a line of JSON for every frame")
    run.add_argument("--verdicts", action="store_true", help="a line on stderr for every frame")

    replay = command(
        "replay",
        "judge a folder of pictures or a video again, every frame, beside a running station",
        "edge-sdk replay station.yaml pictures/ --out again.jsonl",
    )
    replay.add_argument("station", metavar="STATION.yaml", help="the station's settings")
    replay.add_argument("pictures", metavar="FOLDER|VIDEO", help="what to judge")
    replay.add_argument("--out", metavar="FILE", help="write the inspections there instead of to stdout")

    status = command("status", "say what the running station is doing", "edge-sdk status station.yaml --json")
    status.add_argument("station", metavar="STATION.yaml", help="the station's settings")
    status.add_argument("--metrics", action="store_true", help="the figures in Prometheus' text format")

    doctor = command(
        "doctor", "check what a station needs, and say what is missing", "edge-sdk doctor station.yaml"
    )
    doctor.add_argument("station", metavar="STATION.yaml", nargs="?", help="also check this station")

    activate = command(
        "activate",
        "verify, install and prove a bundle, and let the station use it from the next frame on",
        "edge-sdk activate station.yaml press-3-2.bundle --wait 30",
    )
    activate.add_argument("station", metavar="STATION.yaml", help="the station's settings")
    activate.add_argument("bundle", metavar="BUNDLE", help="a .bundle file or a bundle's folder")
    activate.add_argument(
        "--wait", type=_seconds, metavar="S", help="wait until the running station uses it, at most S seconds"
    )

    upload = command(
        "upload", "send records from the outbox to the hub", "edge-sdk upload station.yaml --until-empty"
    )
    upload.add_argument("station", metavar="STATION.yaml", help="the station's settings")
    upload.add_argument("--until-empty", action="store_true", help="end when everything is sent")
    upload.add_argument(
        "--give-up-after", type=_seconds, metavar="S", help="fail when the hub was out of reach for S seconds"
    )
    return whole


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: The words after ``edge-sdk``; default: this process's.

    Returns:
        The exit code.
    """
    asked = parser().parse_args(argv)
    try:
        from edge_sdk import commands, logs

        # those that end by themselves tell their steps themselves
        quiet = asked.command not in ("run", "upload")
        logs.set_up(stream=sys.stderr, quiet=quiet, debug=asked.debug)
        work: Callable[[argparse.Namespace], int] = getattr(commands, asked.command)
        return work(asked)
    except BrokenPipeError:
        # whoever read our stdout has gone; leave quietly, also when Python flushes it at the end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return _failed("interrupted", code=130)
    except EdgeError as error:
        return _failed(str(error), code=error.exit_code, debug=asked.debug)
    except Exception as error:  # noqa: BLE001 - told in one line, in full with --debug
        advice = "" if asked.debug else "; --debug shows where, please report it"
        return _failed(f"unexpected {type(error).__name__}: {error}{advice}", code=1, debug=asked.debug)


def _failed(why: str, *, code: int, debug: bool = False) -> int:
    if debug:
        import traceback

        traceback.print_exc()
    print(f"edge-sdk: {' '.join(why.split())}", file=sys.stderr)
    return code
