"""A Slurm cluster of one node on the loopback interface, with its own munge, files and ports."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "scancel")

# cred_expire is also how long a requeued job waits before it starts again.
CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
SlurmUser=root
SlurmdUser=root
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
GresTypes=gpu
ReturnToService=2
SlurmdParameters=config_overrides
JobRequeue=1
KillWait=5
SchedulerParameters=sched_interval=2,bf_interval=2
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=8000 Gres=gpu:h100:2 State=UNKNOWN
PartitionName=debug Nodes={host} Default=YES State=UP MaxTime=INFINITE
PartitionName=other Nodes={host} State=UP MaxTime=60
"""


def missing() -> list[str]:
    """Return the programs that are not installed."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    return [name for name in PROGRAMS if shutil.which(name, path=path) is None]


class Cluster:
    """The daemons, from `start` to `stop`; jobs see two GPUs that are empty files.

    Args:
        folder: For all of its files.
        env: Environment of its commands.
    """

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self.folder = folder
        self.env = {**env, "SLURM_CONF": str(folder / "slurm.conf")}
        self.env["PATH"] = f"{env['PATH']}:/usr/sbin:/sbin"
        self.daemons: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start munge, the controller and the node, and wait until the node is idle."""
        folder, host = self.folder, socket.gethostname().partition(".")[0]
        for name in ("state", "spool"):
            (folder / name).mkdir(parents=True)
        for number in range(2):
            (folder / f"gpu{number}").touch()
        (folder / "munge.key").write_bytes(os.urandom(1024))
        (folder / "munge.key").chmod(0o600)
        conf = CONF.format(host=host, folder=folder, ports=_free_ports(2))
        (folder / "slurm.conf").write_text(conf)
        gres = f"NodeName={host} Name=gpu Type=h100 File={folder}/gpu[0-1]\n"
        (folder / "gres.conf").write_text(gres)
        # --force: the folder of a test is not as closed as munge wants it.
        self._daemon(
            *("munged", "--foreground", "--force", f"--key-file={folder}/munge.key"),
            *(f"--socket={folder}/munge.socket", f"--pid-file={folder}/munge.pid"),
            *(f"--log-file={folder}/munge.log", f"--seed-file={folder}/munge.seed"),
        )
        self._wait_for("munge", lambda: (folder / "munge.socket").exists())
        self._daemon("slurmctld", "-D", "-i")
        self._wait_for("slurmctld", lambda: self.run("sinfo", "--noheader").returncode == 0)
        self._daemon("slurmd", "-D")
        self._wait_for("slurmd", lambda: "idle" in self.run("sinfo", "--noheader").stdout)

    def stop(self) -> None:
        """End all jobs, then every daemon, the last one started first."""
        if self.daemons and self.daemons[-1].poll() is None:
            self.run("scancel", "--signal=KILL", "--full", "--user=root")
            self.run("scancel", "--user=root")
            deadline = time.monotonic() + 30
            while self.queue() and time.monotonic() < deadline:
                time.sleep(0.5)
        for daemon in reversed(self.daemons):
            daemon.terminate()
            try:
                daemon.wait(timeout=20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait(timeout=20)

    def run(
        self, *words: str | Path, cwd: Path | None = None, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the cluster's environment."""
        return subprocess.run(
            [*map(str, words)],
            cwd=cwd or self.folder,
            env=self.env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def queue(self) -> dict[str, tuple[str, str]]:
        """Return state and reason of every job in the queue, by its ID; ``5_0`` in an array."""
        shown = self.run("squeue", "--noheader", "--array", "--format=%i|%T|%r").stdout
        lines = [line.split("|") for line in shown.splitlines()]
        return {job: (state, reason) for job, state, reason in lines}

    def processes(self) -> dict[int, str]:
        """Return the command lines of what uses the cluster's configuration, but the daemons."""
        found = {}
        mark = f"SLURM_CONF={self.folder}/".encode()
        for place in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (place / "environ").read_bytes():
                    words = (place / "cmdline").read_bytes().split(b"\0")
                    found[int(place.name)] = b" ".join(words).decode(errors="replace").strip()
            except OSError:
                continue  # It has ended.
        return {pid: words for pid, words in found.items() if pid not in self._alive()}

    def lose_node(self) -> None:
        """Kill all that runs on the node at once, then tell the controller that it is lost."""
        host = socket.gethostname().partition(".")[0]
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for state in ("down reason=lost", "resume"):
            self.run("scontrol", "update", f"nodename={host}", *f"state={state}".split())
            time.sleep(1)

    def _alive(self) -> set[int]:
        return {daemon.pid for daemon in self.daemons if daemon.poll() is None}

    def logs(self) -> str:
        """Return the ends of the daemons' logs."""
        found = []
        for path in sorted(self.folder.glob("*.log")):
            found.append(f"== {path.name}\n" + path.read_text(errors="replace")[-3000:])
        return "\n".join(found)

    def _daemon(self, *words: str) -> None:
        with open(self.folder / f"{words[0]}.out.log", "wb") as log:
            self.daemons.append(
                subprocess.Popen(
                    words,
                    env=self.env,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            )

    def _wait_for(self, what: str, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not ready():
            if time.monotonic() > deadline or self.daemons[-1].poll() is not None:
                raise RuntimeError(f"{what} does not start\n{self.logs()}")
            time.sleep(0.2)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
