"""The command line: ``esource`` and ``python -m esource``. A thin layer over the library's own functions.

One file a group of commands; `esource.cli.app` puts them together. Shared by all of them: `opening` (which
database, and for what), `output` (text or JSON), `saying` (standard output itself), `errors` (sentence and exit
code), `progress`, `asking`, `loading`. Nothing here is imported by ``import esource``, and Typer and Rich only by
the command itself.
"""

import sys


def main() -> None:
    """Run the command line with the arguments of the process; ends the process with its exit code."""
    try:
        import rich  # noqa: F401
        import typer  # noqa: F401
    except ImportError:
        print("Error: the esource command needs an extra. Run: pip install 'esource[cli]'", file=sys.stderr)  # noqa: T201
        sys.exit(2)
    from esource.cli.app import app

    app(prog_name="esource")
