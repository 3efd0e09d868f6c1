"""The table of docs/reliability.md: its rows, what a run found for each, and how it is written."""

from __future__ import annotations

import datetime
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from harness.paths import REPOSITORY

PAGE = REPOSITORY / "docs" / "reliability.md"
COMMAND = "make reliability"
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"
HEADER = "| injected | count | result |\n|---|---|---|"
ROWS = (
    "stop at every call of start",
    "stop at every call of create",
    "stop at every call of update",
    "stop at every call of scale",
    "stop at every call of create, then delete",
    "SIGKILL of the process",
    "events dropped",
    "no event of LLMDeployments told",
    "events duplicated",
    "events reordered",
    "stale lists",
    "409 Conflict",
    "410 Gone",
    "422 for good",
    "429 with Retry-After",
    "500",
    "writes that timed out after they were done",
    "lease lost",
    "two operators at once",
    "a watch that went silent",
    "connections reset",
    "429 with Retry-After on the wire",
    "API server restarted",
)


@dataclass(frozen=True)
class Found:
    """What was injected how often, and what came of it."""

    injected: int
    result: str


class Report:
    """What a run found, row by row."""

    def __init__(self) -> None:
        self.found: dict[str, Found] = {}

    def row(self, title: str, *, injected: int, result: str) -> None:
        """Record a row; a fault that was never injected has shown nothing."""
        assert title in ROWS, title
        assert injected > 0, f"{title}: nothing was injected"
        self.found[title] = Found(injected, result)
        print(f"{title}: {injected}; {result}", flush=True)

    def keep(self, file: Path) -> None:
        """Add the rows of this run to those of the files that were run before it."""
        known = json.loads(file.read_text() or "{}") if file.exists() else {}
        known |= {title: [one.injected, one.result] for title, one in self.found.items()}
        file.write_text(json.dumps(known))

    @classmethod
    def kept(cls, file: Path) -> Report:
        """The rows of all runs."""
        report = cls()
        for title, (injected, result) in json.loads(file.read_text()).items():
            report.row(title, injected=injected, result=result)
        return report

    def write(self, page: Path = PAGE) -> None:
        """Put the table into the page, below the command and the date. Every row must have been run."""
        missing = [title for title in ROWS if title not in self.found]
        assert not missing, f"rows without a run: {missing}"
        text = page.read_text()
        head, rest = text[: text.index(BEGIN)], text[text.index(END) :]
        today = datetime.datetime.now(datetime.UTC).date().isoformat()
        rows = [f"| {title} | {one.injected} | {one.result} |" for title, one in self._ordered()]
        table = "\n".join([f"`{COMMAND}`, {today}:", "", HEADER, *rows])
        page.write_text(f"{head}{BEGIN}\n{table}\n{rest}")

    def _ordered(self) -> list[tuple[str, Found]]:
        return [(title, self.found[title]) for title in ROWS]


def rows_of(page: Path = PAGE) -> list[tuple[str, int, str]]:
    """The rows of the committed table."""
    text = page.read_text()
    table = text[text.index(BEGIN) : text.index(END)]
    found = re.findall(r"^\| (?!injected)([^|]+) \| (\d+) \| ([^|]+) \|$", table, flags=re.MULTILINE)
    return [(title, int(count), result) for title, count, result in found]


if __name__ == "__main__":
    Report.kept(Path(sys.argv[1])).write()
