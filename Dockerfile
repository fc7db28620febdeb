# tidewater as one static program in an empty image, and the sample app of the dev stack.
#
#   docker build -t tidewater .
#   docker run --rm -v notes:/data -e TIDEWATER_LOCAL__PATH=/data/app.db ... tidewater run --init

FROM rust:1.95.0-alpine AS build
RUN apk add --no-cache musl-dev make
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY src src
COPY migrations migrations
COPY benches benches
COPY tests tests
COPY examples examples
# On this image the target is musl, and its C runtime is linked in: the program needs no library.
RUN cargo build --release --locked --bin tidewater && mkdir /data

# The app's side: any program with a SQLite driver would do.
FROM python:3.13.5-alpine3.22 AS sample-app
RUN install -d -o 65532 -g 65532 /data
COPY examples/notes_app.py /notes_app.py
USER 65532:65532
WORKDIR /data
ENTRYPOINT ["python3", "-u", "/notes_app.py"]

FROM scratch AS tidewater
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /src/target/release/tidewater /tidewater
COPY --from=build --chown=65532:65532 /data /data
# The app's container runs as the same user: both write the same file.
USER 65532:65532
WORKDIR /data
VOLUME /data
EXPOSE 9842
ENTRYPOINT ["/tidewater"]
CMD ["run", "--init"]
