"""Permissions in device programs: how cgroup v2 decides which devices may be opened (BPF_PROG_TYPE_CGROUP_DEVICE).

A container runtime attaches a program to a container's group, and every attached program has to agree. So another one
cannot permit anything: the runtime's has to be replaced by one that first looks at our devices and then does what it
did. Ours begins with a mark and has the rest of the program behind it, so that each can be told from the other, and
nothing of this has to be remembered.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import struct
from collections.abc import Iterator, Sequence

from nsm.chains import libc

Device = tuple[int, int]
"""Major and minor number of a character device."""

_BPF = {"x86_64": 321, "aarch64": 280}
_LOAD, _ATTACH, _BY_ID, _INFO, _QUERY = 5, 8, 13, 15, 16
_KIND, _ATTACHED_AS = 15, 6
_MULTI, _REPLACE = 2, 4
_INSTRUCTION = struct.Struct("=BBhi")
_SIZE = _INSTRUCTION.size
_ATTRIBUTES, _INFO_SIZE, _MOST_PROGRAMS = 128, 256, 64
_MARK = 0x6E736D
_NAME = b"nsm_vfio"

_MOVE, _EXIT = 0xB7, 0x95
_LOAD_WORD, _LOW_HALF, _JUMP_IF_NOT = 0x61, 0x54, 0x55
_ACCESS, _MAJOR, _MINOR = 0, 4, 8
"""Offsets in struct bpf_cgroup_dev_ctx, to which register 1 points."""
_CHARACTER = 2


def with_devices(program: bytes, devices: Sequence[Device]) -> bytes:
    """The program that permits any access to `devices`, and for all others does what `program` does."""
    checks = b"".join(_check(major, minor) for major, minor in devices)
    if not checks:
        return program
    beginning = [
        _instruction(_MOVE, 0, 0, 0, _MARK),
        _instruction(_MOVE, 5, 0, 0, len(devices)),
        _instruction(_LOAD_WORD, 2, 1, _ACCESS, 0),
        _instruction(_LOW_HALF, 2, 0, 0, 0xFFFF),  # of 32 bits: the kind of device
        _instruction(_LOAD_WORD, 3, 1, _MAJOR, 0),
        _instruction(_LOAD_WORD, 4, 1, _MINOR, 0),
        _instruction(_JUMP_IF_NOT, 2, 0, len(checks) // _SIZE, _CHARACTER),
    ]
    return b"".join(beginning) + checks + program


def devices_in(program: bytes) -> tuple[list[Device], bytes]:
    """The devices that one of our programs permits, and the program behind; none, and all, of any other."""
    head = [_INSTRUCTION.unpack_from(program, at) for at in range(0, min(len(program), 2 * _SIZE), _SIZE)]
    if len(head) < 2 or head[0] != (_MOVE, 0, 0, _MARK) or head[1][:3] != (_MOVE, 5, 0):
        return [], program
    count, at, found = head[1][3], 7 * _SIZE, []
    for _ in range(count):
        major, minor = (_INSTRUCTION.unpack_from(program, at + place * _SIZE)[3] for place in (0, 1))
        found.append((major, minor))
        at += 4 * _SIZE
    return found, program[at:]


def permitted(group: str) -> list[Device]:
    """The devices that we have permitted to a group, the folder `group`. Raises OSError."""
    with _opened(group) as descriptor:
        programs, _ = _attached(descriptor)
        return list(dict.fromkeys(device for _, program in programs for device in devices_in(program)[0]))


def has_programs(group: str) -> bool:
    """Whether anything is forbidden to a group itself; those above it may forbid more. Raises OSError."""
    with _opened(group) as descriptor:
        return bool(_attached(descriptor)[0])


def permit(group: str, devices: Sequence[Device]) -> None:
    """Let processes of a group open exactly these devices, besides what its runtime permits. Raises OSError."""
    with _opened(group) as descriptor:
        programs, flags = _attached(descriptor)
        for number, program in programs:
            there, behind = devices_in(program)
            if there != list(devices):
                _replace(descriptor, number, flags, with_devices(behind, devices))


def attach(group: str, program: bytes) -> None:
    """Attach a first program to a group, as a container's runtime does. Raises OSError."""
    with _opened(group) as descriptor, _loaded(program) as loaded:
        _bpf(_ATTACH, struct.pack("=IIIII", descriptor, loaded, _ATTACHED_AS, _MULTI, 0), "attach a device program")


