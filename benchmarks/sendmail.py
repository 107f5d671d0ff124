"""Measures how long a program waits for sendmail: from start to exit, one message handed to a running relay.

Beside it, the same Python doing nothing, msmtp handing the same message to the same relay, and Postfix's sendmail handing it to
Postfix. The programs take turns, so that whatever else the machine does meets all alike. Prints min-median-max, and the ratio of
each median to that of `python -c pass`.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import peers
from relays import Postfix, Running, Sesrelay, Sink, free_port

ROOT = Path(__file__).resolve().parent.parent
MESSAGE = b"From: bench@example.com\nTo: someone@example.net\nSubject: a message\n\n" + b"one line of an ordinary message\n" * 60
ADDRESSES = ("-i", "-f", "bench@example.com", "someone@example.net")
LAUNCHER = "import sys; sys.path.insert(0, {!r}); from sesrelay.sendmail import main; sys.exit(main())"
BARE = "python -c pass"


@dataclass
class Candidate:
    """A program, and how long each of its runs took. Units: milliseconds."""

    name: str
    command: list[str]
    env: dict[str, str] = field(default_factory=lambda: dict(os.environ))
    took: list[float] = field(default_factory=list)

    def run(self) -> None:
        """Run it once with the message on standard input."""
        with tempfile.TemporaryFile() as message:
            message.write(MESSAGE)
            message.seek(0)
            start = time.perf_counter()
            done = subprocess.run(self.command, env=self.env, stdin=message, capture_output=True, check=False)
            self.took.append((time.perf_counter() - start) * 1000)
        if done.returncode != 0:
            raise RuntimeError(f"{self.name} ended with {done.returncode}: {done.stderr.decode(errors='replace').strip()}")


def candidates(relay: Running, postfix: Path | None) -> list[Candidate]:
    """Return what is compared; `postfix` is the folder of the configuration of one that runs."""
    ours = {**os.environ, "SESRELAY_SUBMIT": f"127.0.0.1:{relay.port}"}
    script = Path(sys.executable).with_name("sesrelay-sendmail")
    found = [
        Candidate(BARE, [sys.executable, "-c", "pass"]),
        Candidate("python -I -S -c pass", [sys.executable, "-IS", "-c", "pass"]),
        Candidate("sendmail, as packaged", [sys.executable, "-IS", "-c", LAUNCHER.format(str(ROOT / "src")), *ADDRESSES], ours),
    ]
    if script.exists():
        found.append(Candidate("sesrelay-sendmail", [str(script), *ADDRESSES], ours))
    msmtp = peers.find("msmtp")
    if msmtp is not None:
        options = ("--file=/dev/null", "--host=127.0.0.1", f"--port={relay.port}", "--from=bench@example.com", "--")
        found.append(Candidate("msmtp", msmtp.command(*options, "someone@example.net"), dict(msmtp.env)))
    theirs = peers.find("postfix")
    if postfix is not None and theirs is not None:
        env = {**theirs.env, "MAIL_CONFIG": str(postfix)}
        found.append(Candidate("Postfix's sendmail", [str(theirs.path.with_name("sendmail")), *ADDRESSES], env))
    return found


def main() -> int:
    """Run the rounds asked for and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=60, help="runs of each program (60)")
    rounds = parser.parse_args().rounds
    if not peers.find("smtp-sink"):
        print("smtp-sink of the postfix package is wanted: `make peers` unpacks it where apt is", file=sys.stderr)
        return 69
    with tempfile.TemporaryDirectory(prefix="sesrelay-bench-", dir="/var/tmp") as made:
        folder = Path(made)
        folder.chmod(0o711)  # Postfix's daemons are other users
        for name in ("sink", "relay", "postfix"):
            (folder / name).mkdir()
        running: list[Sink | Running] = []
        try:
            sink = Sink(folder / "sink")
            running.append(sink)
            relay = Sesrelay().start(folder / "relay", free_port(), sink.port)
            running.append(relay)
            reason = Postfix().unavailable()
            if reason is None:
                running.append(Postfix().start(folder / "postfix", free_port(), sink.port))
                with (folder / "postfix" / "etc" / "main.cf").open("a") as configuration:
                    # sendmail runs postdrop in a clean environment; an unpacked one finds its libraries by this alone
                    configuration.write("export_environment = TZ MAIL_CONFIG LANG LD_LIBRARY_PATH\n")
            else:
                print(f"without Postfix: {reason}", file=sys.stderr)
            measured = candidates(relay, None if reason else folder / "postfix" / "etc")
            for _ in range(rounds):
                for candidate in measured:
                    candidate.run()
        finally:
            for each in reversed(running):
                each.stop()
    bare = statistics.median(next(candidate for candidate in measured if candidate.name == BARE).took)
    print(f"{'one message, start to exit':<28}{'ms, min-median-max':>22}{'ratio':>8}")
    for candidate in measured:
        middle = statistics.median(candidate.took)
        spread = f"{min(candidate.took):.1f}-{middle:.1f}-{max(candidate.took):.1f}"
        print(f"{candidate.name:<28}{spread:>22}{middle / bare:>8.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
