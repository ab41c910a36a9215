# syntax=docker/dockerfile:1
# The gateway on its own: in a container it stores into the server that DATABASE_URL names. The
# embedded PostgreSQL is for machines; there is none in this image, and without DATABASE_URL the
# gateway says so and ends.

FROM rust:1.95.0-slim-bookworm AS build
# The image's own toolchain is the pinned one: rustup is not to fetch rustfmt and clippy.
ENV RUSTUP_TOOLCHAIN=1.95.0
WORKDIR /build
COPY . .
# What /metrics tells as wattgate_build_info.
ARG WATTGATE_REVISION=unknown
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    WATTGATE_REVISION="$WATTGATE_REVISION" cargo build --release --locked --bin wattgate \
    && cp target/release/wattgate /wattgate

FROM debian:bookworm-slim
# The roots that sslmode=verify-full trusts.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --system --gid 10001 wattgate \
    && useradd --system --uid 10001 --gid 10001 --home-dir /nonexistent --shell /usr/sbin/nologin wattgate \
    && install -d -o wattgate -g wattgate -m 0700 /var/lib/wattgate
COPY --from=build /wattgate /usr/local/bin/wattgate
COPY LICENSE-MIT LICENSE-APACHE /usr/share/doc/wattgate/

# wattgate, by number: what checks for an unprivileged user need not read the image.
USER 10001:10001
# The write-ahead log lives here: it needs a volume on a real disk, and is the only place that is
# written to, so that the root may be read-only.
VOLUME /var/lib/wattgate
# Off a loopback address the gateway asks for keys, unless WATTGATE_AUTH=off says otherwise.
ENV WATTGATE_LISTEN=0.0.0.0:3000 \
    WATTGATE_DATA_DIR=/var/lib/wattgate \
    WATTGATE_LOG_FORMAT=json
EXPOSE 3000
# Alive, not ready: with the database down the gateway still takes readings and must not be
# restarted for it. The image has no curl; bash speaks enough HTTP. Behind --tls-cert, replace it.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
    CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/3000 && printf 'GET /health/live HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n' >&3 && read -r _ status _ <&3 && [ \"$status\" = 200 ]"]
# SIGTERM stops it: what is acknowledged is stored first, for up to WATTGATE_SHUTDOWN_TIMEOUT
# (30s); give the container longer than that before it is killed.
STOPSIGNAL SIGTERM
ENTRYPOINT ["wattgate"]
