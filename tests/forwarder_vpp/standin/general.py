"""Connections, versions, threads."""

from .handlers import handles


@handles
def control_ping(world, m):
    return {"vpe_pid": world.process_id}


@handles
def show_version(world, m):
    return {"program": "vpe", "version": f"{world.version}-standin", "build_date": "", "build_directory": ""}


@handles
def show_threads(world, m):
    main = {"id": 0, "name": "vpp_main", "type": "", "pid": world.process_id, "cpu_id": 0, "core": 0, "cpu_socket": 0}
    return {"thread_data": [main]}


@handles
def cli_inband(world, m):
    return {"reply": ""}
