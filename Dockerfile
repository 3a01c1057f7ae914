# An image that serves a bundle on CPUs:
#   docker build -t terraformer .
#   docker run --rm -p 8000:8000 -e TERRAFORMER_API_KEY=... -v /path/to/bundle:/bundle:ro terraformer --bundle=/bundle
# Without --bundle it serves the model that ships.

FROM python:3.11-slim-bookworm AS build
RUN apt-get update && apt-get install --yes --no-install-recommends g++ make && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY pyproject.toml hatch_build.py CMakeLists.txt README.md LICENSE ./
COPY gin_configs gin_configs
COPY terraformer terraformer
# The kernels choose their instructions when they run, so an image built on one machine is fast on another.
RUN python -m venv /opt/terraformer && /opt/terraformer/bin/pip install --no-cache-dir '.[serve]'

FROM python:3.11-slim-bookworm
COPY --from=build /opt/terraformer /opt/terraformer
RUN useradd --create-home --uid 10001 terraformer
USER terraformer
ENV PATH=/opt/terraformer/bin:$PATH JAX_PLATFORMS=cpu TERRAFORMER_CACHE=/home/terraformer/cache PYTHONUNBUFFERED=1
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=120s --retries=3 \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/readyz', timeout=4)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["terraformer", "serve", "--host=0.0.0.0", "--port=8000"]
