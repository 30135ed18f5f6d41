# The system's own Python, a virtual environment without pip, and nothing else.

FROM debian:trixie-slim AS build
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends binutils python3 python3-venv
WORKDIR /src
# otel: with what `tracing:` needs. See docs/tracing.md.
ARG REQUIREMENTS=runtime
COPY pyproject.toml README.md LICENSE ./
COPY requirements ./requirements
COPY tools ./tools
COPY sidecar ./sidecar
# Two environments: `tools` has pip and makes the wheel; what is shipped has no pip. Nothing is installed whose hash does
# not stand in requirements/, and the bill of materials fails if anything else is there.
# Debug symbols go (of uvloop alone 14 MB). Bytecode is marked as unchecked, so that it stays valid whatever times a
# builder gives to files.
RUN python3 -m venv /tools \
 && python3 -m venv --without-pip /opt/sidecar \
 && /tools/bin/pip install --no-cache-dir --only-binary :all: --require-hashes -r requirements/build.txt \
 && /tools/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheel . \
 && /tools/bin/pip --python /opt/sidecar/bin/python install --no-cache-dir --no-compile \
      --only-binary :all: --require-hashes -r "requirements/$REQUIREMENTS.txt" \
 && /tools/bin/pip --python /opt/sidecar/bin/python install --no-cache-dir --no-compile --no-deps --no-index /wheel/*.whl \
 && find /opt/sidecar/lib -name '*.so' -exec strip --strip-unneeded {} + \
 && python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/sidecar/lib \
 && mkdir /opt/sidecar/share \
 && /opt/sidecar/bin/python tools/sbom.py --only "requirements/$REQUIREMENTS.txt" >/opt/sidecar/share/sbom.cdx.json \
 && find /opt/sidecar/bin -type f ! -name sidecar -delete \
 && /opt/sidecar/bin/sidecar --version

FROM debian:trixie-slim
# ca-certificates: for receivers behind https.
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends ca-certificates python3 \
 && python3 -m compileall -q -f -j 0 --invalidation-mode unchecked-hash -x '/(test|idlelib|lib2to3)/' /usr/lib/python3.13 \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/*-old /var/log/*
COPY --from=build /opt/sidecar /opt/sidecar
RUN dpkg-query -W -f '${Package} ${Version}\n' >/opt/sidecar/share/debian-packages.txt

# Bytecode was compiled above; at run time nothing is written, so a read-only root file system will do.
ENV SIDECAR_CONFIG=/etc/sidecar/config.yaml \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 65532:65532
WORKDIR /
# Deliveries, and the admin listener: probes and metrics.
EXPOSE 8080 9090
# SIGTERM drains: see `drain` in the configuration, and give the container at least that long to stop.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 \
    CMD ["/opt/sidecar/bin/sidecar", "healthcheck"]
ENTRYPOINT ["/opt/sidecar/bin/sidecar"]
CMD ["serve"]

ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Webhook Sidecar" \
      org.opencontainers.image.description="A reverse proxy that lets only verified webhook deliveries through to a receiver" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="debian:trixie-slim" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
