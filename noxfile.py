"""Everything that must hold before a release, as sessions: `nox` runs those that every change needs.

The tests run against the wheel, installed, never against the checkout.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
from contextlib import suppress
from pathlib import Path

import nox

nox.needs_version = ">=2025.2"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_venv = "yes"
nox.options.error_on_missing_interpreters = False
nox.options.sessions = ["lint", "types", "docs", "build", "tests-3.11", "migrations", "interpreters"]

PYTHONS = ["3.10", "3.11", "3.12", "3.13"]
DATABASES = {"sqlite": "sqlite,memory", "postgresql": "postgresql"}
POSTGRESQL_15 = Path("/usr/lib/postgresql/15/bin")
BEHIND_POOLER = [
    "tests/log/test_append.py",
    "tests/log/test_append_model.py",
    "tests/log/test_duplicates.py",
    "tests/log/test_expected_version.py",
    "tests/log/test_outbox_rows.py",
    "tests/log/test_reading.py",
    "tests/store/test_transactions.py",
    "tests/testing/test_conformance.py",
]
LEAST_COVERED = 95
"""Per cent of the lines, and of the branches, that the tests have to reach."""
ROOT = Path(__file__).parent

# Interpreters of pyenv are found although none of them is the global one.
_PYENV = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
os.environ["PATH"] = os.pathsep.join([os.environ["PATH"], *map(str, sorted(_PYENV.glob("3.*/bin")))])


def install_wheel(session: nox.Session, *extras: str) -> None:
    """Build the wheel and install it, with its extras, into the session's environment."""
    folder = Path(session.create_tmp())
    for old in folder.glob("*.whl"):
        old.unlink()
    session.install("build")
    session.run("python", "-m", "build", "--wheel", "--outdir", str(folder), str(ROOT), silent=True)
    [wheel] = folder.glob("*.whl")
    session.install(f"{wheel}[{','.join(extras)}]")
    # The version does not change with the content: an earlier wheel in a reused environment must go.
    session.install("--force-reinstall", "--no-deps", str(wheel))


def run_tests(session: nox.Session, *arguments: str, **environment: str) -> None:
    """Run the suite on the installed package; `tests/conftest.py` refuses any other."""
    # The program, not `python -m`: that would put the checkout in front of the installed package.
    # Slow tests, too.
    session.run(
        "pytest", "-m", "", *arguments, *session.posargs, env={"ESOURCE_TEST_INSTALLED": "1", **environment}
    )


@nox.session(python=PYTHONS)
@nox.parametrize("database", list(DATABASES))
def tests(session: nox.Session, database: str) -> None:
    """The suite on one Python and one kind of database."""
    install_wheel(session, "all", "test")
    run_tests(session, ESOURCE_TEST_DATABASES=DATABASES[database])


@nox.session
@nox.parametrize("execution", ["caller", "sync"])
def execution(session: nox.Session, execution: str) -> None:
    """The quick suite with SQLite in the caller's thread; the contract and the promises of stores through `esource.sync`."""
    install_wheel(session, "all", "test")
    which = "not slow" if execution == "caller" else ""
    run_tests(session, "-m", which, ESOURCE_TEST_EXECUTION=execution)


@nox.session
def append_lock(session: nox.Session) -> None:
    """The contract of stores on a PostgreSQL whose logs draw their positions from a row."""
    install_wheel(session, "all", "test")
    # A transaction of the application's that is REPEATABLE READ is told that others came before it, not of its condition.
    # The other one inserts by SQL of its own, which counts on the sequence.
    run_tests(
        session,
        *(
            "-k",
            "not cannot_judge and not looked_up_in_the_index",
            "tests/dialect/test_append_lock.py",
            "tests/log",
            "tests/store",
            "tests/testing",
        ),
        ESOURCE_TEST_APPEND_LOCK="row",
        ESOURCE_TEST_DATABASES="postgresql",
    )


@nox.session(python=[PYTHONS[0], PYTHONS[-1]], venv_backend="uv")
def lowest(session: nox.Session) -> None:
    """The suite on the oldest releases that pyproject.toml allows of what it names, extras and tests included."""
    install_wheel(session, "all", "test")
    pins = Path(session.create_tmp()) / "lowest.txt"
    session.run_install(
        *("uv", "pip", "compile", "--quiet", "--no-annotate", "--resolution", "lowest-direct"),
        *("--python-version", str(session.python), "--extra", "all", "--extra", "test"),
        *("--output-file", str(pins), str(ROOT / "pyproject.toml")),
        external=True,
    )
    session.install("--requirement", str(pins))
    run_tests(session)


@nox.session
def torture(session: nox.Session) -> None:
    """The long version of all that tries to break the promises, until the time is up or something breaks.

    `nox -s torture -- --seed N --minutes M --effort E [PATH ...]`: rounds with the seeds N, N + 1, ..., each with E
    times what a plain `pytest` does; prints each seed, and at the end what the faults did. Half an hour by default.
    """
    install_wheel(session, "all", "test")
    session.run("python", "tests/adversity/torture", *session.posargs, env={"ESOURCE_TEST_INSTALLED": "1"})


