# An image for each component: docker build --target registry -t localhost/nsm/registry:0.1.0 .
#
# BASE is what all stand on: Debian (or another with apt) and Python 3.11 or newer; NAME@sha256:DIGEST pins it, and the
# label ...base.digest says which one it was. What installs takes wheels from the stage of that name, whose hashes are in
# locks/images.txt, so that no image has pip in it, or a source. The build needs BuildKit: DOCKER_BUILDKIT=1 where that
# is not the default.
ARG BASE=python:3.11-slim-bookworm

FROM $BASE AS wheels
RUN python3 -m pip --version || { apt-get update && apt-get install -y --no-install-recommends python3-pip; }
WORKDIR /src
COPY LICENSE locks/images.txt ./
COPY apis apis
COPY chains chains
COPY forwarder-kernel forwarder-kernel
COPY forwarder-sriov forwarder-sriov
COPY forwarder-vpp forwarder-vpp
COPY services services
COPY webhook webhook
ARG PIP_INDEX_URL
# The secret "ca" is a file with the authorities that pip is to trust, where the index has one of its own.
RUN --mount=type=cache,target=/root/.cache/pip --mount=type=secret,id=ca,target=/run/ca.pem \
    if [ -s /run/ca.pem ]; then export PIP_CERT=/run/ca.pem; fi; \
    export PIP_DISABLE_PIP_VERSION_CHECK=1; \
    python3 -m pip wheel -q --require-hashes --only-binary=:all: -w /wheels -r images.txt && \
    python3 -m pip install -q --no-index -f /wheels --target /build hatchling && \
    PYTHONPATH=/build python3 -m pip wheel -q --no-deps --no-index --no-build-isolation -w /wheels \
        ./apis ./chains ./forwarder-kernel ./forwarder-sriov ./forwarder-vpp ./services ./webhook && \
    mv /wheels/pip-*.whl /wheels/pip.zip && \
    printf '#!/bin/sh\npython /wheels/pip.zip/pip -q install --no-cache-dir --no-index -f /wheels "$@" &&\n%s\n' \
        "exec find /opt/nsm/lib -name '*.py[ix]' -delete -o -name '*.pxd' -delete -o -name '*.[ch]' -delete -o -name '*.proto' -delete" \
        > /wheels/install && \
    chmod +x /wheels/install

# What all have in common: the SDK, the exporter of traces, the user, the folders in which sockets are made: in /run/nsm
# by whichever user a pod says. Nothing is
# written elsewhere: the rest of the file system may be read-only. The public image's own pip is taken out of sight, and what
# only tests import, time zones, which nothing here reads, what cryptography needs for being built only, and of the names and protobuf messages that the exporter's
# dependencies bring those that nothing here imports.
FROM $BASE AS chains
ENV PATH=/opt/nsm/bin:$PATH PYTHONDONTWRITEBYTECODE=1
RUN --mount=type=bind,from=wheels,source=/wheels,target=/wheels \
    python3 -m venv --without-pip /opt/nsm && /wheels/install 'nsm-chains[otlp]' && \
    cd /opt/nsm/lib/python3*/site-packages && rm -r nsm/chains/testing cffi pycparser tzdata/zoneinfo && \
    find opentelemetry/semconv/_incubating -type f ! -name '__init__.*' ! -name 'otel_*' -delete && \
    cd google && rm -r api cloud gapic logging longrunning type && \
    install -d -m 1777 /run/nsm && install -d -m 0770 -o 65532 -g 65532 /var/lib/networkservicemesh && \
    printf '#!/bin/sh\nexec /opt/nsm/bin/python -m nsm.chains.tools.grpc_health_probe "$@"\n' > /bin/grpc-health-probe && \
    chmod +x /bin/grpc-health-probe && \
    rm -rf /usr/local/bin/pip* /usr/local/lib/python3*/site-packages/pip* /usr/local/lib/python3*/site-packages/setuptools*
ARG VERSION=0.1.0
ARG REVISION=
ARG SOURCE=
ARG BASE
ARG BASE_DIGEST=
LABEL org.opencontainers.image.vendor="Network Service Mesh in Python" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source=$SOURCE \
      org.opencontainers.image.revision=$REVISION \
      org.opencontainers.image.base.name=$BASE \
      org.opencontainers.image.base.digest=$BASE_DIGEST \
      org.opencontainers.image.version=$VERSION

# Without what operators, hosts and local meshes run, here and below.
FROM chains AS services
RUN --mount=type=bind,from=wheels,source=/wheels,target=/wheels /wheels/install nsm-services && \
    cd /opt/nsm/lib/python3*/site-packages/nsm && rm -r mesh node operate view
USER 65532:65532

