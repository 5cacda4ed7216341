"""Machines for a test, on this one: each has its own address, processes, /tmp, home and SSH server.

They are Linux namespaces (network, process, mount, host name), joined by a bridge inside the first of them,
so that nothing is added to this machine's own network and `ray stop` finds nobody else's processes.
Everything outside /tmp and the home folder is shared, and so is the test's folder, as if by NFS.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

NEEDED = {
    "sshd": "openssh-server",
    "rsync": "rsync",
    "ip": "iproute2",
    "tmux": "tmux",
    "unshare": "util-linux",
}
NET = "10.231.77"
HOME = Path("/root")
SSH_PORT = 2222
# `ray` is beside the interpreter, whose environment need not be activated
PROGRAMS = f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin:/sbin"


def missing() -> str | None:
    """Why machines can't be made here; None if they can. Installs what lacks from Debian, if it may."""
    if os.geteuid() != 0:
        return "machines as namespaces need root"
    path = PROGRAMS
    lacking = [package for tool, package in NEEDED.items() if not shutil.which(tool, path=path)]
    if lacking:
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "timeout": 120}
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        for command in (
            ["apt-get", "update"],
            ["apt-get", "install", "-y", "--no-install-recommends", *lacking],
        ):
            try:
                subprocess.run(command, env=environment, **quiet)  # type: ignore[call-overload]
            except (OSError, subprocess.TimeoutExpired):
                break
    lacking = [package for tool, package in NEEDED.items() if not shutil.which(tool, path=path)]
    if lacking:
        return f"not installed, and apt-get could not: {', '.join(lacking)}"
    tried = subprocess.run(
        ["unshare", "--pid", "--fork", "--mount-proc", "--net", "--uts", "true"],
        capture_output=True,
        text=True,
    )
    return None if tried.returncode == 0 else f"no namespaces here: {tried.stderr.strip()}"


