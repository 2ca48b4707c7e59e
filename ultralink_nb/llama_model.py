"""A GGUF model with llama.cpp in this process, through the opt-in extra `llama` (package xllamacpp).

    pip install 'ultralink-nb[llama]'
    chat_model = "llama:models/Qwen3-8B-Q4_K_M.gguf"

xllamacpp brings llama.cpp's own server; it listens on loopback only, on a port that is free, with a key made up for the
session, and is asked like any other endpoint. It stops with the process, or when the model is no longer used.
"""

import os
import secrets
from pathlib import Path

from ultralink_nb.completions import ChatError, ChatRequest, Completion
from ultralink_nb.endpoint import EndpointModel
from ultralink_nb.local_files import fingerprint

CONTEXT = 8192  # tokens of a prompt and its answer; memory for `PARALLEL` of them is taken at the start
PARALLEL = 4  # answers written at once: more would only share the same cores


class LlamaModel:
    """A GGUF file in llama.cpp's server. Its name holds the file's name and fingerprint, not the folder.

    concurrency: answers written at once, `PARALLEL` at most. Raises `ChatError` where the extra is not installed or the file is
    missing or no GGUF model.
    """

    def __init__(self, path: str | Path, concurrency: int = 8, timeout: float = 120.0, max_retries: int = 5):
        path = Path(path).expanduser()
        if not path.is_file():
            raise ChatError(f"chat_model names {path}, which is no file: llama: wants the path of a .gguf file", "no_model")
        with path.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise ChatError(f"{path} is not a GGUF file", "no_model")
        try:
            import xllamacpp
        except ImportError:
            raise ChatError("llama: needs the package xllamacpp: pip install 'ultralink-nb[llama]'", "no_extra") from None
        self.name = f"llama:{path.name}@{fingerprint([path])}"
        parallel, key = max(1, min(concurrency, PARALLEL)), secrets.token_urlsafe(16)
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        params = xllamacpp.CommonParams()
        params.model.path, params.n_parallel, params.n_ctx = str(path), parallel, parallel * CONTEXT
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = cores
        params.hostnames, params.port, params.api_keys, params.verbosity = ["127.0.0.1"], 0, [key], 0
        try:
            self._server = xllamacpp.Server(params)
        except Exception as error:
            raise ChatError(f"llama.cpp cannot load {path} ({' '.join(str(error).split())[:200]})", "no_model") from None
        self._endpoint = EndpointModel(
            self.name, f"{self._server.listening_address}/v1", key=key, concurrency=parallel, timeout=timeout,
            max_retries=max_retries,
        )

    async def complete(self, request: ChatRequest) -> Completion:
        return await self._endpoint.complete(request)
