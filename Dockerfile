# docker build -t tokswap .
# docker run --rm -v "$PWD:/data" tokswap transplant --model ./my-model --tokenizer ./their-model
ARG PYTHON=3.12

FROM python:${PYTHON}-slim AS wheel
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY tokswap ./tokswap
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:${PYTHON}-slim
# PyTorch's own index is the only place of wheels without CUDA. For a GPU, name another part of it:
# docker build --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130 -t tokswap .
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG EXTRAS=gguf,lang,parquet,report
COPY constraints.txt /tmp/constraints.txt
# Without dependencies: they come from the usual index with the next step, as constraints.txt says.
RUN pip install --no-cache-dir --no-deps --constraint /tmp/constraints.txt --index-url "${TORCH_INDEX}" torch
COPY --from=wheel /wheels /tmp/wheels
RUN pip install --no-cache-dir --constraint /tmp/constraints.txt "$(echo /tmp/wheels/*.whl)[${EXTRAS}]"

# Home is a folder that everyone may write to, so that `--user "$(id -u):$(id -g)"` works too; caches go there.
RUN mkdir -m 1777 /cache && useradd --uid 1000 --home-dir /cache --no-create-home tokswap && install -d -o tokswap /data
ENV HOME=/cache
USER 1000:1000
WORKDIR /data
ENTRYPOINT ["tokswap"]
CMD ["--help"]
