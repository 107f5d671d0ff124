"""What is quick about short questions: a glance at the configuration says what reading all of it says, or nothing; one question
to the daemon is asked without all that a conversation wants.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from sesrelay.cli import glance
from sesrelay.cli.desk import ask_daemon
from sesrelay.cli.queue import STATE_COLOUR
from sesrelay.config.loading import load
from sesrelay.control.question import ControlError, ask
from sesrelay.mail.delivery import State

SURE = [
    "control: /tmp/x/control.sock\n",
    "state_dir: /tmp\ncontrol:   /tmp/a.sock   # ours\nhostname: a.example.com\n",
    "control: relative.sock\nstate_dir: state/queue\n",
    "# control: /tmp/y.sock\ncontrol: /tmp/x.sock\n#state_dir: /var/lib/sesrelay\n",
]
LEFT = [
    "control: '/tmp/x.sock'\n",
    "control: ${SOCKET}\n",
    "control: ~\n",
    "{control: /tmp/x.sock}\n",
    "local:\n  control: /tmp/x.sock\n",
    "control: /tmp/x.sock\ncontrol: /tmp/y.sock\n",
    "control: |\n  /tmp/x.sock\n",
    "control: /tmp/x.sock\nstate_dir: null\n",
    "control: /tmp/x.sock\nstate_dir: ${STATE}\n",
]


@pytest.mark.parametrize("text", SURE)
def test_a_plain_path_is_seen(tmp_path: Path, text: str) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(text)
    config.chmod(0o600)
    read = load(config).config
    assert glance.daemon_of(config) == (read.control, os.path.realpath(read.state_dir))


@pytest.mark.parametrize("text", LEFT)
def test_all_else_is_left_to_the_whole_reading(tmp_path: Path, text: str) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(text)
    assert glance.daemon_of(config) is None


def test_where_nothing_is_said_the_default_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("hostname: a.example.com\n")
    monkeypatch.setattr(glance, "RUN_DIR", tmp_path / "run")
    assert glance.daemon_of(config) is None, "then it is in state_dir"
    (tmp_path / "run").mkdir()
    assert glance.daemon_of(config) == (tmp_path / "run" / "control.sock", os.path.realpath("/var/lib/sesrelay"))
    assert glance.daemon_of(tmp_path / "missing") is None


def test_the_summary_wants_neither_a_loop_nor_the_words_of_mail() -> None:
    found = subprocess.run(
        [sys.executable, "-c", "import sys, sesrelay.cli.queue, sesrelay.control.question\nprint(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert not {"asyncio", "sesrelay.seams", "sesrelay.mail.delivery", "rich", "yaml"} & set(found.stdout.split())


def test_the_states_that_the_verbs_offer_are_those_there_are() -> None:
    assert list(STATE_COLOUR) == [state.value for state in State]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b'{"end":{"messages":3}}\n', {"messages": 3}),
        (b'{"error":"the queue cannot be reached: x"}\n', "the queue cannot be reached: x"),
        (b'{"error":"this is the relay whose queue is in /b","queue":"/b"}\n', "whose queue is in /b"),
        (b"", "the connection to the daemon was lost before it answered"),
    ],
)
def test_one_question(tmp_path: Path, answer: bytes, said: object) -> None:
    path, asked = tmp_path / "control.sock", list[bytes]()

    def serve() -> None:
        connection, _ = listening.accept()
        with connection:
            lines = connection.makefile("rb")
            asked.append(lines.readline())
            connection.sendall(b'{"end": null}\n')
            asked.append(lines.readline())
            connection.sendall(answer)

    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        daemon = threading.Thread(target=serve)
        daemon.start()
        if isinstance(said, str):
            with pytest.raises(ControlError, match=said):
                ask(path, "/a", "summary")
        else:
            assert ask(path, "/a", "summary") == said
        daemon.join()
    assert asked == [b'{"verb": "here"}\n', b'{"verb": "summary", "queue": "/a", "args": {}}\n']


def test_where_no_daemon_answers_the_whole_way_is_taken(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"control: {tmp_path}/control.sock\n")
    assert ask_daemon(config, "summary") is None
    assert ask_daemon(tmp_path / "absent.yaml", "summary") is None
