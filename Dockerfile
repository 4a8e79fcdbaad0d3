# The image of every pod: Ray's own of the locked version, our CUDA lock on top, the code last.
#
#     docker build -t registry.example.com/zephyr-ray:0.1.0-ray2.60.0 .
#
# Nothing is resolved here: the lock is complete, with hashes. `make lock-check` tries these steps without installing. A
# change of the code rebuilds the last two layers, some MB.
FROM rayproject/ray:2.60.0-py311-gpu

# The image's own user, uid 1000; the pods demand that it is not root.
USER ray
WORKDIR /home/ray/zephyr_ray

COPY --chown=ray:users requirements/cuda.lock requirements/uv.* requirements/packages.sh requirements/
RUN PIP_NO_CACHE_DIR=1 UV_NO_CACHE=1 requirements/packages.sh python cuda

# Jobs and Serve's controller import `zephyr_ray` from here, on every node.
ENV PYTHONPATH=/home/ray/zephyr_ray
COPY --chown=ray:users . .
RUN pip install --no-cache-dir --no-deps --no-build-isolation -e .
