"""The system calls that a sandboxed program may not make, as a filter program for the kernel."""

import errno
import functools
import platform
import struct
from typing import NamedTuple

# System calls by name: the numbers on x86_64 and on aarch64; None where the architecture has none of that name.
NUMBERS: dict[str, tuple[int | None, int | None]] = {
    "_sysctl": (156, None), "accept": (43, 202), "accept4": (288, 242), "acct": (163, 89), "add_key": (248, 217),
    "adjtimex": (159, 171), "bind": (49, 200), "bpf": (321, 280), "chmod": (90, None), "chown": (92, None),
    "chroot": (161, 51), "clock_adjtime": (305, 266), "clock_settime": (227, 112), "clone": (56, 220),
    "clone3": (435, 435), "connect": (42, 203), "create_module": (174, None), "delete_module": (176, 106),
    "fanotify_init": (300, 262), "fanotify_mark": (301, 263), "fchmod": (91, 52), "fchmodat": (268, 53),
    "fchmodat2": (452, 452), "fchown": (93, 55), "fchownat": (260, 54), "fcntl": (72, 25), "file_setattr": (469, 469),
    "finit_module": (313, 273), "fork": (57, None), "fremovexattr": (199, 16), "fsconfig": (431, 431),
    "fsetxattr": (190, 7), "fsmount": (432, 432), "fsopen": (430, 430), "fspick": (433, 433),
    "futimesat": (261, None), "init_module": (175, 105), "inotify_init": (253, None), "inotify_init1": (294, 26),
    "io_uring_enter": (426, 426), "io_uring_register": (427, 427), "io_uring_setup": (425, 425), "ioctl": (16, 29),
    "ioperm": (173, None), "iopl": (172, None), "ioprio_set": (251, 30), "kcmp": (312, 272),
    "kexec_file_load": (320, 294), "kexec_load": (246, 104), "keyctl": (250, 219), "lchown": (94, None),
    "listen": (50, 201), "listmount": (458, 458), "lookup_dcookie": (212, 18), "lremovexattr": (198, 15),
    "lsetxattr": (189, 6), "mbind": (237, 235), "memfd_create": (319, 279), "memfd_secret": (447, 447),
    "migrate_pages": (256, 238), "mknod": (133, None), "mknodat": (259, 33), "modify_ldt": (154, None),
    "mount": (165, 40), "mount_setattr": (442, 442), "move_mount": (429, 429), "move_pages": (279, 239),
    "mq_open": (240, 180), "mq_unlink": (241, 181), "msgctl": (71, 187), "msgget": (68, 186), "msgrcv": (70, 188),
    "msgsnd": (69, 189), "name_to_handle_at": (303, 264), "nfsservctl": (180, 42), "open_by_handle_at": (304, 265),
    "open_tree": (428, 428), "open_tree_attr": (467, 467), "perf_event_open": (298, 241), "personality": (135, 92),
    "pidfd_getfd": (438, 438), "pidfd_open": (434, 434), "pidfd_send_signal": (424, 424), "pivot_root": (155, 41),
    "prctl": (157, 167), "prlimit64": (302, 261), "process_madvise": (440, 440), "process_mrelease": (448, 448),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "ptrace": (101, 117), "quotactl": (179, 60),
    "quotactl_fd": (443, 443), "reboot": (169, 142), "removexattr": (197, 14), "removexattrat": (466, 466),
    "request_key": (249, 218), "sched_setaffinity": (203, 122), "sched_setattr": (314, 274),
    "sched_setparam": (142, 118), "sched_setscheduler": (144, 119), "semctl": (66, 191), "semget": (64, 190),
    "semop": (65, 193), "semtimedop": (220, 192), "set_mempolicy": (238, 237), "set_mempolicy_home_node": (450, 450),
    "setdomainname": (171, 162), "sethostname": (170, 161), "setns": (308, 268), "setpriority": (141, 140),
    "setrlimit": (160, 164), "settimeofday": (164, 170), "setxattr": (188, 5), "setxattrat": (463, 463),
    "shmat": (30, 196), "shmctl": (31, 195), "shmget": (29, 194), "socket": (41, 198), "socketpair": (53, 199),
    "statmount": (457, 457), "swapoff": (168, 225), "swapon": (167, 224), "sync": (162, 81), "syncfs": (306, 267),
    "sysfs": (139, None), "syslog": (103, 116),
    "umount2": (166, 39), "unshare": (272, 97), "uselib": (134, None), "userfaultfd": (323, 282),
    "ustat": (136, None), "utime": (132, None), "utimensat": (280, 88), "utimes": (235, None), "vfork": (58, None),
    "vhangup": (153, 58),
}  # fmt: skip

# Refused on another process, whose id is this argument; 0 is oneself.
ON_OTHERS = {"prlimit64": 0, "sched_setaffinity": 0, "sched_setattr": 0, "sched_setparam": 0, "sched_setscheduler": 0}
ON_OTHERS |= {"setpriority": 1, "ioprio_set": 1}

# Refused where the host's file system is in view and only Landlock guards it, because Landlock does not see them.
METADATA = set(
    "chmod fchmod fchmodat fchmodat2 chown fchown fchownat lchown utime utimes utimensat futimesat removexattr "
    "lremovexattr fremovexattr removexattrat file_setattr".split()
)
PROCESSES = {"fork", "vfork"}  # besides clone without CLONE_THREAD

