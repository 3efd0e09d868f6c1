"""Read a model's facts where the model is: config.json and safetensors headers, never a weight.

The program of the inspection Job: `python -m tonnage.cluster.inspection --path DIR` or `--hub ORG/NAME
--revision REVISION`, the latter with HF_ENDPOINT and HF_TOKEN from the environment. The result is written to
the pod's termination message (see tonnage.cluster.inspected).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from tonnage.cluster.checkpoint import read_profile
from tonnage.cluster.directory import inspect_directory
from tonnage.cluster.inspected import Failure, encode
from tonnage.models import ConfigError, ResolvedModel

TERMINATION_LOG = Path("/dev/termination-log")


def inspect_hub(
    name: str, *, revision: str, environment: Mapping[str, str], assume_full_attention: bool = False
) -> ResolvedModel:
    """The model that a revision on the hub means now; ConfigError as above."""
    from tonnage.cluster.hub import DEFAULT_ENDPOINT, Access, HubModel  # noqa: PLC0415 - slow, and not for pvc://

    access = Access(
        endpoint=environment.get("HF_ENDPOINT") or DEFAULT_ENDPOINT,
        token=environment.get("HF_TOKEN", "").strip(),
    )
    files = HubModel(name, revision=revision, access=access)
    profile = read_profile(files, assume_full_attention=assume_full_attention)
    return ResolvedModel(profile=profile, revision=files.revision, download_bytes=files.download_bytes)


def inspect(options: argparse.Namespace, *, environment: Mapping[str, str]) -> ResolvedModel | Failure:
    """The result as the options ask for it; every failure that a model or its place can cause is a value."""
    assume = options.assume_full_attention
    try:
        if options.hub:
            return inspect_hub(
                options.hub,
                revision=options.revision,
                environment=environment,
                assume_full_attention=assume,
            )
        return inspect_directory(options.path, assume_full_attention=assume)
    except ConfigError as error:
        return Failure(reason=error.reason, message=error.message)
    except OSError as error:
        text = f"{error.filename}: {error.strerror}; files and directories must be readable for every user"
        return Failure(reason="ModelUnreadable", message=text)


def main(arguments: list[str] | None = None) -> int:
    """Inspect, and write the result to the termination log (stdout where there is none)."""
    parser = argparse.ArgumentParser(prog="tonnage.cluster.inspection", description=__doc__)
    place = parser.add_mutually_exclusive_group(required=True)
    place.add_argument("--path", type=Path, help="directory of the model")
    place.add_argument("--hub", metavar="ORG/NAME", help="model on the hub")
    parser.add_argument("--revision", default="main", help="branch, tag or commit on the hub")
    parser.add_argument("--assume-full-attention", action="store_true")
    options = parser.parse_args(arguments)
    message = encode(inspect(options, environment=os.environ))
    sys.stdout.write(message + "\n")
    if os.access(TERMINATION_LOG, os.W_OK):
        TERMINATION_LOG.write_text(message)
    return 0


if __name__ == "__main__":
    sys.exit(main())
