# fastnas with PyTorch, for one GPU or none:
#   docker build -t fastnas .
#   docker run --rm -v "$PWD/runs:/runs" fastnas search --data digits --out /runs/digits
# On a GPU add `--gpus all`, and build with --build-arg TORCH=https://download.pytorch.org/whl/cu130 --build-arg EXTRAS=[cuda,triton].
FROM python:3.12-slim AS build
RUN apt-get update && apt-get install --yes --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
COPY . /fastnas
RUN pip wheel --no-deps --wheel-dir /wheel /fastnas

FROM python:3.12-slim
ARG TORCH=https://download.pytorch.org/whl/cpu
ARG EXTRAS=
RUN --mount=from=build,source=/wheel,target=/wheel \
    pip install --no-cache-dir torch --index-url "$TORCH" && \
    pip install --no-cache-dir "$(ls /wheel/*.whl)$EXTRAS"
RUN useradd --create-home fastnas && mkdir /runs && chown fastnas /runs
USER fastnas
WORKDIR /runs
ENTRYPOINT ["fastnas"]
