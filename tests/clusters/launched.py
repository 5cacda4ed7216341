"""A cluster of hosts.py's machines, described by the project's own clusters/onprem.yaml."""

from __future__ import annotations

import secrets
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from hosts import HOME, SSH_PORT, Host, Network

ROOT = Path(__file__).resolve().parents[2]
CPUS = 2  # of every machine, as far as Ray is told
SMALL = f"--num-cpus={CPUS} --object-store-memory=100000000"
SHARED_MACHINE = "RAY_memory_monitor_refresh_ms=0 RAY_worker_niceness=0"  # with tests, and other hosts
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "0", "TERM": "dumb"}


class Cluster:
    """`count` machines, of which the first is to be the head; `shared` is what they all see."""

    def __init__(self, folder: Path, count: int, keep: tuple[Path, ...] = ()) -> None:
        self.shared = folder / "shared"
        self.shared.mkdir(parents=True)
        self.network = Network(folder / "machines", count, [ROOT, folder, *keep])
        self.client, self.hosts = self.network.client, self.network.hosts
        self.file = folder / "cluster.yaml"
        self.file.write_text(self._adapted((ROOT / "clusters" / "onprem.yaml").read_text()))
        for host in self.hosts:
            ready_environment(host.home)
        self._keys()

    def _adapted(self, text: str) -> str:
        """What the file says a user has to change, and Ray's idea of the machines' size (each sees this
        machine's whole memory, and whatever else fills it)."""
        head, *workers = (host.address for host in self.hosts)
        for old, new in {
            "head_ip: 192.168.1.10": f"head_ip: {head}",
            "worker_ips: [192.168.1.11, 192.168.1.12]": f"worker_ips: [{', '.join(workers)}]",
            "ssh_user: ubuntu": "ssh_user: root",
            "-p 22 ": f"-p {SSH_PORT} ",
            "localhost:22 ": f"localhost:{SSH_PORT} ",
            "install.sh /shared": f"install.sh {self.shared}",
            "export RAY_AUTH_MODE=token": f"export {SHARED_MACHINE} RAY_AUTH_MODE=token",
            "ray start --head": f"ray start --head {SMALL}",
            "ray start --address": f"ray start {SMALL} --address",
        }.items():
            assert old in text, f"clusters/onprem.yaml has no {old!r} any more"
            text = text.replace(old, new)
        return text

    def _keys(self) -> None:
        """What the first comment lines of the file have a user make."""
        home, folder = self.client.home, self.network.folder
        shutil.copy(folder / "id", home / ".ssh" / "id_ed25519")
        key = (folder / "host_key.pub").read_text()
        lines = [f"[{host.address}]:{SSH_PORT} {key}" for host in self.hosts]
        (home / ".ssh" / "scenetune_hosts").write_text("".join(lines))
        (home / ".ray").mkdir()
        token = home / ".ray" / "scenetune-onprem.token"
        token.write_text(secrets.token_hex(32))
        token.chmod(0o600)
        self.token = token

    def ray(self, *arguments: str | Path, timeout: float = 180) -> subprocess.CompletedProcess[str]:
        """A `ray` command, given on the client in the project's folder."""
        return self.given("ray", *arguments, timeout=timeout)

    def given(self, *command: str | Path, timeout: float = 180) -> subprocess.CompletedProcess[str]:
        """A command, given on the client in the project's folder."""
        return subprocess.run(
            self.client.command(*command, env=QUIET, folder=ROOT),
            capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def on(self, host: Host, line: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """A shell line on a machine, in the environment that install.sh made there."""
        return host.run("bash", "--login", "-i", "-c", f"source ~/.bashrc; {line}", timeout=timeout)

    def remove(self) -> None:
        self.network.remove()


def ready_environment(home: Path) -> None:
    """~/scenetune-env that finds this test's packages, so that install.sh has only the project to install."""
    env = home / "scenetune-env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(env)], check=True, timeout=60)
    packages = env / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    (packages / "installed.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    (env / "share").symlink_to(Path(sys.prefix) / "share")  # nbconvert's templates
    (home / ".config" / "pip").mkdir(parents=True)
    (home / ".config" / "pip" / "pip.conf").write_text(
        "[global]\nno-build-isolation = false\nno-index = true\n"
    )
    # The command `ray` of the packages runs their own Python, which would import this checkout.
    script = env / "bin" / "ray"
    script.write_text(
        f"#!{HOME}/scenetune-env/bin/python\nfrom ray.scripts.scripts import main\nraise SystemExit(main())\n"
    )
    script.chmod(0o755)
