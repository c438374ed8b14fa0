# syntax=docker/dockerfile:1.7
# vmferry in an image that has the program and its libraries and nothing else.
#
#   docker build --tag ghcr.io/vmferry/vmferry:0.1.0 .

# Both stages on one release of Debian: the libraries that the program is linked to are those that it finds.
FROM rust:1.95-trixie AS build
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libvirt-dev pkg-config \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY crates crates
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --locked --release --package vmferry \
    && install -D target/release/vmferry /out/vmferry \
    && strip --strip-debug /out/vmferry

FROM debian:trixie-slim AS root
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates libsasl2-modules libvirt0 \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /out/vmferry /out/vmferry
COPY deploy/image/rootfs.sh /out/rootfs.sh
# A library that is missing is found here, and not on a cluster.
RUN /out/rootfs.sh /out/vmferry /root-of-image \
    && chroot --userspec=65532:65532 /root-of-image /usr/bin/vmferry --version

FROM scratch
LABEL org.opencontainers.image.source="https://github.com/vmferry/vmferry" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.description="Moves virtual machines between hypervisors through staging storage"
COPY --from=root /root-of-image/ /
USER 65532:65532
ENTRYPOINT ["/usr/bin/vmferry"]
CMD ["--help"]
