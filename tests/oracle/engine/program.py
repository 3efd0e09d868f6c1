"""`python -m oracle.engine.program cpu|cuda:MAJOR.MINOR SECONDS`: cases on standard input, answers on
standard output, a line each; what the engine prints goes to standard error.

vLLM is imported once; every case is answered by a fork of that process, which is stopped after SECONDS. The
process is nice, keeps to two processors and ends with its standard input.
"""

from __future__ import annotations

import importlib
import os
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from dataclasses import replace
from typing import Any, Final

from oracle.engine.build import build, engine_config, words_of
from oracle.engine.case import Answer, Card, Case, answer_from, case_from, line_of
from oracle.engine.sizing import settings, sized

_NICE: Final = 10
_PROCESSORS: Final = 2
_MOST_BYTES: Final = 12 * 2**30
_ENVIRONMENT: Final = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "OMP_NUM_THREADS": "1",
}
_IMPORTED_ONCE: Final = (
    "vllm",
    "vllm.engine.arg_utils",
    "vllm.model_executor.models.registry",
    "vllm.model_executor.model_loader.utils",
    "vllm.model_executor.models.llama",
    "vllm.v1.worker.gpu.attn_utils",
    "vllm.v1.core.kv_cache_utils",
    "vllm.v1.core.single_type_kv_cache_manager",
    "vllm.v1.attention.backends.utils",
    "vllm.distributed.parallel_state",
    "torch.testing._internal.distributed.fake_pg",
)


def main() -> None:
    """Answer until standard input ends."""
    platform, limit_seconds = sys.argv[1], float(sys.argv[2])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    _keep_small()
    _prepare(platform)
    print(line_of(Answer(stage="ready", settings={"vllm": _version()})), file=answers, flush=True)
    for line in sys.stdin:
        print(line_of(_answered(line, limit_seconds)), file=answers, flush=True)


def _keep_small() -> None:
    os.nice(_NICE)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:_PROCESSORS])
    resource.setrlimit(resource.RLIMIT_DATA, (_MOST_BYTES, _MOST_BYTES))


def _prepare(platform: str) -> None:
    os.environ.update(_ENVIRONMENT)
    import torch

    torch.set_num_threads(1)
    if platform == "cpu":
        os.environ["VLLM_TARGET_DEVICE"] = "cpu"
    else:
        from oracle.engine.fake_cuda import after_import, install

        major, minor = platform.removeprefix("cuda:").split(".")
        install(Card(compute_capability=(int(major), int(minor)), name="", memory_bytes=0))
    for name in _IMPORTED_ONCE:
        importlib.import_module(name)
    if platform != "cpu":
        after_import()


def _version() -> str:
    import vllm

    return str(vllm.__version__)


def _answered(line: str, limit_seconds: float) -> Answer:
    """The answer of a fork, or that there was none."""
    started, scratch = time.monotonic(), tempfile.mkdtemp(prefix="oracle-case-")
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        os.setsid()
        tempfile.tempdir = scratch
        _tell(case_from(line), writer)
    os.close(writer)
    text = _read(reader, limit_seconds)
    _kill_group(child)
    os.waitpid(child, 0)
    shutil.rmtree(scratch, ignore_errors=True)
    seconds = round(time.monotonic() - started, 2)
    if text is None:
        return Answer(stage="process", refused=f"no answer within {limit_seconds:.0f} s", seconds=seconds)
    if not text:
        return Answer(stage="process", refused="the process ended without an answer", seconds=seconds)
    return replace(answer_from(text), seconds=seconds)


def _read(reader: int, limit_seconds: float) -> str | None:
    """All that the child writes until it closes its end; None where it takes too long."""
    parts: list[bytes] = []
    end = time.monotonic() + limit_seconds
    with os.fdopen(reader, "rb", buffering=0) as file:
        while True:
            ready, _, _ = select.select([file], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                return None
            part = file.read(65536)
            if not part:
                return b"".join(parts).decode()
            parts.append(part)


def _kill_group(child: int) -> None:
    try:
        os.killpg(child, signal.SIGKILL)
    except ProcessLookupError:
        os.kill(child, signal.SIGKILL)


def _tell(case: Case, writer: int) -> None:
    """Answer in the child, and end it."""
    try:
        text = line_of(_answer(case))
    except BaseException as error:
        traceback.print_exc()
        text = line_of(Answer(stage="process", refused=words_of(error)))
    sys.stderr.flush()
    with os.fdopen(writer, "w") as file:
        file.write(text)
    os._exit(0)


def _answer(case: Case) -> Answer:
    if case.card is not None:
        from oracle.engine.fake_cuda import Shown

        Shown.card = case.card
    known: dict[str, Any] = {"stage": "arguments"}
    try:
        config = engine_config(case)
        known["stage"] = "model"
        built = build(case, config)
        known |= _of_model(built, config)
        known |= sized(case, built)
        known["stage"] = "started"
    except Exception as error:
        traceback.print_exc()
        return Answer(refused=words_of(error), **known)
    return Answer(**known, settings=settings(config))


def _of_model(built: Any, config: Any) -> dict[str, Any]:
    return {
        "stage": "cache",
        "weight_bytes": max(stage.weight_bytes for stage in built.stages),
        "backends": tuple(backend.get_name() for backend in built.backends),
        "kv_dtype_served": built.kv_dtype_served,
        "block_tokens": config.cache_config.block_size,
    }


if __name__ == "__main__":
    main()
