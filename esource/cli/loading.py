"""Objects of the application, by name."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

from esource.cli.errors import wrong_usage


def loaded(app: str) -> Any:
    """What ``module:object`` names, or the module itself.

    Raises:
        Refusal: there is none.
    """
    name, _, attribute = app.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")  # as `python -m` does: the console script looks only beside itself
    try:
        module = import_module(name)
        return getattr(module, attribute) if attribute else module
    except (ImportError, AttributeError, ValueError) as error:
        raise wrong_usage(f"{app!r} cannot be loaded: {error}. Write it as module:object.") from error
