# nnunet-lopsided with nnU-Net and PyTorch for NVIDIA GPUs; works on a CPU too. See docs/how-to/container.md.
#   docker build -t nnunet-lopsided .
ARG CUDA=13.0.2
FROM nvidia/cuda:${CUDA}-base-ubuntu24.04

SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# The versions of Debian's packages are those of the base image's release.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 python3-venv build-essential python3-dev \
    && rm -rf /var/lib/apt/lists/*

RUN python3 -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH

# What it needs first: a change of our code leaves this layer, the largest by far, as it is.
WORKDIR /opt/nnunet-lopsided
COPY constraints.txt pyproject.toml ./
RUN pip install --no-cache-dir --constraint constraints.txt torch nnunetv2 segmentation-models-pytorch

COPY README.md LICENSE nnunet_lopsided.pth ./
COPY nnunet_lopsided ./nnunet_lopsided
RUN pip install --no-cache-dir --constraint constraints.txt ".[study,dicom,completion]"

# PyTorch compiles with gcc; caches and Matplotlib's settings go where any user may write.
ENV nnUNet_raw=/data/nnUNet_raw \
    nnUNet_preprocessed=/data/nnUNet_preprocessed \
    nnUNet_results=/data/nnUNet_results \
    MPLCONFIGDIR=/tmp/matplotlib \
    TORCHINDUCTOR_CACHE_DIR=/tmp/torchinductor \
    XDG_CACHE_HOME=/tmp/cache

RUN useradd --create-home --uid 10001 lopsided && mkdir -p /data && chown lopsided /data
USER 10001
WORKDIR /data
CMD ["lopsided-doctor"]