NEW_NAMESPACE = 0x7E020000  # all CLONE_NEW* that fit into the flags of clone
CLONE_THREAD = 0x00010000
AF_UNIX, SOCK_STREAM, SOCK_TYPES = 1, 1, 0xF
TERMINALS = 0x5400  # ioctl's requests for terminals, pipes and descriptors; others change files or drive devices
TIOCSTI, TIOCLINUX = 0x5412, 0x541C  # put words into a terminal's mouth
F_SETLEASE, F_NOTIFY = 1024, 1026  # hold up those who write the host's files, and watch them
PRIO_USER, IOPRIO_WHO_USER = 2, 3  # all processes of the user, the host's too
PR_SET_PDEATHSIG, RLIMIT_CORE = 1, 4
FIRST_UNKNOWN = 470  # younger calls than this file do not exist inside
FIRST_OTHER_TABLE = 0x40000000  # the x32 calls of x86

ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
KILL, ALLOW, FAIL = 0x80000000, 0x7FFF0000, 0x00050000
LOAD, AND, IF_EQUAL, IF_AT_LEAST, ANSWER = 0x20, 0x54, 0x15, 0x35, 0x06
NUMBER_AT, ARCHITECTURE_AT, ARGUMENTS_AT = 0, 4, 16


class Condition(NamedTuple):
    """Refuse a call where the lower half of an argument, masked, equals the value; or where it does not."""

    call: str
    argument: int
    mask: int
    value: int
    refused_if_equal: bool


def conditions(processes: bool) -> list[Condition]:
    """The calls that are refused for some arguments only."""
    refused = [
        Condition("ioctl", 1, 0xFFFFFF00, TERMINALS, False),
        Condition("ioctl", 1, 0xFFFFFFFF, TIOCSTI, True),
        Condition("ioctl", 1, 0xFFFFFFFF, TIOCLINUX, True),
        Condition("fcntl", 1, 0xFFFFFFFF, F_SETLEASE, True),
        Condition("fcntl", 1, 0xFFFFFFFF, F_NOTIFY, True),
        Condition("setpriority", 0, 0xFFFFFFFF, PRIO_USER, True),
        Condition("ioprio_set", 0, 0xFFFFFFFF, IOPRIO_WHO_USER, True),
        Condition("prctl", 0, 0xFFFFFFFF, PR_SET_PDEATHSIG, True),
        Condition("prlimit64", 1, 0xFFFFFFFF, RLIMIT_CORE, True),  # 0 lets the kernel start the host's core handler
        Condition("setrlimit", 0, 0xFFFFFFFF, RLIMIT_CORE, True),
        Condition("socketpair", 0, 0xFFFFFFFF, AF_UNIX, False),
        Condition("socketpair", 1, SOCK_TYPES, SOCK_STREAM, False),  # datagrams could be addressed to anybody
        Condition("clone", 0, NEW_NAMESPACE, 0, False),
    ]
    if not processes:
        refused.append(Condition("clone", 0, CLONE_THREAD, CLONE_THREAD, False))
    return refused + [Condition(call, place, 0xFFFFFFFF, 0, False) for call, place in ON_OTHERS.items()]


def is_supported() -> bool:
    """Whether the calls of this machine's architecture are known."""
    return platform.machine() in ARCHITECTURES


@functools.cache
def filter_program(*, processes: bool = True, metadata: bool = True) -> bytes:
    """The filter as an array of struct sock_filter (seccomp(2)): refused calls fail with EPERM, the known others pass.

    Args:
      processes: whether new processes are allowed; threads always are.
      metadata: whether modes, owners, times and attributes of files may be changed.

    Raises:
      KeyError: the architecture is not supported.
    """
    column, architecture = ARCHITECTURES[platform.machine()]
    refuse, unknown = FAIL | errno.EPERM, FAIL | errno.ENOSYS
    partly = conditions(processes)
    sometimes = {condition.call for condition in partly} | PROCESSES | METADATA | {"clone3"}
    always = (NUMBERS.keys() - sometimes) | (set() if processes else PROCESSES) | (set() if metadata else METADATA)
    numbers = sorted(number for call in always if (number := NUMBERS[call][column]) is not None)
    program = [(LOAD, 0, 0, ARCHITECTURE_AT), (IF_EQUAL, 1, 0, architecture), (ANSWER, 0, 0, KILL)]
    program += [(LOAD, 0, 0, NUMBER_AT), (IF_AT_LEAST, 0, 1, FIRST_OTHER_TABLE), (ANSWER, 0, 0, KILL)]
    program += [(IF_AT_LEAST, 0, 1, FIRST_UNKNOWN), (ANSWER, 0, 0, unknown)]
    for number in numbers:
        program += [(IF_EQUAL, 0, 1, number), (ANSWER, 0, 0, refuse)]
    # The C library answers ENOSYS by using clone, whose flags a filter can see.
    program += [(IF_EQUAL, 0, 1, NUMBERS["clone3"][column]), (ANSWER, 0, 0, unknown)]
    for condition in partly:
        if (number := NUMBERS[condition.call][column]) is not None:
            equal, other = (0, 1) if condition.refused_if_equal else (1, 0)
            program += [
                (IF_EQUAL, 0, 5, number),
                (LOAD, 0, 0, ARGUMENTS_AT + 8 * condition.argument),
                (AND, 0, 0, condition.mask),
                (IF_EQUAL, equal, other, condition.value),
                (ANSWER, 0, 0, refuse),
                (LOAD, 0, 0, NUMBER_AT),
            ]
    program.append((ANSWER, 0, 0, ALLOW))
    return b"".join(struct.pack("HBBI", *instruction) for instruction in program)
