"""Why the engine ended. The lines are what vLLM 0.32.0 wrote on CPU when started wrongly on purpose,
shortened; those of GPUs and older versions follow its source and published start-up logs.
"""
# ruff: noqa: E501  log lines stay in one piece

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tonnage_worker.exits import MESSAGE_LIMIT_BYTES, Exit, explain, render

CORE = "(EngineCore pid=57) ERROR 11-24 05:06:05 [core.py:1510] "
SECONDARY = "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore': 1}"
TOO_LONG = (
    "ValueError: To serve at least one request with the model's max seq len (2048), (0.04 GiB KV cache is needed, "
    "which is larger than the available KV cache memory (0.01 GiB). Based on the available memory, the estimated "
    "maximum model length is 384. Try increasing `gpu_memory_utilization` or decreasing `max_model_len`."
)
TOO_LONG_OLD = (
    "ValueError: To serve at least one request with the models's max seq len (32768), (4.0 GiB KV cache is needed, "
    "which is larger than the available KV cache memory (2.5 GiB)."
)
TOO_LONG_V0 = (
    "ValueError: The model's max seq len (16384) is larger than the maximum number of tokens that can be stored in "
    "KV cache (9136). Try increasing `gpu_memory_utilization` or decreasing `max_model_len` when initializing."
)
NO_MEMORY = (
    "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when "
    "initializing the engine."
)
CPU_MEMORY = (
    "RuntimeError: Worker failed with error 'Available memory on node 0 (15.04/17.21 GiB) on kv cache allocation is "
    "less than requested memory for kv (838.19 GiB). Decrease --kv-cache-memory-bytes, VLLM_CPU_KVCACHE_SPACE, or "
    "reduce CPU memory used by other processes.', please check the stack trace above for the root cause"
)
GPU_MEMORY = (
    "ValueError: Free memory on device cuda:0 (20.1/79.19 GiB) on startup is less than desired GPU memory "
    "utilization (0.92, 72.85 GiB). Decrease GPU memory utilization or reduce GPU memory used by other processes."
)
CUDA_OOM = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 150.00 MiB. GPU 0 has a total capacity of 23.6 GiB"
ARCHITECTURES = (
    "  Value error, Model architectures ['FooForCausalLM'] are not supported for now. Supported architectures: "
    "dict_keys(['AfmoeForCausalLM', 'ApertusForCausalLM'])"
)
MODEL_TYPE = (
    "  Value error, The checkpoint you are trying to load has model type `foo` but Transformers does not recognize "
    "this architecture. This could be because of an issue with the checkpoint."
)
CONTEXT = (
    "  Value error, User-specified max_model_len (999999) is greater than the derived max_model_len "
    "(max_position_embeddings=8192.0 or model_max_length=None in model's config.json)."
)
NO_MODEL = (
    "huggingface_hub.errors.HFValidationError: Repo id must be in the form 'repo_name' or 'namespace/repo_name': "
    "'/models/missing'. Use `repo_type` argument if needed."
)
NO_HUB = "OSError: We couldn't connect to 'http://127.0.0.1:9' to load the files, and couldn't find them in the cached files."
NO_HUB_FOR_WEIGHTS = (
    "huggingface_hub.errors.LocalEntryNotFoundError: Got: ConnectError: [Errno 111] Connection refused"
)
NO_DISK = "OSError: [Errno 28] No space left on device"
NO_WEIGHTS = "RuntimeError: Cannot find any model weights with `/models/smollm2`"
BROKEN_CONFIG = (
    "OSError: It looks like the config file at '/models/broken/config.json' is not a valid JSON file."
)
BAD_FLAG = "api_server.py: error: unrecognized arguments: --foo"
NO_MODULE = "/usr/bin/python3: No module named nosuchmodule"

