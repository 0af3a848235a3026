"""The clients' test suites: installing what they are made of, running them, counting their tests."""

import contextlib
import fcntl
import hashlib
import os
import pathlib
import platform
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
PYTHON = HERE / "python"
RUN_SECONDS = 600  # a suite takes a minute or two; after this long it hangs


class CannotPrepare(Exception):
    """Something is missing on this machine; the message says what to do."""


def prepare(cache, names, topic=None):
    """
    Installs the packages of the named suites and returns (name, command, environment) of each. With a topic, such as
    "encryption", each suite has only its tests of that, and one that has none is left out.
    """
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two runs in one checkout
        prepared = [(name, SUITES[name](cache, topic)) for name in names]
        return [(name, *suite) for name, suite in prepared if suite]


def _matrix_js_sdk(cache, topic):
    tests = sorted((HERE / "js").glob(f"{topic or '*'}.test.js"))
    if not tests:
        return None
    modules = _node_modules(cache)
    command = [
        _node(modules),
        "--test",
        "--test-reporter=spec",
        "--test-timeout=200000",
        "--test-force-exit",  # the SDK's timers outlive its clients
        *tests,
    ]
    return command, {"HEARTH_NODE_MODULES": str(modules)}


def _node_modules(cache):
    source = HERE / "js"
    files = [source / "package.json", source / "package-lock.json"]

    def install(folder):
        npm = shutil.which("npm") or _missing("npm", "install Node.js with npm")
        for file in files:
            shutil.copy(file, folder)
        # Nothing here needs an install script: Node itself is a package with the binary inside.
        _call([npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"], folder)

    return _cached(cache / "js", files, platform.machine(), install) / "node_modules"


def _node(modules):
    """Node 22: the pinned one, or the machine's own where that package has no binary that runs here."""
    pinned = sorted(modules.glob("node-*/bin/node"))
    for node in [*pinned, shutil.which("node")]:
        with contextlib.suppress(OSError, TypeError):
            version = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout
            if (major := re.match(r"v(\d+)\.", version)) and int(major[1]) >= 22:
                return node
    return _missing("Node.js 22", "install Node.js 22 or later")


def _matrix_commander(cache, topic):
    return None if topic else _pytest(cache, PYTHON / "test_commander.py")


def _matrix_nio(cache, topic):
    if topic:
        chosen = sorted(PYTHON.glob(f"test_{topic}.py"))
        if not chosen:
            return None
    else:
        chosen = [PYTHON, "--ignore", PYTHON / "test_commander.py"]
    command, environment = _pytest(cache, *chosen)
    # Some of its tests talk to matrix-js-sdk.
    modules = _node_modules(cache)
    return command, {**environment, "HEARTH_NODEJS": str(_node(modules)), "HEARTH_NODE_MODULES": str(modules)}


def _matrix_rust_sdk(cache, topic):
    """A crate of its own, whose build takes long: its README says more."""
    if topic not in (None, "encryption"):
        return None
    cargo = shutil.which("cargo") or _missing("cargo", "install Rust from https://rustup.rs")
    crate = ["--locked", "--manifest-path", HERE / "rust-sdk/Cargo.toml", "--target-dir", cache / "rust-sdk"]
    print("building matrix-sdk, for minutes the first time", flush=True)
    _call([cargo, "test", "--no-run", "--quiet", *crate])
    return [cargo, "test", *crate], {}


def _pytest(cache, *chosen):
    python = environment(cache / "python", PYTHON / "requirements.txt")
    return [python, "-m", "pytest", *chosen], {"PYTHONDONTWRITEBYTECODE": "1"}


def environment(parent, requirements, hashes=False):
    """The Python of an environment with exactly these packages, each with its hash if so."""

    def install(folder):
        _call([sys.executable, "-m", "venv", folder])
        pip = [folder / "bin/python", "-m", "pip", "--disable-pip-version-check", "--quiet"]
        more = ["--require-hashes"] if hashes else []
        _call([*pip, "install", "--prefer-binary", "--no-deps", *more, "-r", requirements])

    return _cached(parent, [requirements], sys.version + sys.executable, install) / "bin/python"


# The names are those of the packages, which the summary shows.
SUITES = {
    "matrix-commander": _matrix_commander,
    "matrix-js-sdk": _matrix_js_sdk,
    "matrix-nio": _matrix_nio,
    "matrix-sdk": _matrix_rust_sdk,
}
# Those that run without being asked for by name.
USUAL = sorted(set(SUITES) - {"matrix-sdk"})


def _cached(parent, files, flavour, install):
    """The folder that `install` filled for exactly these files; earlier ones are removed."""
    key = hashlib.sha256(flavour.encode())
    for file in files:
        key.update(file.read_bytes())
    folder = parent / key.hexdigest()[:16]
    complete = folder / ".complete"
    if not complete.exists():
        print(f"installing {', '.join(file.name for file in files)} into {folder}", flush=True)
        shutil.rmtree(parent, ignore_errors=True)
        folder.mkdir(parents=True)
        install(folder)
        complete.touch()
    return folder


def _call(command, folder=None):
    done = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        line = " ".join(map(str, command))
        raise CannotPrepare(f"this failed with {done.returncode}: {line}\n{done.stdout}{done.stderr}")


def _missing(what, remedy):
    raise CannotPrepare(f"{what} is missing: {remedy}")


def run(name, command, environment, patience=RUN_SECONDS):
    """Runs a suite, showing what it prints, and returns (passed, failed, seconds). After `patience` seconds it is ended."""
    started = time.monotonic()
    process = subprocess.Popen(
        command,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    )

    def end():
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    watchdog = threading.Timer(patience, end)
    watchdog.start()
    printed = []
    try:
        for line in process.stdout:
            print(line, end="", flush=True)
            printed.append(line)
        code = process.wait()
    finally:
        watchdog.cancel()
        end()
        process.wait()
    passed, failed = count(printed)
    if not failed and (code != 0 or not passed):
        failed = 1
        print(f"{name} ended with {code} and counted {passed} passed and no failure", flush=True)
    return passed, failed, time.monotonic() - started


def count(printed):
    """How many tests passed and failed, from the closing lines of node's test runner, of pytest and of cargo."""
    counts = {"pass": 0, "fail": 0, "cancelled": 0, "passed": 0, "failed": 0, "error": 0, "errors": 0}
    for line in printed[-2000:]:
        if node := re.match(r"\S+ (pass|fail|cancelled) (\d+)$", line):
            counts[node[1]] = int(node[2])
        elif re.match(r"=+ .* in [\d.]+s", line):
            for number, word in re.findall(r"(\d+) (passed|failed|errors?)\b", line):
                counts[word] = int(number)
        elif cargo := re.match(r"test result: .* (\d+) passed; (\d+) failed;", line):
            counts["passed"] += int(cargo[1])
            counts["failed"] += int(cargo[2])
    passed = counts["pass"] + counts["passed"]
    return passed, sum(counts.values()) - passed
