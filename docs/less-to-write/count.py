"""How much each program beside this file says: lines, names and values, and how often an event is named.

Run `python docs/less-to-write/count.py`. Imports, comments and blank lines are not counted; names and values are
identifiers (keywords left out), numbers and texts.
"""

import keyword
import re
from pathlib import Path

HERE = Path(__file__).parent
PROGRAMS = {
    "esource, short": "esource_short.py",
    "esource, as in the tutorial": "esource_long.py",
    "eventsource-py 0.5": "eventsource_py.py",
    "eventsourcing 9": "eventsourcing_9.py",
    "Emmett (TypeScript)": "emmett.ts",
}
TYPESCRIPT_KEYWORDS = set(
    re.findall(r"\w+", "async await case const else export if import new of return switch throw type typeof")
)
SAID = re.compile(r"""'[^'\n]*'|"[^"\n]*"|`[^`\n]*`|\d[\d._]*|[A-Za-z_$][\w$]*""")
IMPORTS = re.compile(r"^(?:from|import)\b[^\n(]*(?:\([^)]*\)|\{[^}]*\}[^\n]*)?\n", re.MULTILINE)


def count(file: str) -> tuple[int, int, int]:
    """Lines, names and values, and mentions of the two events' names."""
    text = IMPORTS.sub("", (HERE / file).read_text())
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith(("#", "//"))]
    reserved = (
        TYPESCRIPT_KEYWORDS if file.endswith(".ts") else set(keyword.kwlist) - {"None", "True", "False"}
    )
    said = [word for line in lines for word in SAID.findall(line) if word not in reserved]
    events = sum(bool(re.search(r"\b(Order)?(Placed|Shipped)\b", word)) for word in said)
    return len(lines), len(said), events


def table() -> str:
    rows = ["| | lines | names and values | events named |", "|---|---|---|---|"]
    rows += [
        f"| {name} | {' | '.join(str(number) for number in count(file))} |" for name, file in PROGRAMS.items()
    ]
    return "\n".join(rows)


if __name__ == "__main__":
    print(table())