CASES = [
    (1, [CORE + TOO_LONG, SECONDARY], "NoKvMemory", "one request of 2048 tokens: it needs 0.04 GiB, available are 0.01 GiB; the estimated maximum length is 384 tokens"),
    (1, [TOO_LONG_OLD], "NoKvMemory", "one request of 32768 tokens: it needs 4.0 GiB, available are 2.5 GiB"),
    (1, [TOO_LONG_V0], "NoKvMemory", "one request of 16384 tokens: the estimated maximum length is 9136 tokens"),
    (1, [CORE + NO_MEMORY, SECONDARY], "NoKvMemory", "No available memory for the cache blocks"),
    (1, [CPU_MEMORY, SECONDARY], "InsufficientMemory", "Available memory on node 0 (15.04/17.21 GiB) on kv cache allocation is less"),
    (1, [GPU_MEMORY], "InsufficientMemory", "Free memory on device cuda:0 (20.1/79.19 GiB)"),
    (1, [CORE + CUDA_OOM, SECONDARY], "OutOfMemory", "CUDA out of memory. Tried to allocate 150.00 MiB"),
    (1, [ARCHITECTURES], "UnknownArchitecture", "Model architectures ['FooForCausalLM'] are not supported for now"),
    (1, [MODEL_TYPE], "UnknownArchitecture", "has model type `foo` but Transformers does not recognize"),
    (1, [CONTEXT], "ContextTooLong", "max_model_len (999999) is greater than the derived max_model_len (max_position_embeddings=8192.0"),
    (1, [NO_MODEL], "ModelNotFound", "there is no model at /models/missing"),
    (1, [NO_HUB], "HubUnreachable", "We couldn't connect to 'http://127.0.0.1:9' to load the files"),
    (1, [CORE + NO_HUB_FOR_WEIGHTS, SECONDARY], "HubUnreachable", "ConnectError: [Errno 111] Connection refused"),
    (1, [NO_DISK], "NoDiskSpace", "No space left on device"),
    (1, [NO_WEIGHTS, SECONDARY], "ModelNotFound", "Cannot find any model weights with `/models/smollm2`"),
    (1, [BROKEN_CONFIG], "ModelUnreadable", "config file at '/models/broken/config.json' is not a valid JSON file"),
    (2, ["usage: api_server.py [-h]", BAD_FLAG], "InvalidArguments", "unrecognized arguments: --foo"),
    (1, ["OSError: [Errno 98] Address already in use"], "PortInUse", "Address already in use"),
    (1, [NO_MODULE], "EngineExited", "before it was healthy with exit code 1: /usr/bin/python3: No module named nosuchmodule"),
    (1, ["ValueError: the cause", "INFO cleaning up", SECONDARY], "EngineExited", "exit code 1: ValueError: the cause"),
    (1, [SECONDARY], "EngineExited", "Engine core initialization failed"),
    (1, [], "EngineExited", "it wrote nothing"),
    (-11, ["INFO all is well"], "EngineExited", "with SIGSEGV: "),
    (-9, ["INFO all is well"], "EngineKilled", "SIGKILL"),
    (0, ["INFO bye"], "EngineExited", "exit code 0"),
]  # fmt: skip


@pytest.mark.parametrize(("returncode", "tail", "reason", "words"), CASES)
def test_reason_and_message(returncode: int, tail: list[str], reason: str, words: str) -> None:
    exit_ = explain(returncode=returncode, tail=tail)
    assert (exit_.reason, words in exit_.message) == (reason, True), exit_


@pytest.mark.parametrize(("returncode", "code"), [(0, 1), (1, 1), (3, 3), (-9, 137), (-11, 139)])
def test_the_exit_code_is_the_engines_and_never_zero(returncode: int, code: int) -> None:
    assert explain(returncode=returncode, tail=[]).exit_code == code


def test_the_list_of_all_architectures_is_left_out() -> None:
    assert "AfmoeForCausalLM" not in explain(returncode=1, tail=[ARCHITECTURES]).message


def test_a_kill_for_memory_beats_what_the_log_says() -> None:
    exit_ = explain(
        returncode=1, tail=[CORE + "EngineDeadError: EngineCore encountered an issue"], oom_kills=1
    )
    assert exit_.reason == "OutOfMemory"
    assert "limit of the container" in exit_.message


def test_it_says_whether_the_engine_had_been_serving() -> None:
    assert "while serving" in explain(returncode=1, tail=[], was_healthy=True).message


@given(st.text(max_size=9000), st.integers(min_value=0, max_value=255))
def test_the_termination_message_fits_and_reads_back(message: str, code: int) -> None:
    text = render(Exit(reason="EngineExited", message=message, exit_code=code))
    assert "\n" not in text
    assert len(text.encode(errors="replace")) <= MESSAGE_LIMIT_BYTES
    read = json.loads(text)
    assert (read["reason"], read["exitCode"]) == ("EngineExited", code)
    whole = " ".join(message.split())
    assert read["message"] == whole or whole.startswith(read["message"].removesuffix("…"))


def test_a_short_message_is_not_cut() -> None:
    assert json.loads(render(Exit(reason="A", message="b" * 3000, exit_code=1)))["message"] == "b" * 3000