# What judges callers: also by policies in files, and it has figures.
FROM services AS servers
USER 0:0
RUN --mount=type=bind,from=wheels,source=/wheels,target=/wheels /wheels/install 'nsm-services[prometheus]' 'nsm-chains[rego]'
USER 65532:65532

# Components that use a cluster's API server.
FROM chains AS cluster
RUN --mount=type=bind,from=wheels,source=/wheels,target=/wheels /wheels/install 'nsm-services[k8s]' && \
    cd /opt/nsm/lib/python3*/site-packages/nsm && rm -r mesh node operate view
USER 65532:65532

FROM cluster AS registry
LABEL org.opencontainers.image.title="nsm registry"
USER 0:0
RUN --mount=type=bind,from=wheels,source=/wheels,target=/wheels /wheels/install 'nsm-services[prometheus]' 'nsm-chains[rego]'
USER 65532:65532
ENV NSM_LISTEN_ON=tcp://:5002
HEALTHCHECK CMD ["nsm", "health", "tcp://127.0.0.1:5002"]
ENTRYPOINT ["nsm", "registry"]

FROM servers AS nsmgr
LABEL org.opencontainers.image.title="nsm nsmgr"
ENV NSM_LISTEN_ON=unix:///var/lib/networkservicemesh/nsm.io.sock,tcp://:5001
HEALTHCHECK CMD ["nsm", "health", "unix:///var/lib/networkservicemesh/nsm.io.sock"]
ENTRYPOINT ["nsm", "nsmgr"]

FROM servers AS nsmgr-proxy
LABEL org.opencontainers.image.title="nsm nsmgr-proxy"
ENV NSM_LISTEN_ON=tcp://:5004
HEALTHCHECK CMD ["nsm", "health", "tcp://127.0.0.1:5004"]
ENTRYPOINT ["nsm", "nsmgr-proxy"]

FROM servers AS registry-proxy
LABEL org.opencontainers.image.title="nsm registry-proxy"
USER 0:0
RUN --mount=type=bind,from=wheels,source=/wheels,target=/wheels /wheels/install 'nsm-services[dns]'
USER 65532:65532
ENV NSM_LISTEN_ON=tcp://:5005
HEALTHCHECK CMD ["nsm", "health", "tcp://127.0.0.1:5005"]
ENTRYPOINT ["nsm", "registry-proxy"]

# Root, with no capability but those that it is given; of the others' group, for their sockets. Its own is in the
# container: only processes that receive it as a descriptor can use it, in any group.
FROM chains AS forwarder-kernel
LABEL org.opencontainers.image.title="nsm forwarder-kernel"
RUN --mount=type=bind,from=wheels,source=/wheels,target=/wheels /wheels/install 'nsm-forwarder-kernel[prometheus]' 'nsm-chains[rego]'
ENV NSM_CONNECT_TO=unix:///var/lib/networkservicemesh/nsm.io.sock \
    NSM_LISTEN_ON=unix:///run/nsm/forwarder.sock NSM_SOCKET_MODE=0666
USER 0:65532
HEALTHCHECK CMD ["nsm", "health", "unix:///run/nsm/forwarder.sock"]
ENTRYPOINT ["nsm", "forwarder-kernel"]

# VPP itself is not here: FD.io publishes its packages. `VPP_PACKAGES=FOLDER make images ARGS=forwarder-vpp` installs those
# in a folder; without any, the forwarder needs the API socket of a VPP that runs elsewhere.
FROM scratch AS vpp-packages

