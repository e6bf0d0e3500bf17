"""Runs a command beside emulators of AWS, each on this machine only, and stops them by their process.

    python3 tests/emulators.py install                     into target/emulators, pinned
    python3 tests/emulators.py run COMMAND [ARGUMENT ...]  with ISOFORM_MOTO, ISOFORM_MINISTACK and ISOFORM_LOCALEMU set

LocalEmu listens on every address whatever it is told, so it runs only where this can have a network namespace of its own, and
only under Python 3.12 or newer. Where one of the two is missing it is left out, and the reason is printed.
"""

import fcntl
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / "target" / "emulators"
PINNED = {
    "moto": ["moto[server]==5.2.1"],
    "ministack": ["ministack==1.5.33", "cryptography==50.0.2", "aws-sam-translator==1.115.0"],
    "localemu": ["localemu[runtime]==1.3.2"],
}
APART = "ISOFORM_EMULATORS_APART"
# Seconds until an emulator must answer: LocalEmu takes five on an idle machine.
PATIENCE = 120


def newer_python():
    """Finds a Python that LocalEmu runs under: by name, or beside others in the folders of a version manager."""
    found = [shutil.which(f"python3.{minor}") for minor in (13, 12, 14)]
    found += [str(p) for minor in (13, 12) for p in Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/python3")]
    for python in filter(None, found + [sys.executable]):
        said = subprocess.run([python, "-c", "import sys; print(sys.version_info >= (3, 12))"], capture_output=True, text=True)
        if said.stdout.strip() == "True":
            return python
    return None


def install():
    for name, packages in PINNED.items():
        stamp = HOME / name / "stamp"
        if stamp.exists() and stamp.read_text() == "\n".join(packages):
            continue
        python = newer_python() if name == "localemu" else sys.executable
        if python is None:
            continue
        print(f"== installing {name} into {(HOME / name).relative_to(ROOT)}", flush=True)
        shutil.rmtree(HOME / name, ignore_errors=True)
        HOME.mkdir(parents=True, exist_ok=True)
        if subprocess.run([python, "-m", "venv", HOME / name], capture_output=True).returncode:
            # Debian ships Python without ensurepip.
            subprocess.run([python, "-m", "pip", "install", "--quiet", "--user", "--break-system-packages", "virtualenv"], check=True)
            subprocess.run([python, "-m", "virtualenv", "--quiet", HOME / name], check=True)
        pip = [HOME / name / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run(pip + packages, check=True)
        stamp.write_text("\n".join(packages))


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def loopback_up():
    """Brings the loopback device of this namespace up."""
    flags, name = 0x8914, struct.pack("16sh", b"lo", 0x1 | 0x40)  # SIOCSIFFLAGS; IFF_UP | IFF_RUNNING
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        fcntl.ioctl(s, flags, name)


def answers(url):
    try:
        urllib.request.urlopen(url, timeout=2)
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def start(name, port, folder):
    """Starts an emulator; its output goes to a file."""
    program = HOME / name / "bin"
    environment = dict(os.environ, HOME=folder, PYTHONDONTWRITEBYTECODE="1")
    if name == "moto":
        command = [program / "moto_server", "-H", "127.0.0.1", "-p", str(port)]
    elif name == "ministack":
        command = [program / "ministack"]
        environment |= {"BIND_HOST": "127.0.0.1", "GATEWAY_PORT": str(port), "SFTP_ENABLED": "0", "IOT_MTLS_ENABLED": "0"}
    else:
        command = [program / "localemu", "start", "--host", "127.0.0.1", "--port", str(port)]
        # Its transform of serverless templates asks for a region of its own.
        environment |= {"AWS_DEFAULT_REGION": "eu-west-1", "DISABLE_EVENTS": "1", "SKIP_SSL_CERT_DOWNLOAD": "1", "LOCALEMU_VOLUME_DIR": folder}
    log = open(HOME / f"{name}.log", "wb")
    return subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)


def ready(name, process, port):
    path = {"moto": "/moto-api/", "ministack": "/_ministack/health", "localemu": "/_localemu/health"}[name]
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and process.poll() is None:
        if answers(f"http://127.0.0.1:{port}{path}"):
            return True
        time.sleep(0.2)
    return False


def run(command):
    apart = os.environ.get(APART) == "1"
    if apart:
        loopback_up()
    names = [name for name in PINNED if (HOME / name / "stamp").exists() and (apart or name != "localemu")]
    if not (HOME / "localemu" / "stamp").exists():
        print("SKIP contract_on_localemu: it needs Python 3.12 or newer, and none was found", flush=True)
    elif not apart:
        print("SKIP contract_on_localemu: it listens on every address, and no network namespace can be had here", flush=True)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")}
    # Keys that mean nothing, so that nobody's own are ever used, and no machine's are asked for.
    environment |= {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
    environment.pop(APART, None)
    started = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            for name in names:
                port = free_port()
                started.append((name, start(name, port, folder), port))
            for name, process, port in started:
                if not ready(name, process, port):
                    print(f"tests/emulators.py: {name} does not answer; target/emulators/{name}.log says why", file=sys.stderr)
                    return 1
                environment[f"ISOFORM_{name.upper()}"] = f"http://127.0.0.1:{port}"
            return subprocess.run(command, env=environment, cwd=ROOT).returncode
        finally:
            for _, process, _ in started:
                # The group is the one that this script made for it.
                try:
                    os.killpg(process.pid, signal.SIGTERM)
                except ProcessLookupError:
                    continue
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()


def main():
    if sys.argv[1:] == ["install"]:
        return install()
    if len(sys.argv) < 3 or sys.argv[1] != "run":
        sys.exit(__doc__)
    if APART not in os.environ and shutil.which("unshare"):
        private = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--net", "--map-root-user"]
        if subprocess.run(private + ["true"], capture_output=True).returncode == 0:
            os.environ[APART] = "1"
            os.execvp("unshare", private + [sys.executable, __file__] + sys.argv[1:])
    sys.exit(run(sys.argv[2:]))


main()
