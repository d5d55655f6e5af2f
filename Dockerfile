# syntax=docker/dockerfile:1
#
#   docker build -t kith .
#   docker run -v kith-data:/data -p 127.0.0.1:7700:7700 kith
#
# On an NVIDIA GPU (the compute capability is your card's, 90 for an H100):
#
#   docker build -t kith:cuda --build-arg FEATURES=cuda --build-arg CUDA_COMPUTE_CAP=90 \
#     --build-arg BUILD_IMAGE=nvidia/cuda:12.9.1-cudnn-devel-ubuntu24.04 --build-arg RUN_IMAGE=nvidia/cuda:12.9.1-cudnn-runtime-ubuntu24.04 .
#   docker run --gpus all -e KITH_ENCODER__DEVICE=cuda:0 -v kith-data:/data -p 127.0.0.1:7700:7700 kith:cuda

ARG RUST_IMAGE=rust:1.95-slim-bookworm
ARG BUILD_IMAGE=${RUST_IMAGE}
ARG RUN_IMAGE=debian:bookworm-slim

FROM ${RUST_IMAGE} AS rust

FROM ${BUILD_IMAGE} AS build
ARG FEATURES=
ARG CUDA_COMPUTE_CAP=
# The CUDA image has no Rust: both builds take it from the same place.
COPY --from=rust /usr/local/cargo /usr/local/cargo
COPY --from=rust /usr/local/rustup /usr/local/rustup
ENV CARGO_HOME=/usr/local/cargo RUSTUP_HOME=/usr/local/rustup PATH=/usr/local/cargo/bin:${PATH}
WORKDIR /build
COPY Cargo.toml Cargo.lock ./
COPY config config
COPY migrations migrations
# The manifest names the benches, so cargo wants to see them.
COPY benches benches
COPY crates crates
COPY src src
COPY tests/tidy tests/tidy
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/build/target,id=kith-target-${FEATURES} \
    if [ -z "$CUDA_COMPUTE_CAP" ]; then unset CUDA_COMPUTE_CAP; fi \
    && cargo build --release --locked --features "$FEATURES" \
    && cp target/release/kith /kith

FROM ${RUN_IMAGE} AS run
RUN useradd --system --uid 10001 --user-group --no-create-home --home-dir /data kith \
    && install --directory --owner=kith --group=kith --mode=0700 /data
COPY --from=build /kith /usr/local/bin/kith
COPY LICENSE /usr/share/doc/kith/LICENSE
USER kith
VOLUME /data
EXPOSE 7700
# A stop answers what was accepted and takes a snapshot: give it longer than server.grace_seconds (docker stop --time 40).
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=3 CMD ["kith", "health", "--retries", "0"]
ENTRYPOINT ["kith"]
# Inside a container loopback reaches nobody, so it must listen on all addresses, which kith refuses without a key or --insecure. As long as
# there is no key, whoever reaches the port may embed, write and delete: publish it on 127.0.0.1 only (as above). To make the first one,
#
#   docker run --rm -v kith-data:/data kith key create --data-dir /data --name ops --scope admin
#
# From then on every request needs a key, and --insecure has no effect.
CMD ["serve", "--listen", "0.0.0.0:7700", "--insecure", "--data-dir", "/data"]
