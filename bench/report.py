"""Ratios out of rates, and the table that people read."""

from __future__ import annotations

from statistics import median
from typing import Any

from bench import targets
from bench.contenders import Entry, entry
from bench.runner import NOTHING

_OURS = ("esource", "raw", "raw, no hop")


def add_ratios(document: dict[str, Any]) -> None:
    """Put medians, ratios and their targets into the results.

    A ratio is taken within each round, where both had the same minute; its median is judged. It says how many times as
    fast esource is, driven as the contender is; of the other ways of driving it, how many times as fast as with a thread.
    """
    for result in document["results"]:
        if "sizes" in result:
            sizes = [size for size in result["sizes"].values() if size["rates"]]
            for size in sizes:
                size["median"] = median(size["rates"])
            if len(sizes) > 1:
                target = targets.GROWTH if result["workload"] == "growth" else targets.STORED
                result["growth"] = _judged(sizes[-1]["rates"], sizes[0]["rates"], target)
            continue
        contenders = result["contenders"]
        for found in contenders.values():
            if found.get("rates"):
                found["median"] = median(found["rates"])
        ours = contenders.get("esource", {})
        if ours.get("memory_mib"):
            limit = targets.MEMORY_MIB[result["database"]]
            most = max(ours["memory_mib"])
            result["memory"] = {"mib": most, "limit": limit, "met": most <= limit}
        result["ratios"] = {}
        for name in contenders:
            which = entry(name)
            pair = (name, which.beside) if which.family == "esource" else (_mode(which, contenders), name)
            one, other = (_rates(contenders.get(each or "", {})) for each in pair)
            if one and other:
                target = targets.ratio(result["database"], result["workload"], which.family)
                result["ratios"][name] = {"of": pair[0], **_judged(one, other, target)}


def _mode(which: Entry, contenders: dict[str, Any]) -> str | None:
    """The way of driving esource that a contender is compared with: in memory there is one way for the event loop."""
    return which.beside if which.beside in contenders or which.beside == "esource.sync" else "esource"


def _rates(found: dict[str, Any]) -> list[float]:
    return [] if found.get("failed") else found.get("rates", [])


def _judged(ours: list[float], theirs: list[float], target: float | None) -> dict[str, Any]:
    ratios = [mine / other for mine, other in zip(ours, theirs, strict=False)]
    middle = median(ratios)
    judged: dict[str, Any] = {
        "median": round(middle, 3),
        "min": round(min(ratios), 3),
        "max": round(max(ratios), 3),
    }
    if target is not None:
        judged["target"] = target
        judged["met"] = middle >= target
    return judged


def problems(document: dict[str, Any]) -> list[str]:
    """What must not happen to esource or the raw drivers: a failure, or events that are not there."""
    found = []
    for result in document["results"]:
        where = f"{result['database']}, {result['title']}"
        for name, seat in (result.get("contenders") or result.get("sizes") or {}).items():
            if "contenders" in result and entry(name).family not in _OURS:
                continue
            if seat.get("failed") and seat["failed"] != NOTHING:
                found.append(f"{where}: {name} failed: {seat['failed']}")
            elif seat.get("stored") is not None and seat["stored"] != seat["written"]:
                found.append(f"{where}: {name} stored {seat['stored']} of {seat['written']} events")
    return found


def table(document: dict[str, Any]) -> str:
    """Everything as text."""
    lines = [_machine(document), ""]
    for kind, settings in document["settings"].items():
        for name, found in settings.items():
            said = {**found.get("durability", {}), **found.get("versions", {})}
            text = ", ".join(f"{key}={value}" for key, value in said.items())
            lines.append(f"{kind:14} {name:28} {text or found.get('failed', '')}")
    lines += [f"{name}: not installed ({why})" for name, why in document["absent"].items()]
    for kind in document["databases"]:
        lines += ["", f"== {kind}: {document['databases'][kind]} =="]
        for result in document["results"]:
            if result["database"] == kind:
                lines += _lines(result)
    lines += ["", _summary(document)]
    return "\n".join(lines)


def _machine(document: dict[str, Any]) -> str:
    machine = document["machine"]
    databases = ", ".join(sorted(set(document["databases"].values())))
    return (
        f"{machine['cpus']} CPUs, Python {machine['python']}, {databases}, {machine['system']}; "
        f"profile {document['profile']}, {document['rounds']} rounds, {document.get('seconds', 0)} s"
    )


def _lines(result: dict[str, Any]) -> list[str]:
    lines = ["", f"{result['title']} ({result['workload']}, {result['unit']})"]
    for name, found in (result.get("contenders") or result.get("sizes") or {}).items():
        label = f"{int(name):,} events" if "sizes" in result else name
        if found.get("failed"):
            lines.append(f"  {label:28} -- {found['failed'][:100]}")
            continue
        line = f"  {label:28} {found['median']:>10,.0f}"
        ratio = result.get("ratios", {}).get(name)
        if ratio:
            line += "   " + _ratio_text(ratio)
            if ratio["of"] not in ("esource", name):
                line += f"   {ratio['of']} beside it"
        if found.get("memory_mib"):
            line += f"   memory +{max(found['memory_mib']):.1f} MiB"
        if found.get("stored") is not None and found["stored"] != found["written"]:
            line += f"   STORED {found['stored']} OF {found['written']} ACKNOWLEDGED EVENTS"
        lines.append(line)
    if "memory" in result:
        memory = result["memory"]
        verdict = "met" if memory["met"] else "MISSED"
        lines.append(f"  memory growth at most {memory['limit']} MiB: {memory['mib']:.1f} MiB, {verdict}")
    if "growth" in result:
        lines.append(f"  largest / smallest           {'':>10}   {_ratio_text(result['growth'])}")
    return lines


def _ratio_text(ratio: dict[str, Any]) -> str:
    text = f"x {ratio['median']:5.2f}  ({ratio['min']:.2f} - {ratio['max']:.2f})"
    if "target" in ratio:
        text += f"  target {ratio['target']:g}: {'met' if ratio['met'] else 'MISSED'}"
    return text


def _summary(document: dict[str, Any]) -> str:
    judged: list[dict[str, Any]] = []
    for result in document["results"]:
        judged += [ratio for ratio in result.get("ratios", {}).values() if "met" in ratio]
        judged += [result[name] for name in ("memory", "growth") if name in result]
    met = sum(one["met"] for one in judged)
    return f"{met} of {len(judged)} targets met"