@nox.session
def migrations(session: nox.Session) -> None:
    """Drift, old databases, and every way to run the scripts, on both databases."""
    install_wheel(session, "all", "test")
    run_tests(session, "tests/schema")


@nox.session
def lint(session: nox.Session) -> None:
    """Style, and which module may import which."""
    session.install("-e", ".[all,lint]")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("lint-imports")


@nox.session
def audit(session: nox.Session) -> None:
    """Known weaknesses of what `esource[all]` installs, as PyPI tells them; asks the network.

    Fails where it cannot find out: an audit that has looked at nothing has found nothing.
    """
    session.install("pip", ".[all]")  # uv's environments come without pip
    installed = session.run("python", "-m", "pip", "freeze", "--exclude", "esource", silent=True)
    requirements = Path(session.create_tmp()) / "requirements.txt"
    requirements.write_text(str(installed), encoding="utf-8")
    session.install("pip-audit>=2.7")
    session.run("pip-audit", "--strict", "--no-deps", "--disable-pip", "--requirement", str(requirements))


@nox.session
def types(session: nox.Session) -> None:
    """mypy, strict."""
    session.install("-e", ".[all,test,lint]")
    session.run("mypy")


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation as a site, in build/docs; a broken reference is an error. Needs no network."""
    session.install("-e", ".[docs]")
    # Anew each time: the side bar of a page that has not changed would stay as it was.
    session.run("sphinx-build", "-W", "--keep-going", "-E", "-q", "docs", "build/docs", *session.posargs)


@nox.session
def coverage(session: nox.Session) -> None:
    """Lines and branches that the suite reaches, in child processes too; fails if either is below 95 %."""
    session.install("-e", ".[all,test]", "coverage[toml]>=7.10")
    folder = Path(session.create_tmp())
    environment = {"COVERAGE_FILE": str(folder / "data")}
    session.run("coverage", "erase", env=environment)
    session.run("coverage", "run", "-m", "pytest", *session.posargs, env=environment)
    # The screens are looked at by slow tests nearly alone; they are the same on every database.
    screens = ("-m", "slow", "-k", "not postgresql", "tests/tui")
    session.run("coverage", "run", "-m", "pytest", *screens, env=environment)
    session.run("coverage", "combine", "--quiet", env=environment)
    session.run("coverage", "report", "--sort=cover", env=environment)
    session.run("coverage", "json", "--quiet", "-o", str(folder / "totals.json"), env=environment)
    totals = json.loads((folder / "totals.json").read_text(encoding="utf-8"))["totals"]
    lines = 100 * totals["covered_lines"] / totals["num_statements"]
    branches = 100 * totals["covered_branches"] / totals["num_branches"]
    said = f"{lines:.1f} % of the lines, {branches:.1f} % of the branches"
    # Separately: coverage's own fail_under takes them together, where there are almost five lines to a branch.
    if min(lines, branches) < LEAST_COVERED:
        session.error(f"{said}: both are to be at least {LEAST_COVERED} %")
    session.log(said)


@nox.session
def mutants(session: nox.Session) -> None:
    """Whether a test notices a change at any one place: `nox -s mutants -- codec --sample 40`; hours for all.

    `tests/mutation.py` says how, `tests/mutants.md` what was found.
    """
    session.install("-e", ".[all,test]", "mutmut>=3.8,<3.9")
    session.run("python", "tests/mutation.py", *session.posargs)


@nox.session
def build(session: nox.Session) -> None:
    """The wheel and the sdist: what must be inside is, nothing else, and both are built again byte by byte."""
    session.install("build", "twine>=6")
    folder = Path(session.create_tmp())
    shutil.rmtree(folder)
    wheel, sdist = built(session, ROOT, folder / "dist")
    session.run("twine", "check", "--strict", str(wheel), str(sdist))

    names = set(zipfile.ZipFile(wheel).namelist())
    package = {
        f"esource/{path.relative_to(ROOT / 'esource').as_posix()}"
        for path in (ROOT / "esource").rglob("*")
        if path.suffix in (".py", ".tcss")
    }
    scripts = {
        f"esource/migrations/{path.relative_to(ROOT / 'migrations').as_posix()}"
        for path in (ROOT / "migrations").rglob("*")
        if path.suffix in (".py", ".mako")
    }
    inside = package | scripts | {"esource/py.typed"}
    if inside - names:
        session.error(f"the wheel lacks {', '.join(sorted(inside - names))}")
    if not any(name.endswith("/licenses/LICENSE") for name in names):
        session.error("the wheel lacks the LICENSE")
    strangers = {name for name in names - inside if ".dist-info/" not in name}
    if strangers:
        session.error(f"the wheel would also install {', '.join(sorted(strangers))}")

    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    [source] = (folder / "unpacked").iterdir()
    files = [path for path in source.rglob("*") if path.is_file()]
    tracked = session.run("git", "-C", str(ROOT), "ls-files", external=True, silent=True).splitlines()
    strangers = {path.relative_to(source).as_posix() for path in files} - {*tracked, "PKG-INFO"}
    if strangers:
        session.error(f"the sdist holds what git does not: {', '.join(sorted(strangers))}")

    # Another folder, another time, and the modes of a machine whose users share a group.
    for path in files:
        path.chmod(path.stat().st_mode | 0o020)
        os.utime(path)
    for first, again in zip((wheel, sdist), built(session, source, folder / "again"), strict=True):
        if first.read_bytes() != again.read_bytes():
            session.error(f"{first.name}, built from the sdist, differs from the checkout's")
    session.log(f"{wheel.name}: {len(names)} files; {sdist.name}: {len(files)}, and both builds are the same")


def built(session: nox.Session, source: Path, folder: Path) -> tuple[Path, Path]:
    """The wheel and the sdist of a folder, each built from it and not from the other."""
    session.run(
        "python", "-m", "build", "--sdist", "--wheel", "--outdir", str(folder), str(source), silent=True
    )
    [wheel], [sdist] = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, sdist


@nox.session
def postgresql15(session: nox.Session) -> None:
    """The suite on a PostgreSQL 15 cluster of its own, from the programs that the system has."""
    if not (POSTGRESQL_15 / "initdb").exists():
        session.skip(f"PostgreSQL 15 is not installed: no {POSTGRESQL_15}/initdb")
    install_wheel(session, "all", "test")
    # PostgreSQL refuses to run as root.
    as_user = ["runuser", "-u", "nobody", "--"] if os.geteuid() == 0 else []
    with tempfile.TemporaryDirectory(prefix="esource-pg15-") as folder:
        if as_user:
            shutil.chown(folder, "nobody")
        control = [*as_user, str(POSTGRESQL_15 / "pg_ctl"), "-D", f"{folder}/data", "-w"]

        def call(*command: str) -> None:
            subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)

        call(*as_user, str(POSTGRESQL_15 / "initdb"), "-D", f"{folder}/data", "-U", "esource", "-A", "trust")
        # Reached through a socket in its own folder only: no port to clash over. Tests need no fsync.
        options = f"-c listen_addresses='' -c unix_socket_directories='{folder}' -c fsync=off"
        call(*control, "-o", options, "-l", f"{folder}/log", "start")
        try:
            run_tests(
                session,
                ESOURCE_TEST_DATABASES="postgresql",
                ESOURCE_TEST_POSTGRES_URL=f"postgresql://esource@/postgres?host={folder}",
            )
        finally:
            call(*control, "-m", "immediate", "stop")


@nox.session
def pgbouncer(session: nox.Session) -> None:
    """The store and projections behind PgBouncer in transaction mode."""
    if shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin") is None:
        session.error("PgBouncer is not installed: apt-get install pgbouncer")
    install_wheel(session, "all", "test")
    run_tests(
        session,
        "tests/database/test_pooler.py",
        *BEHIND_POOLER,
        "tests/projections/test_running.py",
        ESOURCE_TEST_DATABASES="postgresql",
        ESOURCE_TEST_POOLER="1",
    )


@nox.session
def replica(session: nox.Session) -> None:
    """A store on a streaming replica of a PostgreSQL 15."""
    if not (POSTGRESQL_15 / "pg_basebackup").exists():
        session.error("PostgreSQL 15 is not installed: apt-get install postgresql-15")
    install_wheel(session, "all", "test")
    run_tests(session, "tests/database/test_replica.py", "-n", "0", ESOURCE_TEST_REPLICA="1")


@nox.session
def citus(session: nox.Session) -> None:
    """A log in a distributed schema of Citus: of ``ESOURCE_TEST_CITUS_URL``, else of a container."""
    if not os.environ.get("ESOURCE_TEST_CITUS_URL"):
        answers = False
        if shutil.which("docker"):
            with suppress(subprocess.TimeoutExpired):
                info = subprocess.run(["docker", "info"], capture_output=True, check=False, timeout=20)
                answers = info.returncode == 0
        if not answers:
            session.error(
                "needs a Citus cluster: set ESOURCE_TEST_CITUS_URL to its coordinator (a superuser), or start Docker"
            )
    install_wheel(session, "all", "test")
    run_tests(
        session,
        "tests/database/test_citus.py",
        "tests/directory/test_on_citus.py",
        "tests/documents/pages/test_growth.py::test_a_tenant_goes_from_there_to_a_citus_cluster",
        "-n",
        "0",
        ESOURCE_TEST_CITUS="1",
    )


@nox.session
def powercut(session: nox.Session) -> None:
    """The power cut at any moment under a store, and PostgreSQL on a disk that is full."""
    if shutil.which("strace") is None:
        session.error("strace is not installed: apt-get install strace")
    install_wheel(session, "all", "test")
    # A file's tests share what it recorded.
    run_tests(session, "tests/adversity/powercut", "-n", "2", "--dist", "loadfile", ESOURCE_TEST_POWERCUT="1")


@nox.session(venv_backend="none")
def interpreters(session: nox.Session) -> None:
    """Which of the supported Pythons this machine has; the sessions of the others were skipped."""
    missing = [version for version in PYTHONS if shutil.which(f"python{version}") is None]
    session.log(f"missing interpreters: {', '.join(missing) if missing else 'none'}")
