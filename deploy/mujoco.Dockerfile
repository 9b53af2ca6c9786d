# MuJoCo on the CPU; images through EGL: Mesa's, or NVIDIA's if the runtime provides it.
#   docker build -f deploy/mujoco.Dockerfile -t franka-pick-place:0.1.0-mujoco .
FROM python:3.12-slim-bookworm

# The packages of deploy/bootstrap.py. A Debian release has one version of each.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends libegl1 libegl-mesa0 libgl1-mesa-dri libopengl0 \
    && rm -rf /var/lib/apt/lists/* \
    && mkdir -p /usr/share/glvnd/egl_vendor.d

# EGL finds NVIDIA's driver only with this file; it still finds Mesa, too.
RUN printf '{"file_format_version": "1.0.0", "ICD": {"library_path": "libEGL_nvidia.so.0"}}\n' \
    > /usr/share/glvnd/egl_vendor.d/10_nvidia.json

WORKDIR /opt/franka-pick-place
COPY setup.cfg pyproject.toml README.md LICENSE collect.py ./
COPY pp_env pp_env
COPY experts experts
COPY pp_recorder pp_recorder
COPY pp_collect pp_collect
COPY pp_bridge pp_bridge
# For deploy/kubernetes/ray-job.yaml: --build-arg EXTRAS=hub,bridge,ray and the tag 0.1.0-mujoco-ray
ARG EXTRAS=hub,bridge
# The ranges are in setup.cfg. Any user can write to the working directory, for docker run --user.
# hadolint ignore=DL3013
RUN pip install --no-cache-dir ".[${EXTRAS}]" \
    && mkdir -m 1777 /sim-service

WORKDIR /sim-service
ENV HOME=/tmp \
    MUJOCO_GL=egl \
    NVIDIA_DRIVER_CAPABILITIES=all \
    PYTHONUNBUFFERED=1
USER 1000:1000
ENTRYPOINT ["pp-collect"]
CMD ["--help"]
