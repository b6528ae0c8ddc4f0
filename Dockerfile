# Three images: `service` (CPU), `service-gpu`, `operator`. Built by BuildKit and by buildah 1.28 alike: no heredocs,
# no COPY --link. docs/install.md has the commands, and what is left out and why.
ARG BASE=docker.io/library/python:3.11-slim-bookworm@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b

# hadolint ignore=DL3006
FROM ${BASE} AS base
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 HOME=/tmp

# kosine itself, as a wheel. The secret is somebody's own pip settings, where there are any.
FROM base AS wheel
RUN python -m venv /opt/build
WORKDIR /src
COPY requirements/build.txt /src/requirements.txt
RUN --mount=type=secret,id=pipconf,target=/etc/pip.conf --mount=type=cache,target=/var/cache/pip \
    /opt/build/bin/pip --cache-dir /var/cache/pip install --no-compile --require-hashes -r /src/requirements.txt
COPY pyproject.toml README.md LICENSE ./
COPY service service
COPY operator operator
RUN /opt/build/bin/pip wheel --no-cache-dir --no-index --no-deps --no-build-isolation --wheel-dir /wheels .

# Only what a start imports is compiled: the root is read-only later, and the rest would double the size. The client's
# modules of one class per group of the API are half of it; the operator makes its requests itself.
FROM base AS operator-venv
RUN python -m venv /opt/venv
COPY requirements/operator.txt /src/requirements.txt
RUN --mount=type=secret,id=pipconf,target=/etc/pip.conf --mount=type=cache,target=/var/cache/pip \
    pip --cache-dir /var/cache/pip install --no-compile --require-hashes -r /src/requirements.txt \
    && rm -rf /opt/venv/lib/python3.11/site-packages/kubernetes/client/api \
              /opt/venv/lib/python3.11/site-packages/kubernetes/aio/client/api
COPY --from=wheel /wheels /wheels
RUN pip install --no-cache-dir --no-compile --no-index --no-deps /wheels/*.whl && pip check \
    && python -c 'import kosine_operator.cli, kosine_operator.app' \
    && pip uninstall --yes pip setuptools

# TensorFlow's headers are for compilers, libclang for whoever generates bindings.
FROM base AS service-venv
RUN python -m venv /opt/venv
COPY requirements/service-cpu.txt /src/requirements.txt
RUN --mount=type=secret,id=pipconf,target=/etc/pip.conf --mount=type=cache,target=/var/cache/pip \
    pip --cache-dir /var/cache/pip install --no-compile --require-hashes -r /src/requirements.txt \
    && rm -rf /opt/venv/lib/python3.11/site-packages/tensorflow/include \
              /opt/venv/lib/python3.11/site-packages/clang
COPY --from=wheel /wheels /wheels
RUN pip install --no-cache-dir --no-compile --no-index --no-deps /wheels/*.whl && pip check \
    && python -c 'import kosine.app, kosine.cli.serve, s3fs, gcsfs' \
    && pip uninstall --yes pip setuptools

# Of CUDA only what TensorFlow opens for matrix products and top-k: cuDNN is opened but never called, so its front door
# is enough; nccl, curand, nvrtc, nvcc and cupti are not even opened.
FROM base AS service-gpu-venv
RUN python -m venv /opt/venv
COPY requirements/service-gpu.txt /src/requirements.txt
RUN --mount=type=secret,id=pipconf,target=/etc/pip.conf --mount=type=cache,target=/var/cache/pip \
    pip --cache-dir /var/cache/pip install --no-compile --require-hashes -r /src/requirements.txt \
    && rm -rf /opt/venv/lib/python3.11/site-packages/tensorflow/include \
              /opt/venv/lib/python3.11/site-packages/clang \
              /opt/venv/lib/python3.11/site-packages/nvidia/nccl \
              /opt/venv/lib/python3.11/site-packages/nvidia/curand \
              /opt/venv/lib/python3.11/site-packages/nvidia/cuda_nvrtc \
              /opt/venv/lib/python3.11/site-packages/nvidia/cuda_nvcc \
              /opt/venv/lib/python3.11/site-packages/nvidia/cuda_cupti \
    && find /opt/venv/lib/python3.11/site-packages/nvidia -name include -prune -exec rm -rf {} + \
    && find /opt/venv/lib/python3.11/site-packages/nvidia/cudnn -name 'libcudnn_*' -delete
COPY --from=wheel /wheels /wheels
RUN pip install --no-cache-dir --no-compile --no-index --no-deps /wheels/*.whl && pip check \
    && python -c 'import kosine.app, kosine.cli.serve, s3fs, gcsfs' \
    && pip uninstall --yes pip setuptools

FROM base AS operator
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title=kosine-operator \
      org.opencontainers.image.description="CosineIndex resources become Deployments that serve them" \
      org.opencontainers.image.licenses=Apache-2.0 \
      org.opencontainers.image.version=${VERSION} \
      org.opencontainers.image.revision=${REVISION}
COPY --from=operator-venv /opt/venv /opt/venv
USER 65532:65532
EXPOSE 8081
ENTRYPOINT ["kosine-operator"]
CMD ["run"]

FROM base AS service-gpu
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title=kosine \
      org.opencontainers.image.description="Exact cosine top-k over HTTP from an .npy file, on a GPU" \
      org.opencontainers.image.licenses=Apache-2.0 \
      org.opencontainers.image.version=${VERSION} \
      org.opencontainers.image.revision=${REVISION}
COPY --from=service-gpu-venv /opt/venv /opt/venv
# TensorFlow 2.21 finds all of CUDA's wheels by itself but cuSOLVER, and without it registers no GPU.
ENV LD_LIBRARY_PATH=/opt/venv/lib/python3.11/site-packages/nvidia/cusolver/lib CUDA_CACHE_PATH=/tmp/cuda
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["kosine"]
CMD ["serve", "--config", "/etc/kosine/kosine.yaml"]

FROM base AS service
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title=kosine \
      org.opencontainers.image.description="Exact cosine top-k over HTTP from an .npy file" \
      org.opencontainers.image.licenses=Apache-2.0 \
      org.opencontainers.image.version=${VERSION} \
      org.opencontainers.image.revision=${REVISION}
COPY --from=service-venv /opt/venv /opt/venv
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["kosine"]
CMD ["serve", "--config", "/etc/kosine/kosine.yaml"]
