"""Which system calls a container may make: an allow-list much like Docker's.

libseccomp compiles it once, in the manager, into two programs for the kernel (seccomp(2)).
The kernel asks both at every call and obeys the stricter one. An init gets them as bytes. The
first is large (the kernel takes 0.4 ms to check it) and still allows what an init has to do, so
it is loaded in advance. The second refuses that too, and is loaded last.

A call that is not on the list fails with ENOSYS, as on a kernel that does not have it, so that
programs fall back to another. A call that we know and refuse fails with EPERM.
"""

from __future__ import annotations

import errno
import os
from typing import Any

ALLOWED = """
accept accept4 access adjtimex alarm arch_prctl arm_fadvise64_64 arm_sync_file_range bind breakpoint
brk cacheflush cachestat capget capset chdir chmod chown chown32 chroot clock_adjtime
clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep
clock_nanosleep_time64 close close_range connect copy_file_range creat dup dup2 dup3 epoll_create
epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd
eventfd2 execve execveat exit exit_group faccessat faccessat2 fadvise64 fadvise64_64 fallocate
fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fdatasync fgetxattr
flistxattr flock fork fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync
ftruncate ftruncate64 futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake futimesat
get_robust_list get_thread_area getcpu getcwd getdents getdents64 getegid getegid32 geteuid
geteuid32 getgid getgid32 getgroups getgroups32 getitimer getpeername getpgid getpgrp getpid getppid
getpriority getrandom getresgid getresgid32 getresuid getresuid32 getrlimit getrusage getsid
getsockname getsockopt gettid gettimeofday getuid getuid32 getxattr getxattrat inotify_add_watch
inotify_init inotify_init1 inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents
io_pgetevents_time64 io_setup io_submit ioctl ioprio_get ioprio_set ipc kill landlock_add_rule
landlock_create_ruleset landlock_restrict_self lchown lchown32 lgetxattr link linkat listen
listmount listxattr listxattrat llistxattr _llseek lremovexattr lseek lsetxattr lstat lstat64
madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat
mlock mlock2 mlockall mmap mmap2 modify_ldt mprotect mq_getsetattr mq_notify mq_open mq_timedreceive
mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink mremap mseal msgctl msgget msgrcv
msgsnd msync munlock munlockall munmap name_to_handle_at nanosleep newfstatat _newselect open openat
openat2 pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll
ppoll_time64 prctl pread64 preadv preadv2 prlimit64 process_mrelease pselect6 pselect6_time64
pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv recv recvfrom recvmmsg
recvmmsg_time64 recvmsg remap_file_pages removexattr removexattrat rename renameat renameat2
restart_syscall riscv_flush_icache riscv_hwprobe rmdir rseq rt_sigaction rt_sigpending
rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64
rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr
sched_getparam sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64
sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield seccomp select semctl
semget semop semtimedop semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg sendto
set_robust_list set_thread_area set_tid_address set_tls setfsgid setfsgid32 setfsuid setfsuid32
setgid setgid32 setgroups setgroups32 setitimer setpgid setpriority setregid setregid32 setresgid
setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit setsid setsockopt setuid setuid32
setxattr setxattrat shmat shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4 sigprocmask
sigreturn socketpair splice stat stat64 statfs statfs64 statmount statx symlink symlinkat sync
sync_file_range sync_file_range2 syncfs sysinfo tee tgkill time timer_create timer_delete
timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create
timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 times tkill truncate truncate64
ugetrlimit umask uname unlink unlinkat uretprobe utime utimensat utimensat_time64 utimes vfork
vmsplice wait4 waitid waitpid write writev
""".split()

# Known ways out of a container, or around its walls; EPERM says that they are refused.
REFUSED = """
acct add_key bpf clock_settime clock_settime64 create_module delete_module fanotify_init
finit_module fsconfig fsmount fsopen fspick get_kernel_syms get_mempolicy init_module io_uring_enter
io_uring_register io_uring_setup ioperm iopl kcmp kexec_file_load kexec_load keyctl lookup_dcookie
mbind migrate_pages mount mount_setattr move_mount move_pages nfsservctl open_by_handle_at open_tree
perf_event_open pidfd_getfd pivot_root process_madvise process_vm_readv process_vm_writev
query_module quotactl quotactl_fd reboot request_key set_mempolicy set_mempolicy_home_node
setdomainname sethostname setns settimeofday stime swapoff swapon syslog umount umount2 unshare
uselib userfaultfd ustat vhangup vm86 vm86old
""".split()

