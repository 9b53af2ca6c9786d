# Isaac Sim with this project in Kit's own Python. Not built or run so far: docs/deploy.md.
#   docker build -f deploy/isaac-sim.Dockerfile -t franka-pick-place:0.1.0-isaac-sim-4.5.0 .
# For 5.x and 6.x, whose user is not root, add for example
#   --build-arg ISAAC_SIM=6.0.1 --build-arg CONSTRAINTS=6 --build-arg RUN_AS=1234
# To accept NVIDIA's licence: docker run -e ACCEPT_EULA=Y.
ARG ISAAC_SIM=4.5.0
FROM nvcr.io/nvidia/isaac-sim:${ISAAC_SIM}
ARG CONSTRAINTS=4.5
ARG RUN_AS=0
USER 0

# python.sh keeps a shell in front of Python, and a container's first process ignores SIGTERM
# unless it handles it, so the collection would not receive it. With exec, Python is that process.
ENV PYTHONEXE="exec /isaac-sim/kit/python/bin/python3" \
    PYTHONUNBUFFERED=1

WORKDIR /opt/franka-pick-place
COPY deploy/isaac-sim-requirements.txt deploy/isaac-sim-${CONSTRAINTS}-constraints.txt deploy/
RUN /isaac-sim/python.sh -m pip install --no-cache-dir \
    -r deploy/isaac-sim-requirements.txt -c "deploy/isaac-sim-${CONSTRAINTS}-constraints.txt"

# --no-deps: setup.cfg also requires MuJoCo, which must not be installed in Kit.
COPY setup.cfg pyproject.toml README.md LICENSE collect.py ./
COPY pp_env pp_env
COPY experts experts
COPY pp_recorder pp_recorder
COPY pp_collect pp_collect
COPY pp_bridge pp_bridge
RUN /isaac-sim/python.sh -m pip install --no-cache-dir --no-deps . \
    && /isaac-sim/python.sh collect.py --help

# The user of the base image, to whom its caches and extensions belong: root (0) in 4.5, 1234 later.
USER ${RUN_AS}
ENTRYPOINT ["/isaac-sim/python.sh", "collect.py"]
CMD ["--help"]
