"""A program: LitServe with dynamic batching over the same TensorFlow function.

`python -m tests.bench.peers.litserve_server FILE PORT K`
"""

# LitServe reads annotations as objects: no `from __future__ import annotations`.
import sys
from collections.abc import Sequence
from typing import Any

import litserve
import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request

from tests.bench.peers.exact_graph import exact_top_k


class CosineApi(litserve.LitAPI):  # type: ignore[misc]  # LitServe is not installed where types are checked
    """`POST /predict` with `{"embedding": [...]}`."""

    file: str
    k: int

    def setup(self, device: str) -> None:
        """Load the matrix."""
        del device
        self._find = exact_top_k(np.load(self.file, allow_pickle=False), self.k)

    def decode_request(self, request: Request) -> NDArray[np.float32]:
        """One query; what comes is the parsed body, whatever the annotation that asks for it says."""
        return np.asarray(request["embedding"], dtype=np.float32)

    def batch(self, inputs: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Queries [B, d]."""
        return np.stack(inputs)

    def predict(self, queries: NDArray[np.float32]) -> list[tuple[list[int], list[float]]]:
        """Answers."""
        rows, scores = self._find(queries)
        return list(zip(rows.tolist(), scores.tolist(), strict=True))

    def unbatch(self, output: list[tuple[list[int], list[float]]]) -> list[tuple[list[int], list[float]]]:
        """They are apart already."""
        return output

    def encode_response(self, output: tuple[list[int], list[float]]) -> dict[str, Any]:
        """In kosine's shape."""
        return {"result": list(zip(*output, strict=True))}


def main(file: str, port: str, k: str) -> None:
    """Serve until SIGTERM: one worker, since more would share the same two cores."""
    api = CosineApi(max_batch_size=128, batch_timeout=0.001)
    api.file, api.k = file, int(k)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, timeout=30)
    server.run(
        host="127.0.0.1", port=int(port), num_api_servers=1, generate_client_file=False, log_level="error"
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