def _check(major: int, minor: int) -> bytes:
    return b"".join(
        [
            _instruction(_JUMP_IF_NOT, 3, 0, 3, major),
            _instruction(_JUMP_IF_NOT, 4, 0, 2, minor),
            _instruction(_MOVE, 0, 0, 0, 1),
            _instruction(_EXIT, 0, 0, 0, 0),
        ]
    )


def _instruction(code: int, target: int, source: int, offset: int, value: int) -> bytes:
    return _INSTRUCTION.pack(code, source << 4 | target, offset, value)


@contextlib.contextmanager
def _opened(group: str) -> Iterator[int]:
    descriptor = os.open(group, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _attached(group: int) -> tuple[list[tuple[int, bytes]], int]:
    """The ids and instructions of a group's programs, and the flags that they were attached with."""
    ids = (ctypes.c_uint32 * _MOST_PROGRAMS)()
    attributes = struct.pack("=IIIIQI", group, _ATTACHED_AS, 0, 0, ctypes.addressof(ids), _MOST_PROGRAMS)
    answer = _bpf(_QUERY, attributes, "list the device programs of a control group")
    flags, count = struct.unpack_from("=I", answer, 12)[0], struct.unpack_from("=I", answer, 24)[0]
    return [(number, _instructions(number)) for number in ids[:count]], flags


def _instructions(number: int) -> bytes:
    with _program(number) as descriptor:
        size = struct.unpack_from("=I", _info(descriptor, b""), 20)[0]
        instructions = ctypes.create_string_buffer(size)
        _info(descriptor, struct.pack("=20xIQQ", size, 0, ctypes.addressof(instructions)))
        return instructions.raw


def _info(descriptor: int, wanted: bytes) -> bytes:
    """The struct bpf_prog_info, whose fields in `wanted` say where the kernel has to write more."""
    info = ctypes.create_string_buffer(wanted, _INFO_SIZE)
    attributes = struct.pack("=IIQ", descriptor, _INFO_SIZE, ctypes.addressof(info))
    _bpf(_INFO, attributes, "read a device program")
    return info.raw


@contextlib.contextmanager
def _program(number: int) -> Iterator[int]:
    descriptor = _descriptor(_BY_ID, struct.pack("=I", number), "open a device program")
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _loaded(program: bytes) -> Iterator[int]:
    code, license_ = ctypes.create_string_buffer(program, len(program)), ctypes.create_string_buffer(b"Apache-2.0")
    places = ctypes.addressof(code), ctypes.addressof(license_)
    attributes = struct.pack("=IIQQIIQII16s", _KIND, len(program) // _SIZE, *places, 0, 0, 0, 0, 0, _NAME)
    descriptor = _descriptor(_LOAD, attributes, "load a device program")
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _replace(group: int, number: int, flags: int, program: bytes) -> None:
    """Replace one program of a group at once: at no time is more, or less, permitted than before or after."""
    with _loaded(program) as fresh, _program(number) as former:
        how = (_MULTI | _REPLACE, former) if flags & _MULTI else (flags, 0)
        _bpf(_ATTACH, struct.pack("=IIIII", group, fresh, _ATTACHED_AS, *how), "replace a device program")


def _descriptor(command: int, attributes: bytes, what: str) -> int:
    return _call(command, ctypes.create_string_buffer(attributes, _ATTRIBUTES), what)


def _bpf(command: int, attributes: bytes, what: str) -> bytes:
    """The attributes with what the kernel wrote into them."""
    buffer = ctypes.create_string_buffer(attributes, _ATTRIBUTES)
    _call(command, buffer, what)
    return buffer.raw


def _call(command: int, buffer: ctypes.Array[ctypes.c_char], what: str) -> int:
    if (number := _BPF.get(platform.machine())) is None:
        raise OSError(f"cannot {what}: the number of bpf(2) on {platform.machine()} is not known here")
    return libc.syscall(number, command, buffer, _ATTRIBUTES, what=what)
