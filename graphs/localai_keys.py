"""Keys of LocalAI's model files that mean nothing here.

Source: core/config/model_config.go of https://github.com/mudler/LocalAI
"""

LOCALAI_KEYS_WITHOUT_EFFECT = frozenset(
    {"agent", "backend_options", "batch", "cache_type_k", "cache_type_v", "cfg_scale", "context_size", "cuda",
     "cutstrings", "debug", "description", "diffusers", "disable_log_stats", "download_files", "draft_model",
     "dtype", "embeddings", "enforce_eager", "extract_regex", "f16", "feature_flags", "flash_attention",
     "function", "gpu_layers", "gpu_memory_utilization", "grammar", "grpc", "icon", "known_input_modalities",
     "last_checked", "limit_mm_per_prompt", "load_format", "lora_adapter", "lora_adapters", "lora_base",
     "lora_scale", "lora_scales", "low_vram", "main_gpu", "max_model_len", "mcp", "mirostat", "mirostat_eta",
     "mirostat_tau", "mmap", "mmlock", "mmproj", "n_draft", "ngqa", "no_kv_offloading", "no_mulmatq", "numa",
     "overrides", "pinned", "prompt_cache_all", "prompt_cache_path", "prompt_cache_ro", "quantization",
     "reasoning", "reranking", "rms_norm_eps", "roles", "rope_scaling", "seed", "size", "step", "stopwords",
     "swap_space", "system_prompt", "tags", "template", "tensor_parallel_size", "tensor_split", "threads",
     "trimspace", "trimsuffix", "trust_remote_code", "type", "urls", "usage", "yarn_attn_factor",
     "yarn_beta_fast", "yarn_beta_slow", "yarn_ext_factor"}
)  # fmt: skip
"""They tell other backends what to do; here they are accepted and ignored."""
