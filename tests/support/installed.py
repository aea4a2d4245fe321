"""What an installation with few extras has, in an environment that has them all."""

from importlib.metadata import distributions, requires

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def needed(name: str, extras: frozenset[str]) -> set[str]:
    """The distributions that pip would install for a package with these extras."""
    found = {canonicalize_name(name)}
    for line in requires(name) or ():
        requirement = Requirement(line)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in extras or {""}):
            if canonicalize_name(requirement.name) != canonicalize_name(name):
                found |= needed(requirement.name, frozenset({"", *requirement.extras}))
    return found


def hiding_all_but(*extras: str) -> str:
    """Code after which only what esource needs, with these extras, can be imported."""
    installed = needed("esource", frozenset({"", *extras}))
    kept: set[str] = set()
    others: set[str] = set()
    for distribution in distributions():
        # Not packages_distributions(): Python 3.10's knows only those that list their packages themselves.
        files = {path.parts[0] for path in distribution.files or () if path.suffix in (".py", ".so")}
        modules = {name.partition(".")[0] for name in files}
        (kept if canonicalize_name(distribution.name) in installed else others).update(modules)
    hidden = sorted(name for name in others - kept if name.isidentifier())
    assert "pytest" in hidden
    return f"import sys; sys.modules.update(dict.fromkeys({hidden!r}))"
