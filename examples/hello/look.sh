#!/bin/sh
# Runs inside the container and prints what it sees.
own() { readlink "/proc/self/ns/$1" | tr -d 'a-z_:[]'; }
value() { grep "^$1:" /proc/self/status | sed 's/.*:[[:space:]]*//'; }
limit() { for file in "/sys/fs/cgroup/$1/$2" "/sys/fs/cgroup/$3"; do [ ! -r "$file" ] || { cat "$file"; return; }; done; echo unknown; }
allowed() { if "$@" >/dev/null 2>&1; then echo allowed; else echo refused; fi; }

echo "host name        $(hostname)"
echo "process id       $$ (of $(ls /proc | grep -c '^[0-9]*$') processes in sight)"
echo "user             $(id -u):$(id -g)"
echo "namespaces       pid $(own pid), mnt $(own mnt), net $(own net)"
echo "network devices  $(sed -n 's/^ *\([^:]*\):.*/\1/p' /proc/net/dev | tr '\n' ' ')"
echo "root entries     $(ls / | tr '\n' ' ')"
echo "devices          $(ls /dev | tr '\n' ' ')"
echo "capabilities     $(value CapEff)"
echo "seccomp mode     $(value Seccomp), no new privileges $(value NoNewPrivs)"
echo "memory limit     $(limit memory memory.limit_in_bytes memory.max)"
echo "process limit    $(limit pids pids.max pids.max)"
echo "open files       $(ulimit -n)"
echo "mkdir /denied    $(allowed mkdir /denied) (read-only root)"
echo "mkdir /tmp/dir   $(allowed mkdir /tmp/dir)"
echo "write to sysctl  $(allowed sh -c 'echo 1 >/proc/sys/vm/drop_caches')"
echo "read kcore       $(if [ -z "$(cat /proc/kcore 2>/dev/null)" ]; then echo empty; else echo readable; fi)"
