"""Compiles a profile with libseccomp, as runc would, for comparison.

Standard input: one JSON profile a line. Standard output: the program of each as one line of hex, or "refused".
Exit status 3: there is no libseccomp.
"""

import ctypes
import errno
import json
import os
import sys

ACTIONS = {
    "SCMP_ACT_KILL": 0,
    "SCMP_ACT_KILL_THREAD": 0,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": 0x00050000,
    "SCMP_ACT_TRACE": 0x7FF00000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_ALLOW": 0x7FFF0000,
}
ARCHITECTURES = {"SCMP_ARCH_X86": 0x40000003, "SCMP_ARCH_X86_64": 0xC000003E, "SCMP_ARCH_X32": 0x4000003E}
OPERATORS = ["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"]
NO_SUCH_CALL = -1


class Comparison(ctypes.Structure):
    _fields_ = [("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]


def word(action, errno_ret):
    data = 0
    if action in ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE"):
        data = 1 if errno_ret is None else errno_ret
    return ACTIONS[action] | data


def comparison(arg):
    op = 1 + OPERATORS.index(arg["op"].removeprefix("SCMP_CMP_"))
    return Comparison(arg["index"], op, arg["value"], arg.get("valueTwo", 0))


def alternatives(args):
    indexes = [arg["index"] for arg in args]
    if len(set(indexes)) < len(indexes):
        return [[comparison(arg)] for arg in args]
    return [[comparison(arg) for arg in args]]


def add(library, context, rule, default):
    action = word(rule["action"], rule.get("errnoRet"))
    if action == default:
        return
    for name in rule["names"]:
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number == NO_SUCH_CALL:
            continue
        for conditions in alternatives(rule.get("args") or []):
            array = (Comparison * max(1, len(conditions)))(*conditions)
            result = library.seccomp_rule_add_array(
                context, ctypes.c_uint32(action), number, len(conditions), array
            )
            if result:
                raise ValueError(os.strerror(-result))


def program(library, profile):
    default = word(profile["defaultAction"], profile.get("defaultErrnoRet"))
    context = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(default)))
    for name in profile.get("architectures") or []:
        result = library.seccomp_arch_add(context, ctypes.c_uint32(ARCHITECTURES[name]))
        if result not in (0, -errno.EEXIST):
            raise ValueError(os.strerror(-result))
    for rule in profile.get("syscalls") or []:
        add(library, context, rule, default)
    file = os.memfd_create("program")
    if library.seccomp_export_bpf(context, file):
        raise ValueError("cannot export")
    size = os.lseek(file, 0, os.SEEK_CUR)
    text = os.pread(file, size, 0).hex()
    os.close(file)
    library.seccomp_release(context)
    return text


def main():
    try:
        library = ctypes.CDLL("libseccomp.so.2")
    except OSError:
        sys.exit(3)
    library.seccomp_init.restype = ctypes.c_void_p
    for line in sys.stdin:
        try:
            print(program(library, json.loads(line)))
        except ValueError:
            print("refused")


main()
