"""Keeps the catalogue of models that `tonnage fit` knows by name: tonnage/catalogue/models.jsonl.

    python -m harness.model_catalogue add NAME CONFIG.json --repository OWNER/REPO --path PATH --commit SHA
    python -m harness.model_catalogue check

`add` cuts what no size follows from (tokens, dropout, generation settings) and refuses a cut that would
change what is read.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from tonnage.catalogue import Entry, entries
from tonnage.models import ConfigError, ModelShape, parse_config

FILE = Path(__file__).parents[2] / "operator" / "src" / "tonnage" / "catalogue" / "models.jsonl"
MAX_FILE_BYTES = 400_000
_NO_SIZE = frozenset(
    {
        "_attn_implementation",
        "_attn_implementation_autoset",
        "_from_model_config",
        "_name_or_path",
        "add_cross_attention",
        "attention_dropout",
        "attention_probs_dropout_prob",
        "attn_pdrop",
        "auto_map",
        "aux_loss_alpha",
        "bad_words_ids",
        "begin_suppress_tokens",
        "chunk_size_feed_forward",
        "classifier_dropout",
        "diversity_penalty",
        "do_sample",
        "dropout",
        "early_stopping",
        "emb_pdrop",
        "embd_pdrop",
        "encoder_no_repeat_ngram_size",
        "exponential_decay_length_penalty",
        "finetuning_task",
        "forced_bos_token_id",
        "forced_eos_token_id",
        "gradient_checkpointing",
        "hidden_dropout",
        "id2label",
        "ignore_index",
        "init_config",
        "init_device",
        "initializer_factor",
        "initializer_range",
        "label2id",
        "layer_norm_eps",
        "layer_norm_epsilon",
        "layernorm_epsilon",
        "length_penalty",
        "long_factor",
        "max_length",
        "mean_resizing",
        "min_length",
        "no_repeat_ngram_size",
        "norm_eps",
        "norm_epsilon",
        "norm_topk_prob",
        "num_beam_groups",
        "num_beams",
        "num_return_sequences",
        "output_attentions",
        "output_hidden_states",
        "output_router_logits",
        "output_scores",
        "prefix",
        "problem_type",
        "pruned_heads",
        "remove_invalid_values",
        "repetition_penalty",
        "resid_pdrop",
        "return_dict",
        "return_dict_in_generate",
        "rms_norm_eps",
        "router_aux_loss_coef",
        "seq_aux",
        "short_factor",
        "summary_type",
        "suppress_tokens",
        "task_specific_params",
        "temperature",
        "tf_legacy_loss",
        "tie_encoder_decoder",
        "time_step_limit",
        "tokenizer_class",
        "top_k",
        "top_p",
        "torchscript",
        "transformers.js_config",
        "transformers_version",
        "typical_p",
        "use_bfloat16",
        "use_cache",
        "verbose",
    }
)
_TOKEN_SUFFIXES = ("_token_id", "_token_index", "_token_ids")


def cut(value: Any) -> Any:
    """The value without fields that no size follows from."""
    if isinstance(value, dict):
        return {
            key: cut(each)
            for key, each in value.items()
            if key not in _NO_SIZE and not key.endswith(_TOKEN_SUFFIXES)
        }
    return [cut(each) for each in value] if isinstance(value, list) else value


def read(config: dict[str, Any], quantization: dict[str, Any] | None) -> ModelShape | tuple[str, str]:
    """What is made of a config: its shape, or the reason and message of the refusal."""
    try:
        return parse_config(config, hf_quant_config=quantization)
    except ConfigError as error:
        return error.reason, error.message


def line_of(entry: Entry) -> str:
    """The line of the file; `name` comes first, by which it is found."""
    fields: dict[str, Any] = {
        "name": entry.name,
        "repository": entry.repository,
        "path": entry.path,
        "commit": entry.commit,
        "config": entry.config,
    }
    if entry.hf_quant_config is not None:
        fields["hf_quant_config"] = entry.hf_quant_config
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=True)


def make_entry(
    name: str, *, source: tuple[str, str, str], config: dict[str, Any], quantization: dict[str, Any] | None
) -> Entry:
    """An entry with its config cut; `source` is (repository, path, commit). Raises `ValueError`.

    ModelOpt's own file is kept only where config.json says nothing of quantization, as the engine reads it.
    """
    if "quantization_config" in config:
        quantization = None
    shorter = cut(config)
    if read(config, quantization) != read(shorter, cut(quantization)):
        raise ValueError(f"{name}: cutting changes what is read from it")
    repository, path, commit = source
    return Entry(
        name=name,
        repository=repository,
        path=path,
        commit=commit,
        config=shorter,
        hf_quant_config=cut(quantization),
    )


def write(kept: dict[str, Entry]) -> None:
    """Write the file, sorted by name without regard to case. Raises `ValueError`."""
    text = "".join(line_of(kept[name]) + "\n" for name in sorted(kept, key=str.lower))
    if len(text) > MAX_FILE_BYTES:
        raise ValueError(f"the catalogue would have {len(text)} bytes, more than {MAX_FILE_BYTES}")
    FILE.write_text(text)


def check() -> int:
    """Print what is planned and what is not; fail where a line is not as `add` writes it."""
    lines = FILE.read_text().splitlines()
    wrong = [entry.name for entry, line in zip(entries(), lines, strict=True) if line_of(entry) != line]
    shapes = {entry.name: read(entry.config, entry.hf_quant_config) for entry in entries()}
    for name, shape in shapes.items():
        if isinstance(shape, tuple):
            sys.stdout.write(f"{name}: not planned: {shape[0]}: {shape[1][:100]}\n")
    planned = sum(isinstance(shape, ModelShape) for shape in shapes.values())
    sys.stdout.write(f"{len(shapes)} models, {planned} planned, {FILE.stat().st_size} bytes\n")
    for name in wrong:
        sys.stdout.write(f"{name}: the line is not as this tool writes it\n")
    return 1 if wrong else 0


def main(arguments: list[str] | None = None) -> int:
    """Add an entry or check the file."""
    parser = argparse.ArgumentParser(prog="harness.model_catalogue", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    adding = commands.add_parser("add")
    adding.add_argument("name")
    adding.add_argument("config", type=Path)
    adding.add_argument("--quantization", type=Path, help="hf_quant_config.json")
    for option in ("--repository", "--path", "--commit"):
        adding.add_argument(option, required=True)
    commands.add_parser("check")
    options = parser.parse_args(arguments)
    if options.command == "check":
        return check()
    kept = {entry.name: entry for entry in entries()} if FILE.exists() else {}
    kept[options.name] = make_entry(
        options.name,
        source=(options.repository, options.path, options.commit),
        config=json.loads(options.config.read_text()),
        quantization=json.loads(options.quantization.read_text()) if options.quantization else None,
    )
    write(kept)
    return 0


if __name__ == "__main__":
    sys.exit(main())
