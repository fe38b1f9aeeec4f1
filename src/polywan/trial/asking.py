"""What the daemon says before and during a trial, held against the configuration that is meant."""

from __future__ import annotations

from pathlib import Path

from polywan import presence
from polywan.api import calls
from polywan.api.requests import Nothing, OfPast
from polywan.api.trials import TrialState
from polywan.client import Client, senseless
from polywan.config import load_texts, paths_beside
from polywan.core.errors import PolywanError
from polywan.core.trial.texts import is_part, received
from polywan.core.words import printable
from polywan.trial.place import Place


def here(client: Client, file: Path) -> TrialState:
    """Return what the daemon says of trials, and demand that it is the one of this configuration and network namespace.

    Where root writes is never what the daemon says, whose user is another one.

    Raises:
        ControlError: it does not answer.
        PolywanError: it runs in another network namespace, or with another configuration.
    """
    state = client.ask(calls.TRIAL, Nothing())
    if state.namespace != presence.namespace():
        raise PolywanError("the daemon runs in another network namespace: run this command in that one (ip-netns(8))")
    meant = Path(state.file)
    # A link to the file has another directory beside it: another `conf.d`, and another record.
    if (meant.parent.resolve(), meant.name) != (file.parent.resolve(), file.name):
        raise PolywanError(f"the daemon's configuration is {state.file}, not {file}: name it by --config")
    return state


def in_force(client: Client, place: Place, number: int = 0) -> dict[str, str]:
    """Return the texts of a configuration of the history, 0 in force, and demand that they are one of this place.

    Raises:
        ControlError: the daemon does not have it.
        ConfigError: it is no good configuration.
        PolywanError: it names other files.
    """
    try:
        texts = received(client.ask(calls.PAST_TEXTS, OfPast(number=str(number))).files)
    except ValueError as error:
        raise senseless(error) from error
    if strange := [name for name in texts if not is_part(name, place.file.name)]:
        raise PolywanError(f"the daemon names a file that is no part of a configuration: {printable(strange[0])}")
    load_texts(paths_beside(place.file, texts))
    return texts
