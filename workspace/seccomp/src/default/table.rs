//! The calls of the default profile, in groups: the reason why they may pass, and their names.

use oci_spec::runtime::Capability;

/// For everyone.
pub(super) const ALWAYS: &[(&str, &str)] = &[
    (
        "reading and writing open files; no more power than the descriptor has",
        "read write readv writev pread64 pwrite64 preadv pwritev preadv2 pwritev2 lseek _llseek \
         sendfile sendfile64 splice tee vmsplice copy_file_range readahead fadvise64 fadvise64_64 \
         arm_fadvise64_64",
    ),
    (
        "opening and closing; paths are checked by the file system",
        "open openat openat2 creat close close_range dup dup2 dup3 fcntl fcntl64 flock ioctl \
         name_to_handle_at",
    ),
    (
        "attributes of files; what root may do is decided by its capabilities",
        "access faccessat faccessat2 stat lstat fstat stat64 lstat64 fstat64 fstatat64 newfstatat \
         statx statfs fstatfs statfs64 fstatfs64 chmod fchmod fchmodat fchmodat2 chown fchown lchown \
         fchownat chown32 fchown32 lchown32 utime utimes futimesat utimensat utimensat_time64 umask \
         file_getattr file_setattr",
    ),
    (
        "extended attributes; trusted ones need a capability",
        "getxattr lgetxattr fgetxattr getxattrat setxattr lsetxattr fsetxattr setxattrat listxattr \
         llistxattr flistxattr listxattrat removexattr lremovexattr fremovexattr removexattrat",
    ),
    (
        "names in directories; device nodes need a capability and the device cgroup",
        "mkdir mkdirat rmdir rename renameat renameat2 link linkat symlink symlinkat readlink \
         readlinkat unlink unlinkat mknod mknodat getdents getdents64 readdir chdir fchdir getcwd",
    ),
    (
        "sizes and write-back",
        "truncate ftruncate truncate64 ftruncate64 fallocate sync syncfs fsync fdatasync \
         sync_file_range sync_file_range2 arm_sync_file_range",
    ),
    (
        "watching files; whole file systems need a capability",
        "inotify_init inotify_init1 inotify_add_watch inotify_rm_watch fanotify_mark",
    ),
    ("mounts seen from the own mount namespace, read only", "statmount listmount"),
    (
        "asynchronous reads and writes of the old kind",
        "io_setup io_destroy io_submit io_cancel io_getevents io_pgetevents io_pgetevents_time64",
    ),
    (
        "waiting for descriptors",
        "select _newselect pselect6 pselect6_time64 poll ppoll ppoll_time64 epoll_create \
         epoll_create1 epoll_ctl epoll_ctl_old epoll_wait epoll_wait_old epoll_pwait epoll_pwait2 \
         eventfd eventfd2 signalfd signalfd4 pipe pipe2",
    ),
    (
        "memory of the own process",
        "brk mmap mmap2 munmap mremap mprotect pkey_mprotect pkey_alloc pkey_free madvise mincore \
         mlock mlock2 mlockall munlock munlockall msync remap_file_pages memfd_create memfd_secret \
         mseal map_shadow_stack membarrier cachestat",
    ),
    (
        "programs and processes; setuid programs are cut by no_new_privs where that is set",
        "execve execveat fork vfork exit exit_group wait4 waitid waitpid kill tkill tgkill pidfd_open \
         pidfd_send_signal process_mrelease",
    ),
    (
        "looking at own processes: the kernel checks user and capabilities, and this filter holds for them as well",
        "ptrace process_vm_readv process_vm_writev",
    ),
    (
        "who a process is; changes are decided by its capabilities",
        "getpid getppid gettid getpgid getpgrp getsid setpgid setsid getuid geteuid getgid getegid \
         getresuid getresgid getgroups setuid setgid setreuid setregid setresuid setresgid setfsuid \
         setfsgid setgroups getuid32 geteuid32 getgid32 getegid32 getresuid32 getresgid32 getgroups32 \
         setuid32 setgid32 setreuid32 setregid32 setresuid32 setresgid32 setfsuid32 setfsgid32 \
         setgroups32 capget capset prctl",
    ),
    ("limits and usage", "getrlimit ugetrlimit setrlimit prlimit64 getrusage times sysinfo uname getcpu"),
    (
        "scheduling; better than now needs a capability",
        "sched_yield sched_getaffinity sched_setaffinity sched_getattr sched_setattr sched_getparam \
         sched_setparam sched_getscheduler sched_setscheduler sched_get_priority_max \
         sched_get_priority_min sched_rr_get_interval sched_rr_get_interval_time64 getpriority \
         setpriority ioprio_get ioprio_set",
    ),
    (
        "signals",
        "rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend \
         rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sigaltstack sigprocmask sigreturn \
         sigaction sigpending sigsuspend signal pause alarm restart_syscall",
    ),
    (
        "threads",
        "futex futex_time64 futex_waitv futex_wait futex_wake futex_requeue set_robust_list \
         get_robust_list set_tid_address rseq set_thread_area get_thread_area arch_prctl modify_ldt \
         set_tls breakpoint cacheflush riscv_flush_icache riscv_hwprobe uretprobe uprobe",
    ),
    (
        "clocks, read only: setting one needs a capability, adjtimex too",
        "time gettimeofday clock_gettime clock_gettime64 clock_getres clock_getres_time64 \
         clock_adjtime clock_adjtime64 adjtimex",
    ),
    (
        "sleeping and timers",
        "nanosleep clock_nanosleep clock_nanosleep_time64 getitimer setitimer timer_create \
         timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 \
         timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64",
    ),
    (
        "sockets; which families there are is decided elsewhere",
        "socketpair bind connect listen accept accept4 getsockname getpeername getsockopt setsockopt \
         shutdown send sendto sendmsg sendmmsg recv recvfrom recvmsg recvmmsg recvmmsg_time64",
    ),
    (
        "System V and POSIX queues, semaphores and memory: namespaced",
        "ipc msgctl msgget msgrcv msgsnd semctl semget semop semtimedop semtimedop_time64 shmat \
         shmctl shmdt shmget mq_open mq_unlink mq_notify mq_getsetattr mq_timedreceive \
         mq_timedreceive_time64 mq_timedsend mq_timedsend_time64",
    ),
    ("giving up rights", "seccomp landlock_create_ruleset landlock_add_rule landlock_restrict_self"),
    ("randomness", "getrandom"),
];

