"""A program: NVIDIA Triton (by PyTriton) with dynamic batching over the same TensorFlow function.

`python -m tests.bench.peers.triton_server FILE PORT K`, by the distribution's own Python: Triton's stub
links its libpython.
"""

from __future__ import annotations

import signal
import sys

import numpy as np
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

from tests.bench.peers.exact_graph import exact_top_k


def main(file: str, port: str, k: str) -> None:
    """Serve the model `items` until SIGTERM."""
    vectors = np.load(file, allow_pickle=False)
    find = exact_top_k(vectors, int(k))

    def infer(embedding: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return find(embedding)

    config = TritonConfig(
        http_address="127.0.0.1", http_port=int(port), allow_grpc=False, allow_metrics=False, log_verbose=0
    )
    with Triton(config=config) as triton:
        triton.bind(
            model_name="items",
            infer_func=batch(infer),
            inputs=[Tensor(name="embedding", dtype=np.float32, shape=(vectors.shape[1],))],
            outputs=[
                Tensor(name="rows", dtype=np.int32, shape=(int(k),)),
                Tensor(name="scores", dtype=np.float32, shape=(int(k),)),
            ],
            config=ModelConfig(max_batch_size=128, batcher=DynamicBatcher(max_queue_delay_microseconds=1000)),
        )
        triton.run()
        signal.sigwait({signal.SIGTERM, signal.SIGINT})


if __name__ == "__main__":
    main(*sys.argv[1:])
