"""Builds the Debian packages `sesrelay` and `sesrelay-mta` for the distribution it runs on: `make packages`.

`sesrelay` brings its libraries along, as a virtual environment under /opt/sesrelay made for this distribution's own Python, on
which the package depends to the minor version: Debian's libraries are older than what the relay wants. `sesrelay-mta` makes
it the machine's sendmail. The packages themselves are put together by nfpm.

Needs: /usr/bin/python3 with venv, and what `make packages` sets up. No root. Prints the files it made.
"""

from __future__ import annotations

import argparse
import compileall
import gzip
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
HOME = "/opt/sesrelay"
BIN = Path(sys.executable).parent
SHELLS = {"bash": "bash-completion/completions/sesrelay", "zsh": "zsh/vendor-completions/_sesrelay"}


def run(*command: str | Path, **env: str) -> str:
    """Run a program and return what it printed; its complaints go where ours go."""
    done = subprocess.run([str(part) for part in command], cwd=ROOT, env={**os.environ, **env}, stdout=subprocess.PIPE, check=True)
    return done.stdout.decode()


def python_of(interpreter: Path) -> tuple[int, int]:
    """Return the version that the packages are for."""
    major, minor = run(interpreter, "-c", "import sys; print(*sys.version_info[:2])").split()
    return int(major), int(minor)


def environment(tree: Path, interpreter: Path) -> None:
    """Make /opt/sesrelay below `tree`: locked libraries and ourselves, with paths as they will be when installed."""
    home = tree / HOME.lstrip("/")
    run(interpreter, "-m", "venv", "--without-pip", "--symlinks", home)
    python = home / "bin/python3"
    wanted = tree.parent / "requirements.txt"
    wanted.write_text(run(BIN / "uv", "export", "--frozen", "--no-dev", "--no-emit-project", "--no-header", "--quiet"))
    wheels = tree.parent / "wheel"
    run(BIN / "uv", "build", "--quiet", "--wheel", "--out-dir", wheels)
    install = (BIN / "uv", "pip", "install", "--quiet", "--python", python, "--no-deps", "--link-mode", "copy")
    run(*install, "--require-hashes", "-r", wanted)
    run(*install, next(wheels.glob("*.whl")))
    for script in (home / "bin").iterdir():
        if script.is_file() and not script.is_symlink():
            text = script.read_text()
            script.write_text(text.replace(str(home), HOME))
    for name in ("activate", "activate.csh", "activate.fish", "Activate.ps1"):
        (home / "bin" / name).unlink(missing_ok=True)
    settings = home / "pyvenv.cfg"
    settings.write_text("".join(line for line in settings.read_text().splitlines(True) if not line.startswith("command")))
    for record in home.glob("lib/python3*/site-packages/sesrelay-*/direct_url.json"):
        record.unlink()  # it names the folder where this was built
    packages = next(home.glob("lib/python3*/site-packages"))
    compile_all = f"import compileall; compileall.compile_dir({str(packages)!r}, stripdir={str(tree)!r}, prependdir='/', quiet=2)"
    run(python, "-c", compile_all)


def sendmail(tree: Path) -> None:
    """Make /usr/lib/sesrelay below `tree`: the sendmail program alone, for the system's Python without an environment."""
    target = tree / "usr/lib/sesrelay/sesrelay"
    shutil.copytree(ROOT / "src/sesrelay/sendmail", target / "sendmail", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "src/sesrelay/__init__.py", target)
    compileall.compile_dir(target, stripdir=str(tree), prependdir="/", quiet=2)


def documents(tree: Path) -> None:
    """Put man pages, HTML and the completions of shells below `tree`."""
    for kind in ("html", "man"):
        run(BIN / "sphinx-build", "-q", "-E", "-W", "-b", kind, ROOT / "docs", tree.parent / kind)
    for page in (tree.parent / "man").glob("*.[1-8]"):
        target = tree / f"usr/share/man/man{page.suffix[1:]}/{page.name}.gz"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(gzip.compress(page.read_bytes(), mtime=0))
    shutil.copytree(
        tree.parent / "html", tree / "usr/share/doc/sesrelay/html", ignore=shutil.ignore_patterns(".buildinfo", ".doctrees")
    )
    for shell, name in SHELLS.items():
        target = tree / "usr/share" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(run(BIN / "sesrelay", _SESRELAY_COMPLETE=f"{shell}_source"))


def readable(tree: Path) -> None:
    """Give what is installed the modes that everybody needs, whatever umask it was made, checked out or cached under."""
    for each in tree.rglob("*"):
        if not each.is_symlink():
            each.chmod(0o755 if each.is_dir() or each.stat().st_mode & 0o100 else 0o644)


def package(description: Path, target: Path, **values: str) -> Path:
    """Have nfpm make a .deb of a description in which @NAME@ stands for a value."""
    text = re.sub(r"@(\w+)@", lambda found: values[found[1]], description.read_text())
    filled = target / description.name
    filled.write_text(text)
    made = run(BIN / "nfpm", "package", "--packager", "deb", "--config", filled, "--target", target)
    filled.unlink()
    return Path(re.search(r"created package: (.*)", made)[1])  # type: ignore[index]  # nfpm names what it made


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--python", type=Path, default=Path("/usr/bin/python3"), help="the distribution's own (%(default)s)")
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="where the packages go (%(default)s)")
    parser.add_argument("--version", help="the packages' version, instead of ours")
    parser.add_argument("--work", type=Path, default=ROOT / "build/deb", help="where they are put together (%(default)s)")
    parser.add_argument("--again", action="store_true", help="take what an earlier run left in --work")
    args = parser.parse_args()
    major, minor = python_of(args.python)
    tree, mta = args.work.absolute() / "tree", args.work.absolute() / "mta"
    if not args.again:
        shutil.rmtree(args.work, ignore_errors=True)
        tree.mkdir(parents=True)
        environment(tree, args.python)
        documents(tree)
        sendmail(mta)
        readable(tree)
        readable(mta)
    args.out.mkdir(parents=True, exist_ok=True)
    values = {
        "version": args.version or run(BIN / "python", "-c", "import sesrelay; print(sesrelay.__version__)").strip(),
        "arch": run("dpkg", "--print-architecture").strip(),
        "python": f"python{major}.{minor}",
        "root": str(ROOT),
        "tree": str(tree),
        "mta": str(mta),
    }
    for name in ("sesrelay.yaml", "sesrelay-mta.yaml"):
        print(package(HERE / name, args.out, **values))
    return 0


if __name__ == "__main__":
    sys.exit(main())
