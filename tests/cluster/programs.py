"""Runs programs that belong together: they write to one file each, and end together."""

import os
import signal
import subprocess
import time
import urllib.error
import urllib.request


class Ended(Exception):
    """A program ended that was to run on, or did not become ready; says what it wrote last."""


class Programs:
    """Starts programs whose output goes to `folder`/NAME.log. As a context manager it ends them, last started first."""

    def __init__(self, folder):
        self._folder = folder
        self._running, self._started = {}, {}
        folder.mkdir(parents=True, exist_ok=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in reversed(self._running.values()):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def start(self, name, words, **options):
        """Start a program; it does not outlive this process, however that ends."""
        self._started[name] = words, options
        with (self._folder / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *map(str, words)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **options,
            )
        return self._running[name]

    def check(self):
        """Raise `Ended` if one has ended."""
        for name, process in self._running.items():
            if process.poll() is not None:
                raise Ended(f"{name} ended with {process.returncode}\n{self.said(name)}")

    def said(self, name):
        lines = (self._folder / f"{name}.log").read_text(errors="replace").splitlines()
        return "\n".join(lines[-20:])

    def wait_until(self, ready, what, seconds=60):
        """Call `ready()` until it is true. Raises `Ended` if a program ends before, or after `seconds`."""
        end = time.monotonic() + seconds
        while not ready():
            self.check()
            if time.monotonic() > end:
                told = "\n".join(f"{name} said:\n{self.said(name)}" for name in self._running)
                raise Ended(f"{what}: not after {seconds} s\n{told}")
            time.sleep(0.1)

    def watch(self, again=()):
        """Return when a program ends, by `Ended`; what becomes an orphan in our pid namespace is reaped meanwhile.

        Those that are named in `again` are started again, as a machine's service manager would.
        """
        while True:
            for name in again:
                if self._running[name].poll() is not None:
                    words, options = self._started[name]
                    self.start(name, words, **options)
            self.check()
            if os.getpid() == 1:
                reap_orphans({process.pid for process in self._running.values()})
            time.sleep(1)


def reap_orphans(kept):
    """Reap ended children that are not among the pids `kept`."""
    while True:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if ended is None or ended.si_pid in kept:
            return
        os.waitpid(ended.si_pid, 0)


def answers(url, context=None, token=None):
    """Whether a GET of `url` is answered with success."""
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
    try:
        with urllib.request.urlopen(request, timeout=2, context=context) as response:
            return response.status == 200
    except (urllib.error.URLError, OSError):
        return False