/// For those who hold the capability: without it the kernel refuses most of them too, but not before it has read the
/// arguments.
pub(super) const BY_CAPABILITY: &[(Capability, &str, &str)] = &[
    (Capability::DacReadSearch, "file handles reach beyond the mount", "open_by_handle_at"),
    (
        Capability::SysAdmin,
        "mounts",
        "mount umount umount2 mount_setattr move_mount open_tree open_tree_attr fsopen fsconfig \
         fsmount fspick",
    ),
    (Capability::SysAdmin, "namespaces and their names", "setns unshare sethostname setdomainname"),
    (
        Capability::SysAdmin,
        "quotas, logs, tracing and other administration",
        "quotactl quotactl_fd syslog bpf perf_event_open fanotify_init lookup_dcookie \
         lsm_get_self_attr lsm_set_self_attr lsm_list_modules",
    ),
    (Capability::SysBoot, "restarts the machine, in a pid namespace the container", "reboot"),
    (Capability::SysChroot, "another root directory", "chroot"),
    (Capability::SysModule, "kernel modules", "init_module finit_module delete_module"),
    (Capability::SysPacct, "process accounting", "acct"),
    (Capability::SysPtrace, "other users' processes", "kcmp pidfd_getfd process_madvise"),
    (Capability::SysRawio, "input and output ports", "iopl ioperm"),
    (Capability::SysTime, "the system's clocks", "settimeofday stime clock_settime clock_settime64"),
    (Capability::SysTtyConfig, "hanging up terminals", "vhangup"),
    (
        Capability::SysNice,
        "placing memory on nodes",
        "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
    ),
    (Capability::Syslog, "the kernel's log", "syslog"),
    (Capability::Bpf, "programs in the kernel", "bpf"),
    (Capability::Perfmon, "performance counters", "perf_event_open"),
];
