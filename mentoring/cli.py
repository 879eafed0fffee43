"""``python -m mentoring serve | export``.

Data on stdout, talk on stderr.  0 it worked; 1 it did not, and why is the last line; 2 it was asked
wrongly.
"""

from __future__ import annotations

import ipaddress
import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from edge_sdk.errors import EdgeError

__all__ = ["app", "main"]

app = typer.Typer(
    name="mentoring",
    help="The hub: takes items in, asks operators, hands the answers to training.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Data = Annotated[Path, typer.Option(help="The hub's folder; made where there is none.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def serve(
    data: Data,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 is all of them.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes any.")] = 8080,
    token_file: Annotated[
        Path | None,
        typer.Option(help="Token that callers need; made where there is none. Default: DATA/token."),
    ] = None,
    max_item_mib: Annotated[int, typer.Option(min=1, max=1024, help="Largest item taken, MiB.")] = 32,
    json_: Json = False,
) -> None:
    """Serve the hub and the operator's page until stopped.

    \b
    Example:
      python -m mentoring serve --data ./hub --port 8080

    Prints one line once it listens: the page's address.  On this machine alone (127.0.0.1) the address
    carries the token behind the #, which browsers never send; elsewhere the page asks for the token.
    Give stations the same token file as hub.token_file.
    """
    with _told():
        from mentoring.access import token_from
        from mentoring.api import application
        from mentoring.hub import Hub
        from mentoring.serving import listen
        from mentoring.serving import serve as serve_on

        logging.basicConfig(
            stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(name)s: %(message)s"
        )
        logging.getLogger("alembic").setLevel(logging.WARNING)
        logging.getLogger("uvicorn").setLevel(logging.WARNING)
        heard = listen(host, port)
        with heard, Hub(data, max_item_bytes=max_item_mib * 1024 * 1024) as hub:
            tokens = token_file or data / "token"
            token = token_from(tokens)
            bound = heard.getsockname()[1]
            shown = f"[{host}]" if ":" in host else host
            url = f"http://{shown}:{bound}"
            here = _is_loopback(host)
            page = f"{url}/#token={token}" if here else f"{url}/"

            def ready() -> None:
                facts = {"url": url, "page": page, "port": bound, "pid": os.getpid()}
                paths = {"token_file": str(tokens), "data": str(data)}
                print(json.dumps({**facts, **paths}) if json_ else page, flush=True)
                if not here:
                    _say(
                        f"the page asks for the token in {tokens}; put a proxy with TLS in front of this hub"
                    )
                if hub.adopted:
                    _say(f"{hub.adopted} items had no row yet and were read back from their files")

            serve_on(application(hub, token=token), heard, ready=ready)


@app.command()
def export(
    data: Data,
    out: Annotated[Path, typer.Option(help="Folder to write; an older export there is replaced.")],
    mark: Annotated[
        int | None, typer.Option(min=0, help="Number of the last answer to cover. Default: the newest.")
    ] = None,
    settle_s: Annotated[
        float, typer.Option(min=0, max=86400, help="Cover no answer younger than this, seconds.")
    ] = 10.0,
    include_recent: Annotated[
        bool, typer.Option("--include-recent", help="The same as --settle-s 0: nobody is answering any more.")
    ] = False,
    json_: Json = False,
) -> None:
    """Write the answers up to a mark as the folder that training reads.

    \b
    Example:
      python -m mentoring export --data ./hub --out ./mentored

    Works beside a hub that serves.  The same mark gives the same bytes.
    """
    with _told():
        from mentoring.export import write_folder
        from mentoring.hub import exports_of

        found = exports_of(data).at(mark, settle_s=0.0 if include_recent else settle_s)
        write_folder(found, out)
        counts = found.summary.counts
        if json_:
            facts = {"out": str(out), "mark": found.summary.mark, "counts": counts}
            print(json.dumps({**facts, "files": len(found.members)}))
        else:
            said = ", ".join(
                f"{counts[name]} {name}" for name in ("confirm", "infirm", "unsure", "withdrawn")
            )
            print(f"{out}: mark {found.summary.mark}, {counts['records']} records; {said}")


def main() -> NoReturn:
    """Run the command line; every way out has its exit code."""
    app()
    raise AssertionError("typer exits by itself")


@contextmanager
def _told() -> Iterator[None]:
    """Turn what is raised on purpose, and what the disk refuses, into one sentence and an exit code."""
    try:
        yield
    except EdgeError as error:
        _say(str(error))
        raise typer.Exit(error.exit_code) from error
    except OSError as error:
        named = f"{error.filename}: " if error.filename else ""
        _say(f"{named}{error.strerror or error}; is there room, and may it be written?")
        raise typer.Exit(1) from error


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)
