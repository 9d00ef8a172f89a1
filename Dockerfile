# An image for the nodes of a cluster: Ray, this project and its extras "cluster" and "postgres", at the versions of constraints.txt.
#   docker build -t registry/mtl-study:0.1.0 .
#   docker build -t registry/mtl-study:0.1.0-cpu --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cpu .
# Credentials are no part of it: they come from the environment of the containers (docs/cluster.md).
FROM python:3.11-slim-bookworm

# wget and procps: KubeRay's probes. rsync and openssh-client: `ray up`, whose head reaches its workers by them.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends bash git openssh-client procps rsync tini wget \
    && rm -rf /var/lib/apt/lists/*

RUN useradd --create-home --uid 1000 study
WORKDIR /opt/mtl-study

# The dependencies before the code: they change less often. PyPI's torch brings CUDA.
ARG TORCH_INDEX=https://pypi.org/simple
COPY constraints.txt ./
RUN pip install --no-cache-dir --compile --constraint constraints.txt --index-url "${TORCH_INDEX}" \
        --extra-index-url https://pypi.org/simple torch torchvision

COPY pyproject.toml README.md LICENSE ./
COPY trainables trainables
COPY search_spaces search_spaces
COPY study study
COPY analysis analysis
# Compiled: without compiled files every Ray worker starts about twice as slowly.
RUN pip install --no-cache-dir --compile --constraint constraints.txt '.[cluster,postgres]' \
    && pip check

# As study.cluster.shape has it for every launcher; here for containers that are started by hand.
ENV RAY_AUTH_MODE=token \
    RAY_USAGE_STATS_ENABLED=0 \
    RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO=1 \
    MLFLOW_DISABLE_TELEMETRY=true \
    HF_HUB_OFFLINE=1 \
    PYTHONUNBUFFERED=1

USER study
WORKDIR /home/study
ENTRYPOINT ["tini", "--"]
CMD ["mtl-study", "--help"]
