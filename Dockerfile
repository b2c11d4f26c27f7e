# syntax=docker/dockerfile:1
# The image of cdc-migrator: the service and every verb, as an unprivileged user, on a root file
# system that may be read-only. Writable: /tmp and /var/lib/cdc-migrator.
#
#   docker build --tag cdc-migrator:0.1.0 .
#
# For a build that can be repeated byte for byte, name the base by its digest as well:
# python:3.13.11-slim-trixie@sha256:… (`docker buildx imagetools inspect` prints it).
ARG BASE=python:3.13.11-slim-trixie

# --- the environment: locked wheels and the package ----------------------------------------------
FROM ${BASE} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /build
RUN python -m venv /opt/cdc-migrator /opt/builder
# Nothing but what the service needs: no server and no Java for a local stack, no test tools. Every
# file is one whose hash was reviewed. The builder makes the package and its C library, with the
# compiler of the wheel `ziglang`, and is left behind.
COPY requirements-runtime.lock requirements-images.lock ./
RUN /opt/cdc-migrator/bin/pip install --require-hashes --only-binary :all: \
        --requirement requirements-runtime.lock \
    && /opt/builder/bin/pip install --require-hashes --only-binary :all: \
        --requirement requirements-images.lock
COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY connectors connectors
COPY cdc_migrator cdc_migrator
RUN /opt/builder/bin/pip wheel --no-deps --no-build-isolation --wheel-dir dist . \
    && /opt/cdc-migrator/bin/pip install --no-deps --no-index dist/*.whl \
    && /opt/cdc-migrator/bin/pip uninstall --yes pip

# --- where PostgreSQL's own packages come from: PGDG's list and key, made by Debian's script ------
FROM ${BASE} AS pgdg
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends postgresql-common \
    && sh /usr/share/postgresql-common/pgdg/*.sh -y

# --- the image ------------------------------------------------------------------------------------
FROM ${BASE}
COPY --from=pgdg /usr/share/postgresql-common/pgdg /usr/share/postgresql-common/pgdg
COPY --from=pgdg /etc/apt/sources.list.d/pgdg.sources /etc/apt/sources.list.d/pgdg.sources
# pg_dump and pg_restore. A dump needs programs at least as new as the source: 18, the newest
# version that is supported, which Debian itself does not have. Those of 17 and later set a
# parameter that a target before 17 does not know: 16 serves targets of 15 and 16. cdc-migrator
# takes the ones that fit both servers. Minor versions are not pinned: the list keeps only the
# latest, and a pin would break the build with each security release.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends postgresql-client-18 postgresql-client-16 \
    && rm -rf /var/lib/apt/lists/* \
    # A number of its own, so that a cluster can prove that it is not root (runAsNonRoot).
    && groupadd --gid 10001 cdc-migrator \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/cdc-migrator \
        --shell /usr/sbin/nologin cdc-migrator \
    && install -d -o 10001 -g 10001 -m 0750 /var/lib/cdc-migrator /run/connect-secrets \
    && install -d -m 0755 /etc/cdc-migrator
COPY --from=build /opt/cdc-migrator /opt/cdc-migrator

# The programs before Debian's wrapper of them, which looks for clusters on this machine.
# Written bytecode is there; more cannot be written. Loopback inside a container is nobody's.
ENV PATH=/opt/cdc-migrator/bin:/usr/lib/postgresql/18/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/var/lib/cdc-migrator \
    CDC_MIGRATOR_CONFIG=/etc/cdc-migrator/migration.yaml \
    CDC_MIGRATOR_STATE_DIR=/var/lib/cdc-migrator \
    CDC_MIGRATOR_SERVICE__HTTP_HOST=0.0.0.0

ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="cdc-migrator" \
      org.opencontainers.image.description="Move a live PostgreSQL database to another PostgreSQL without stopping the application." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.documentation="docs/deployment.md"

USER 10001:10001
WORKDIR /var/lib/cdc-migrator
VOLUME ["/var/lib/cdc-migrator", "/tmp"]
EXPOSE 8642
# `run` finishes the batch under way, for at most a minute: give it longer than that
# (docker stop --time 90).
STOPSIGNAL SIGTERM
# Whether the loop turns; asks no dependency, so a broker that is away restarts nothing. A container
# that runs another verb than `run` serves nothing: switch the check off there (--no-healthcheck).
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=4 \
    CMD ["python", "-m", "cdc_migrator.cli.alive"]
ENTRYPOINT ["cdc-migrator"]
CMD ["run"]