class Host:
    """One machine. `keep` are folders under /tmp or the home seen beside its own; `serve`: with sshd."""

    def __init__(self, name: str, address: str, folder: Path, keep: Sequence[Path], *, serve: bool) -> None:
        self.name, self.address, self.folder = name, address, folder
        self.space, self.home = f"{name}-{os.getpid()}", folder / "home"
        (self.home / ".ssh").mkdir(parents=True)
        _run("ip", "netns", "add", self.space)
        _run("ip", "-n", self.space, "link", "set", "lo", "up")
        self._keep, self._serve, self._process, self._inside = keep, serve, None, 0

    def boot(self) -> None:
        kept = " ".join(
            shlex.quote(str(p)) for p in self._keep if p.is_relative_to("/tmp") or p.is_relative_to(HOME)
        )
        server = f"/usr/sbin/sshd -D -e -f {self.folder}/sshd_config" if self._serve else "sleep infinity"
        inside = f"""
            hostname {self.name}; mount --make-rprivate /; mkdir -p /run/sshd
            mount --bind {self.folder.parent}/etc_hosts /etc/hosts
            mount -t tmpfs tmpfs /mnt; mkdir -p /mnt/tmp /mnt{HOME}
            mount --rbind /tmp /mnt/tmp; mount --rbind {HOME} /mnt{HOME}
            mount -t tmpfs -o size=2g tmpfs /tmp; mkdir -p /mnt/home
            mount --bind /mnt{self.home} {HOME} 2> /dev/null || mount --bind {self.home} {HOME}
            for kept in {kept}; do mkdir -p $kept; mount --rbind /mnt$kept $kept; done
            umount -l /mnt
            {server} & while kill -0 $!; do wait; done"""
        apart = ["unshare", "--pid", "--fork", "--mount-proc", "--uts", "--kill-child"]
        with open(self.folder / "log", "a") as log:
            self._process = subprocess.Popen(
                ["ip", "netns", "exec", self.space, *apart, "bash", "-c", inside],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        # `ip netns exec` becomes unshare, whose one child is the machine's process 1.
        self._inside = _only_child(self._process.pid)

    def command(
        self, *arguments: str | Path, env: dict[str, str] | None = None, folder: Path = HOME
    ) -> list[str]:
        variables = {"HOME": str(HOME), "PATH": PROGRAMS, "LANG": "C.UTF-8"}
        pairs = [f"{name}={value}" for name, value in (variables | (env or {})).items()]
        enter = ["nsenter", "--target", str(self._inside), "--net", "--pid", "--mount", "--uts"]
        return [*enter, "env", "-i", "-C", str(folder), *pairs, *map(str, arguments)]

    def run(
        self, *arguments: str | Path, env: dict[str, str] | None = None, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments, env=env), capture_output=True, text=True, timeout=timeout,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def kill(self) -> None:
        """Power off: every process of the machine dies at once."""
        if self._process and self._process.poll() is None:
            self._process.kill()
            self._process.wait(timeout=20)

    def remove(self) -> None:
        self.kill()
        subprocess.run(["ip", "netns", "del", self.space], capture_output=True)


class Network:
    """A client and `count` hosts behind one bridge; `hosts[0]` has the address NET.11, and so on."""

    def __init__(self, folder: Path, count: int, keep: Sequence[Path]) -> None:
        self.folder, keep = folder, [*keep, folder, Path(sys.prefix), Path(sys.base_prefix)]
        folder.mkdir(parents=True, exist_ok=True)
        names = {"client": f"{NET}.1"} | {f"host{i}": f"{NET}.1{i}" for i in range(1, count + 1)}
        lines = ["127.0.0.1 localhost", *(f"{address} {name}" for name, address in names.items())]
        (folder / "etc_hosts").write_text("\n".join(lines) + "\n")
        for key in ("host_key", "id"):
            _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key))
        made = [Host(n, a, folder / n, keep, serve=n != "client") for n, a in names.items()]
        self.client, self.hosts = made[0], made[1:]
        try:
            self._join()
            for host in made:
                host.boot()
            self._wait_for_ssh()
        except BaseException:
            self.remove()
            raise

    def _join(self) -> None:
        space = self.client.space
        _run("ip", "-n", space, "link", "add", "br0", "type", "bridge")
        _run("ip", "-n", space, "addr", "add", f"{self.client.address}/24", "dev", "br0")
        _run("ip", "-n", space, "link", "set", "br0", "up")
        public = (self.folder / "id.pub").read_text()
        for host in self.hosts:
            wire = f"v{host.name}"
            _run(
                "ip",
                "-n",
                space,
                "link",
                "add",
                wire,
                "type",
                "veth",
                "peer",
                "name",
                "eth0",
                "netns",
                host.space,
            )
            _run("ip", "-n", space, "link", "set", wire, "master", "br0", "up")
            _run("ip", "-n", host.space, "addr", "add", f"{host.address}/24", "dev", "eth0")
            _run("ip", "-n", host.space, "link", "set", "eth0", "up")
            _run("ip", "-n", host.space, "route", "add", "default", "via", self.client.address)
            (host.home / ".ssh" / "authorized_keys").write_text(public)
            # Only the loopback address, as a machine behind a jump host has it, and its own.
            (host.folder / "sshd_config").write_text(
                f"Port {SSH_PORT}\nHostKey {self.folder}/host_key\nAuthorizedKeysFile .ssh/authorized_keys\n"
                f"ListenAddress {host.address}\nListenAddress 127.0.0.1\nStrictModes no\nUsePAM no\n"
                "PidFile none\nPermitRootLogin prohibit-password\nPasswordAuthentication no\n"
                "Subsystem sftp internal-sftp\nMaxStartups 100\nMaxSessions 100\n"
            )

    def cut(self, host: Host) -> None:
        _run("ip", "-n", self.client.space, "link", "set", f"v{host.name}", "down")

    def mend(self, host: Host) -> None:
        _run("ip", "-n", self.client.space, "link", "set", f"v{host.name}", "up")

    def _wait_for_ssh(self, seconds: float = 30) -> None:
        end = time.monotonic() + seconds
        for host in self.hosts:
            probe = f"exec 3<>/dev/tcp/{host.address}/{SSH_PORT} && head -c 4 <&3"
            while "SSH-" not in self.client.run("bash", "-c", probe, timeout=20).stdout:
                assert time.monotonic() < end, (
                    f"no SSH server on {host.name}: {(host.folder / 'log').read_text()}"
                )
                time.sleep(0.2)

    def remove(self) -> None:
        for host in [*self.hosts, self.client]:
            host.remove()


def _run(*command: str) -> None:
    environment = os.environ | {"PATH": PROGRAMS}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=30)
    assert done.returncode == 0, f"{shlex.join(command)}: {done.stderr}"


def _only_child(process: int, seconds: float = 10) -> int:
    end = time.monotonic() + seconds
    while True:
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
        if children:
            return int(children[0])
        assert time.monotonic() < end, "the machine's first process never came up"
        time.sleep(0.05)
