# Debian's Python and what it needs, a virtual environment without pip, and nothing else: no shell, no package manager.
# The same commit, SOURCE_DATE_EPOCH and packages of the day give the same image, bit for bit: `make image`.

FROM debian:trixie-slim AS build
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends binutils gcc libc6-dev python3-dev python3-venv
WORKDIR /src
# Everything that a configuration may ask for, the extra httpsig included. runtime: without what `tracing:` needs.
ARG REQUIREMENTS=otel
COPY pyproject.toml setup.py README.md LICENSE ./
COPY requirements ./requirements
COPY tools ./tools
COPY sidecar ./sidecar
# Two environments: `tools` has pip and makes the wheel; what is shipped has no pip. Nothing is installed whose hash does
# not stand in requirements/, and the bill of materials fails if anything else is there.
# Debug symbols go (of uvloop alone 14 MB). Bytecode is marked as unchecked, so that it stays valid whatever times a
# builder gives to files; it is the same at every build because sets are written in the order of a fixed hash.
ENV PYTHONHASHSEED=0
RUN python3 -m venv /tools \
 && python3 -m venv --without-pip /opt/sidecar \
 && /tools/bin/pip install --no-cache-dir --only-binary :all: --require-hashes -r requirements/build.txt \
 && SIDECAR_COMPILE=1 /tools/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheel . \
 && /tools/bin/pip --python /opt/sidecar/bin/python install --no-cache-dir --no-compile \
      --only-binary :all: --require-hashes -r "requirements/$REQUIREMENTS.txt" \
 && /tools/bin/pip --python /opt/sidecar/bin/python install --no-cache-dir --no-compile --no-deps --no-index --find-links /wheel \
      webhook-sidecar \
 && find /opt/sidecar/lib -name '*.so' -exec strip --strip-unneeded {} + \
 && python3 -m compileall -q --invalidation-mode unchecked-hash /opt/sidecar/lib \
 && mkdir /opt/sidecar/share \
 && /opt/sidecar/bin/python tools/sbom.py --only "requirements/$REQUIREMENTS.txt" >/opt/sidecar/share/sbom.cdx.json \
 && rm -rf /opt/sidecar/include /opt/sidecar/.gitignore \
 && find /opt/sidecar/bin -type f ! -name sidecar -delete \
 && /opt/sidecar/bin/sidecar --version

FROM debian:trixie-slim AS system
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends ca-certificates python3
# The packages whose files are shipped; the last step fails if they are not enough.
ENV PYTHONHASHSEED=0 \
    PACKAGES="base-files ca-certificates libbz2-1.0 libc6 libexpat1 libffi8 libgcc-s1 liblzma5 libpython3.13-minimal \
              libpython3.13-stdlib libssl3t64 libuuid1 libzstd1 netbase python3-minimal python3.13-minimal zlib1g"
# Left out: pages, character sets, parts of the standard library that nothing here imports, and its modules whose libraries
# would be four more packages. var/lib/dpkg/status.d tells scanners what is there.
RUN mkdir -p /image/etc/ssl/certs /image/var/lib/dpkg/status.d /image/tmp \
 && ln -s usr/lib /image/lib \
 && if [ -e /usr/lib64 ]; then ln -s usr/lib64 /image/lib64; fi \
 && for package in $PACKAGES; do \
      dpkg -s "$package" >/image/var/lib/dpkg/status.d/"$package" && dpkg -L "$package" || exit 1; \
    done >/files \
 && sort -u /files | while read -r file; do if [ -f "$file" ] || [ -L "$file" ]; then echo "$file"; fi; done \
    | grep -E '^/(etc/(os-release|debian_version|protocols|services)|usr/bin/python|usr/lib|usr/share/doc/.*/copyright)' \
    | grep -Ev '^/usr/lib/(python3/|systemd|.*/gconv/|.*/engines-|.*/(_curses|_dbm|_sqlite3|_tkinter|readline)[^/]*[.]so)' \
    | grep -Ev '^/usr/lib/python3[.]13/(curses|dbm|ensurepip|idlelib|pydoc_data|sqlite3|tkinter|turtledemo|turtle[.]py|test|venv)' \
    | tar -cf - -T - | tar -xf - -C /image \
 && cp /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ \
 && cp /etc/nsswitch.conf /image/etc/ \
 && echo 'root:x:0:0:root:/:/nonexistent' >/image/etc/passwd \
 && echo 'sidecar:x:65532:65532:sidecar:/:/nonexistent' >>/image/etc/passwd \
 && printf 'root:x:0:\nsidecar:x:65532:\n' >/image/etc/group \
 && chmod 1777 /image/tmp \
 && python3 -m compileall -q -f --invalidation-mode unchecked-hash -s /image /image/usr/lib/python3.13
COPY --from=build /opt/sidecar /image/opt/sidecar
ARG SOURCE_DATE_EPOCH=0
# Everything of the program and the top of every package is imported once, with nothing there but what is shipped.
RUN dpkg-query -W -f '${Package} ${Version}\n' $PACKAGES >/image/opt/sidecar/share/debian-packages.txt \
 && chroot /image /opt/sidecar/bin/python -B -c 'if True: \
      import importlib, importlib.metadata, pkgutil, sidecar; \
      names = [each.name for each in pkgutil.walk_packages(sidecar.__path__, "sidecar.")]; \
      names += importlib.metadata.packages_distributions(); \
      [importlib.import_module(name) for name in names if not name.endswith("__main__")]' \
 && find /image -type f ! -name '*.so*' ! -path '*/bin/*' -exec chmod a-x {} + \
 && find /image -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +

FROM scratch
COPY --from=system /image /
# Bytecode was compiled above; at run time nothing is written, so a read-only root file system will do.
ENV SIDECAR_CONFIG=/etc/sidecar/config.yaml \
    SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt \
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
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
