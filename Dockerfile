# syntax=docker/dockerfile:1
# The gateway alone: in a container it stores into the server that DATABASE_URL names. This image
# contains no embedded PostgreSQL. Without DATABASE_URL the gateway reports that and exits.

FROM rust:1.95.0-slim-bookworm AS build
# The image has the pinned toolchain. This keeps rustup from fetching rustfmt and clippy.
ENV RUSTUP_TOOLCHAIN=1.95.0
WORKDIR /build
COPY . .
# The revision in the metric wattgate_build_info.
ARG WATTGATE_REVISION=unknown
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    WATTGATE_REVISION="$WATTGATE_REVISION" cargo build --release --locked --bin wattgate \
    && cp target/release/wattgate /wattgate

FROM debian:bookworm-slim
# The root certificates that sslmode=verify-full trusts.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --system --gid 10001 wattgate \
    && useradd --system --uid 10001 --gid 10001 --home-dir /nonexistent --shell /usr/sbin/nologin wattgate \
    && install -d -o wattgate -g wattgate -m 0700 /var/lib/wattgate
COPY --from=build /wattgate /usr/local/bin/wattgate
COPY LICENSE-MIT LICENSE-APACHE loadtest/data/NOTICE.md /usr/share/doc/wattgate/

# The user wattgate, by number, so that checks for an unprivileged user need not read the image.
USER 10001:10001
# The write-ahead log is here. It needs a volume on a real disk. The gateway writes nowhere else, so the
# root file system may be read-only.
VOLUME /var/lib/wattgate
# On this address the gateway requires keys, unless WATTGATE_AUTH=off is set.
ENV WATTGATE_LISTEN=0.0.0.0:3000 \
    WATTGATE_DATA_DIR=/var/lib/wattgate \
    WATTGATE_LOG_FORMAT=json
EXPOSE 3000
# Check that the gateway is alive, not that it is ready: while the database is down it still accepts readings
# and must not be restarted. The image has no curl; bash speaks enough HTTP. Replace this with --tls-cert.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
    CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/3000 && printf 'GET /health/live HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n' >&3 && read -r _ status _ <&3 && [ \"$status\" = 200 ]"]
# After SIGTERM the gateway stores acknowledged readings for up to WATTGATE_SHUTDOWN_TIMEOUT (30s). Give the
# container more time than that before it is killed.
STOPSIGNAL SIGTERM
ENTRYPOINT ["wattgate"]
