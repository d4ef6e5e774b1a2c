"""Commands about data sets.

python -m ssd_dist.data check ROOT
python -m ssd_dist.data show ROOT
python -m ssd_dist.data convert IN OUT --to voc|coco|yolo
python -m ssd_dist.data priors ROOT
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import tyro

from ssd_dist.data.check import CheckArguments, check
from ssd_dist.data.convert import ConvertArguments, convert
from ssd_dist.data.priors import PriorsArguments, priors
from ssd_dist.data.show import ShowArguments

if TYPE_CHECKING:
    from ssd_dist.data.screen import Screen


def _show(arguments: ShowArguments, screen: Screen) -> None:
    from ssd_dist.report.data_page import show  # with all that draws

    show(arguments, screen)


_PROGRAM = "python -m ssd_dist.data"
_COMMANDS: dict[type, tuple[str, Callable[[Any, Screen], None]]] = {
    CheckArguments: ("check", check),
    ConvertArguments: ("convert", convert),
    PriorsArguments: ("priors", priors),
    ShowArguments: ("show", _show),
}
"""Arguments of a command, a dataclass whose docstring is its help → its name, and what it does. A
command is a file of its own."""


def run(argv: Sequence[str] | None = None) -> int:
    """The exit status; `argv` is `sys.argv` if None."""
    by_name: dict[str, Callable[..., Any]] = {name: kind for kind, (name, _) in _COMMANDS.items()}
    arguments = tyro.extras.subcommand_cli_from_dict(
        by_name,
        args=argv,
        prog=_PROGRAM,
        description="Commands about data sets.",
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    from ssd_dist.terminal import run_job

    _, command = _COMMANDS[type(arguments)]
    return run_job(lambda terminal: command(arguments, terminal))


if __name__ == "__main__":
    sys.exit(run())