# Those of them that a plan needs, up to its last steps.
FOR_PLANS = """
mount mount_setattr move_mount open_tree pivot_root sethostname setns umount2 unshare
""".split()

# Leases and delegations (fcntl(2)) would make the manager wait when it opens a file. All other
# commands are below 1024, or are these of <linux/fcntl.h>.
FIRST_OWN_COMMAND, OWN_COMMANDS = 1024, range(1025, 1040)
BINARY_TREE = 2  # seccomp_attr_set(3): a call is looked up in some ten comparisons
NEW_NAMESPACES = 0x7E020080  # all the CLONE_NEW* of <linux/sched.h>
PTRACE_ATTACH = 16  # <linux/ptrace.h>: this takes over a process, as some of those above it do
HARMLESS_PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)  # personality(2)
AF_ALG, AF_VSOCK = 38, 40  # address families that lead around the network namespace
# Families that the kernel has dropped or will drop, and that few people maintain:
# DECnet, ECONET, ATMSVC, IRDA, WANPIPE, ISDN and CAIF of <linux/socket.h>.
OBSOLETE = {12, 19, 20, 23, 25, 34, 37}
FAMILIES = sorted({*range(46)} - {AF_ALG, AF_VSOCK} - OBSOLETE)
THIRTY_TWO_BIT = {"x86_64": "x86", "aarch64": "arm"}  # what else such a machine runs


def compile_filters() -> list[bytes]:
    """The two programs for the kernel, arrays of ``struct sock_filter`` (seccomp(2)).

    Raises OSError if libseccomp is missing or refuses.
    """
    import pyseccomp as lib  # loads libseccomp.so.2: an OSError if it is missing

    first = _rules(lib, lib.ERRNO(errno.ENOSYS))
    _add_known(first, lib, [*ALLOWED, *FOR_PLANS], lib.ALLOW)
    _add_known(first, lib, sorted({*REFUSED} - {*FOR_PLANS}), lib.ERRNO(errno.EPERM))
    _add_conditional(first, lib)
    last = _rules(lib, lib.ALLOW)
    _add_known(last, lib, FOR_PLANS, lib.ERRNO(errno.EPERM))
    return [_exported(first), _exported(last)]


def _rules(lib: Any, otherwise: Any) -> Any:
    rules = lib.SyscallFilter(otherwise)
    rules.set_attr(lib.Attr.CTL_OPTIMIZE, BINARY_TREE)
    other = THIRTY_TWO_BIT.get(os.uname().machine)
    if other:
        rules.add_arch(getattr(lib.Arch, other.upper()))
    return rules


def _add_known(rules: Any, lib: Any, names: list[str], action: Any) -> None:
    for name in names:
        if _known(lib, name):
            rules.add_rule(action, name)


def _known(lib: Any, name: str) -> bool:
    """Whether this libseccomp knows a system call (of any architecture)."""
    try:
        return bool(lib.resolve_syscall(lib.Arch.NATIVE, name) != -1)
    except ValueError:
        return False


def _add_conditional(rules: Any, lib: Any) -> None:
    """Calls that are allowed only with some arguments."""
    argument = lib.Arg
    flags = 1 if os.uname().machine == "s390x" else 0  # which argument the flags are: clone(2)
    rules.add_rule(lib.ALLOW, "clone", argument(flags, lib.MASKED_EQ, NEW_NAMESPACES, 0))
    for value in HARMLESS_PERSONALITIES:
        rules.add_rule(lib.ALLOW, "personality", argument(0, lib.EQ, value))
    for name in ("fcntl", "fcntl64"):
        rules.add_rule(lib.ALLOW, name, argument(1, lib.LT, FIRST_OWN_COMMAND))
        for command in OWN_COMMANDS:
            rules.add_rule(lib.ALLOW, name, argument(1, lib.EQ, command))
    rules.add_rule(lib.ALLOW, "ptrace", argument(0, lib.LT, PTRACE_ATTACH))
    for family in FAMILIES:
        rules.add_rule(lib.ALLOW, "socket", argument(0, lib.EQ, family))


def _exported(rules: Any) -> bytes:
    descriptor = os.memfd_create("seccomp")
    with open(descriptor, "rb") as file:
        rules.export_bpf(file)
        file.seek(0)
        return file.read()