FROM chains AS forwarder-vpp
LABEL org.opencontainers.image.title="nsm forwarder-vpp"
USER 0:0
RUN --mount=type=bind,from=vpp-packages,target=/vpp \
    if ls /vpp/*.deb >/dev/null 2>&1; then \
        apt-get update && apt-get install -y --no-install-recommends /vpp/*.deb && \
        rm -rf /var/lib/apt/lists/* /var/cache/apt/*; \
    fi
RUN --mount=type=bind,from=wheels,source=/wheels,target=/wheels /wheels/install 'nsm-forwarder-vpp[prometheus]' 'nsm-chains[rego]'
ENV NSM_CONNECT_TO=unix:///var/lib/networkservicemesh/nsm.io.sock \
    NSM_LISTEN_ON=unix:///run/nsm/forwarder.sock NSM_SOCKET_MODE=0666
USER 0:65532
HEALTHCHECK CMD ["nsm", "health", "unix:///run/nsm/forwarder.sock"]
ENTRYPOINT ["nsm", "forwarder-vpp"]

# Root, and privileged where it runs: it gives devices of the node to drivers, and to the control groups of pods.
FROM chains AS forwarder-sriov
LABEL org.opencontainers.image.title="nsm forwarder-sriov"
RUN --mount=type=bind,from=wheels,source=/wheels,target=/wheels /wheels/install 'nsm-forwarder-sriov[prometheus]' 'nsm-chains[rego]'
ENV NSM_CONNECT_TO=unix:///var/lib/networkservicemesh/nsm.io.sock \
    NSM_LISTEN_ON=unix:///run/nsm/forwarder.sock NSM_SOCKET_MODE=0666
USER 0:65532
HEALTHCHECK CMD ["nsm", "health", "unix:///run/nsm/forwarder.sock"]
ENTRYPOINT ["nsm", "forwarder-sriov"]

# With ping, by which an endpoint looks for its clients: nsc-tools says what is special about it.
FROM servers AS nse
LABEL org.opencontainers.image.title="nsm nse"
USER 0:0
RUN apt-get update && apt-get install -y --no-install-recommends iproute2 iputils-ping libcap2-bin && \
    setcap cap_net_raw=p /bin/ping && \
    rm -rf /var/lib/apt/lists/* /var/cache/apt/*
USER 65532:65532
# Its socket is in the container: only processes that receive it as a descriptor can use it, in any group.
ENV NSM_LISTEN_ON=unix:///run/nsm/nse.sock NSM_SOCKET_MODE=0666
HEALTHCHECK CMD ["nsm", "health", "unix:///run/nsm/nse.sock"]
ENTRYPOINT ["nsm", "nse"]

FROM servers AS nse-remote-vlan
LABEL org.opencontainers.image.title="nsm nse-remote-vlan"
HEALTHCHECK CMD ["nsm", "health", "tcp://127.0.0.1:5003"]
ENTRYPOINT ["nsm", "nse-remote-vlan"]

# An endpoint in a chain of services changes interfaces of its pod: root, with NET_ADMIN alone. With ip, to look at them.
FROM servers AS nse-passthrough
LABEL org.opencontainers.image.title="nsm nse-passthrough"
USER 0:0
RUN apt-get update && apt-get install -y --no-install-recommends iproute2 && \
    rm -rf /var/lib/apt/lists/* /var/cache/apt/*
USER 0:65532
ENV NSM_LISTEN_ON=unix:///run/nsm/nse.sock NSM_SOCKET_MODE=0666
HEALTHCHECK CMD ["nsm", "health", "unix:///run/nsm/nse.sock"]
ENTRYPOINT ["nsm", "nse-passthrough"]

FROM nse-passthrough AS nse-firewall
LABEL org.opencontainers.image.title="nsm nse-firewall"
RUN apt-get update && apt-get install -y --no-install-recommends nftables && \
    rm -rf /var/lib/apt/lists/* /var/cache/apt/*
ENTRYPOINT ["nsm", "nse-firewall"]

FROM cluster AS nse-supplier
LABEL org.opencontainers.image.title="nsm nse-supplier"
ENV NSM_LISTEN_ON=unix:///run/nsm/nse.sock NSM_SOCKET_MODE=0666
HEALTHCHECK CMD ["nsm", "health", "unix:///run/nsm/nse.sock"]
ENTRYPOINT ["nsm", "nse-supplier"]

FROM servers AS nse-vfio
LABEL org.opencontainers.image.title="nsm nse-vfio"
# Its socket is in the container: only processes that receive it as a descriptor can use it, in any group.
ENV NSM_LISTEN_ON=unix:///run/nsm/nse.sock NSM_SOCKET_MODE=0666
HEALTHCHECK CMD ["nsm", "health", "unix:///run/nsm/nse.sock"]
ENTRYPOINT ["nsm", "nse-vfio"]

FROM servers AS ipam
LABEL org.opencontainers.image.title="nsm ipam"
ENV NSM_LISTEN_ON=tcp://:5006
HEALTHCHECK CMD ["nsm", "health", "tcp://127.0.0.1:5006"]
ENTRYPOINT ["nsm", "ipam"]

# Root, with no capability but those that it is given: it sets addresses of its own network namespace, and serves DNS.
FROM servers AS nse-vl3
LABEL org.opencontainers.image.title="nsm nse-vl3"
USER 0:0
RUN --mount=type=bind,from=wheels,source=/wheels,target=/wheels /wheels/install 'nsm-services[dns]' && \
    apt-get update && apt-get install -y --no-install-recommends iproute2 iputils-ping && \
    rm -rf /var/lib/apt/lists/* /var/cache/apt/*
USER 0:65532
ENV NSM_LISTEN_ON=unix:///run/nsm/nse.sock NSM_SOCKET_MODE=0666
HEALTHCHECK CMD ["nsm", "health", "unix:///run/nsm/nse.sock"]
ENTRYPOINT ["nsm", "nse-vl3"]

# As nse-vl3, with what changes the kernel's tables.
FROM services AS lb-vl3
LABEL org.opencontainers.image.title="nsm lb-vl3"
USER 0:0
RUN apt-get update && apt-get install -y --no-install-recommends iproute2 nftables && \
    rm -rf /var/lib/apt/lists/* /var/cache/apt/*
USER 0:65532
ENV NSM_CONNECT_TO=unix:///var/lib/networkservicemesh/nsm.io.sock
HEALTHCHECK CMD nsm health "$NSM_CONNECT_TO"
ENTRYPOINT ["nsm", "lb-vl3"]

FROM services AS clients
USER 0:0
RUN --mount=type=bind,from=wheels,source=/wheels,target=/wheels /wheels/install 'nsm-services[dns]'
USER 65532:65532
ENV NSM_CONNECT_TO=unix:///var/lib/networkservicemesh/nsm.io.sock

# Healthy with all its wires, where it says so by a file; else as long as its manager is.
FROM clients AS nsc
LABEL org.opencontainers.image.title="nsm nsc"
HEALTHCHECK CMD if [ "$NSM_READY_FILE" ]; then cat "$NSM_READY_FILE.why" 2>/dev/null; test -e "$NSM_READY_FILE"; \
    else nsm health "$NSM_CONNECT_TO"; fi
ENTRYPOINT ["nsm", "nsc"]

FROM clients AS nsc-init
LABEL org.opencontainers.image.title="nsm nsc-init"
HEALTHCHECK CMD nsm health "$NSM_CONNECT_TO"
ENTRYPOINT ["nsm", "nsc-init"]

FROM cluster AS identity
LABEL org.opencontainers.image.title="nsm identity"
USER 0:0
RUN --mount=type=bind,from=wheels,source=/wheels,target=/wheels /wheels/install 'nsm-services[federation]' && \
    cd /opt/nsm/lib/python3*/site-packages/aiohttp && rm test_utils.py pytest_plugin.py
