"""Log lines as JSON, one object a line, for whoever collects them."""

from __future__ import annotations

import datetime
import json
import logging

EXTRAS = ("object", "reason", "identity")


class JsonFormatter(logging.Formatter):
    """Time, severity, logger and message; what the line is about, and the traceback, where there are."""

    def format(self, record: logging.LogRecord) -> str:
        """One line of JSON."""
        time = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        line = {
            "timestamp": time.isoformat(timespec="milliseconds"),
            "severity": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **{name: getattr(record, name) for name in EXTRAS if hasattr(record, name)},
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def log_as_json(level: str) -> None:
    """Send the process's log to standard error in JSON, from this level on."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
