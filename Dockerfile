# syntax=docker/dockerfile:1
# Tern in a small image:  docker build -t tern . && docker run --rm -p 8080:8080 tern
#
# The image listens on every interface, as a container must, and says so in its log while no API key
# is set (TERN_SERVER_API_KEY_FILE or TERN_SERVER_API_KEYS).

FROM debian:12 AS build
WORKDIR /src
# The list of packages changes rarely, the sources often.
COPY scripts/deps.sh scripts/deps.sh
RUN scripts/deps.sh build && apt-get clean && rm -rf /var/lib/apt/lists/*
COPY . .
RUN cmake --preset release -DTERN_BUILD_TESTS=OFF \
 && cmake --build --preset release --target tern \
 && cmake --install build/release --prefix /opt/tern --component server --strip
# The Debian packages of the shared libraries that the binary needs, for the next stage.
RUN ldd /opt/tern/bin/tern | awk '/=> \//{print $3}' | xargs -n1 readlink -f \
  | while read -r library; do dpkg-query -S "*${library#/usr}"; done \
  | cut -d: -f1 | sort -u | grep -Ev '^(libc6|libgcc-s1|libstdc\+\+6)$' > /opt/tern/packages

FROM debian:12-slim
COPY --from=build /opt/tern/packages /tmp/packages
RUN apt-get update -qq \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
      libstdc++6 $(cat /tmp/packages) \
 && apt-get clean && rm -rf /var/lib/apt/lists/* /tmp/packages \
 && useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin tern
COPY --from=build /opt/tern/bin/tern /usr/local/bin/tern
COPY --from=build /opt/tern/share/tern /usr/local/share/tern
USER 10001
ENV TERN_SERVER_HOST=0.0.0.0 TERN_SERVER_PORT=8080
EXPOSE 8080
# SIGTERM drains; give `docker stop -t` at least the drain timeout.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
  CMD ["tern", "health", "--url", "http://127.0.0.1:8080/health"]
ENTRYPOINT ["tern"]
CMD ["serve"]
