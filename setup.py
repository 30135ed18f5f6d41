"""Compiles the data path: the modules that every delivery runs through, from their own source, with mypyc.

Everything else about the package stands in pyproject.toml. Where it can't be compiled (no C compiler, no Python.h, no mypyc
for this machine) the package is the source alone, which does the same for half as much CPU again. SIDECAR_COMPILE=1 makes
that an error, SIDECAR_COMPILE=0 does not try.
"""

import os
import sysconfig
import tempfile
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import BaseError, CCompilerError

#: Dotted names below `sidecar`. The Makefile reads these lines as well.
MODULES = [
    "delivery.authorize",
    "delivery.body",
    "delivery.decide",
    "delivery.delivery",
    "delivery.forward",
    "delivery.proxy",
    "delivery.recorder",
    "delivery.responses",
    "delivery.snapshot",
    "delivery.throttle",
    "delivery.upstream_head",
    "diagnosis.live",
    "http1.admission",
    "http1.connection",
    "http1.deadlines",
    "http1.fields",
    "http1.head",
    "http1.incoming",
    "http1.light_task",
    "http1.request_parser",
    "http1.slots",
    "http1.status_response",
    "http1.transport",
    "http1.upstream",
    "outcomes",
    "replay.memory_store",
    "replay.once",
    "replay.store",
    "routing.access",
    "routing.client_ip",
    "routing.networks",
    "routing.question",
    "routing.receiver_headers",
    "routing.refusal_limit",
    "routing.routes",
    "telemetry.log",
    "telemetry.metrics",
    "telemetry.recent_rejections",
    "telemetry.record",
    "telemetry.tenant_uses",
    "verify.algorithms",
    "verify.claim",
    "verify.composed",
    "verify.composite",
    "verify.document",
    "verify.encoding",
    "verify.jose",
    "verify.key_finder",
    "verify.kinds.basic",
    "verify.kinds.ecdsa",
    "verify.kinds.ed25519",
    "verify.kinds.hash",
    "verify.kinds.hmac",
    "verify.kinds.public_key",
    "verify.kinds.rsa",
    "verify.kinds.token",
    "verify.message",
    "verify.places",
    "verify.published_matcher",
    "verify.tenants",
    "verify.timestamp",
    "verify.token",
    "verify.token_claims",
    "verify.token_verifier",
    "verify.upstream_request",
    "verify.verifier",
]
#: Holds the compiled code of all of them; the files of the modules only point into it.
LIBRARY = "sidecar.compiled__mypyc"
WISH = os.environ.get("SIDECAR_COMPILE", "")


def try_compiler() -> None:
    """Raises `CCompilerError` where nothing is compiled against Python.h: in a moment, where mypyc takes twelve seconds first."""
    from distutils.ccompiler import new_compiler  # noqa: PLC0415 - setuptools' own, from Python 3.12 on once that is imported
    from distutils.sysconfig import customize_compiler  # noqa: PLC0415

    compiler = new_compiler()
    customize_compiler(compiler)
    with tempfile.TemporaryDirectory() as made:
        source = Path(made) / "probe.c"
        source.write_text("#include <Python.h>\n")
        compiler.compile([str(source)], output_dir=made, include_dirs=[sysconfig.get_path("include")])


def compiled() -> list[Extension]:
    """Raises `ImportError` or `CCompilerError` without what it needs, `SystemExit` where mypyc finds a mistake."""
    try_compiler()
    from mypyc.build import mypycify  # noqa: PLC0415 - who builds without it needs it not

    files = [f"sidecar/{module.replace('.', '/')}.py" for module in MODULES]
    # Not the settings of `make check`: what is not installed where this is built is `Any`, and of others nothing is said.
    options = ["--config-file=", "--ignore-missing-imports", "--follow-imports=silent"]
    group = (files, LIBRARY.removesuffix("__mypyc"))
    extensions: list[Extension] = mypycify([*options, *files], separate=[group], opt_level="2", debug_level="0")
    for extension in extensions:
        # Half of the time to compile is gcc's check of the indentation, which means nothing in generated code.
        extension.extra_compile_args.append("-Wno-misleading-indentation")
    return extensions


class BuildIfPossible(build_ext):
    def run(self) -> None:
        try:
            # Here and not below, because pip runs this file several times, and builds once.
            self.distribution.ext_modules = [] if WISH == "0" else compiled()
            self.swig_opts = None  # as it was when this was called first
            self.finalize_options()
            self.parallel = self.parallel or os.cpu_count()  # one large file, and a small one for each module
            super().run()
        except (ImportError, SystemExit, BaseError, CCompilerError) as error:
            if WISH == "1":
                raise
            self.warn(f"the data path is not compiled: {error}")
            self.extensions = []


setup(ext_modules=[Extension(LIBRARY, [])], cmdclass={"build_ext": BuildIfPossible})