USER 65532:65532
HEALTHCHECK CMD nsm health "$SPIFFE_ENDPOINT_SOCKET"
ENTRYPOINT ["nsm", "identity"]

FROM chains AS view
LABEL org.opencontainers.image.title="nsm view"
RUN --mount=type=bind,from=wheels,source=/wheels,target=/wheels /wheels/install 'nsm-services[view]' && \
    cd /opt/nsm/lib/python3*/site-packages && rm -r nsm/mesh nsm/node nsm/operate && \
    rm aiohttp/test_utils.py aiohttp/pytest_plugin.py
USER 65532:65532
ENV NSM_LISTEN_ON=tcp://:7410
HEALTHCHECK CMD ["nsm", "health", "http://127.0.0.1:7410"]
ENTRYPOINT ["nsm", "view"]

FROM cluster AS map-ip
LABEL org.opencontainers.image.title="nsm map-ip"
ENTRYPOINT ["nsm", "map-ip"]

FROM cluster AS cluster-info
LABEL org.opencontainers.image.title="nsm cluster-info"
ENTRYPOINT ["nsm", "cluster-info"]

FROM cluster AS prefixes
LABEL org.opencontainers.image.title="nsm prefixes"
HEALTHCHECK NONE
ENTRYPOINT ["nsm", "prefixes"]

# Root, since who binds a folder into pods has to be privileged.
FROM services AS csi-driver
LABEL org.opencontainers.image.title="nsm csi-driver"
USER 0:0
HEALTHCHECK NONE
ENTRYPOINT ["nsm", "csi-driver"]

FROM chains AS webhook
LABEL org.opencontainers.image.title="nsm webhook"
RUN --mount=type=bind,from=wheels,source=/wheels,target=/wheels /wheels/install 'nsm-webhook[prometheus]' && \
    cd /opt/nsm/lib/python3*/site-packages && rm -r nsm/mesh nsm/node nsm/operate nsm/view && \
    rm aiohttp/test_utils.py aiohttp/pytest_plugin.py
USER 65532:65532
HEALTHCHECK NONE
ENTRYPOINT ["nsm", "webhook"]

# A client and what one looks at its wires with; for examples and for looking into things. Its ping takes the capability
# that it needs if the container has it, and runs without where they are all dropped. netbase has the names of protocols.
FROM nsc AS nsc-tools
LABEL org.opencontainers.image.title="nsm nsc, ping and ip"
USER 0:0
RUN apt-get update && apt-get install -y --no-install-recommends iproute2 iputils-ping libcap2-bin netbase && \
    setcap cap_net_raw=p /bin/ping && \
    rm -rf /var/lib/apt/lists/* /var/cache/apt/*
USER 65532:65532
