"""An environment with the wheel, for tests that run what an application runs."""

import sys
import venv
import zipfile
from pathlib import Path

import pytest
from support.schemas import CHECKOUT, run


@pytest.fixture(scope="session")
def installed(tmp_path_factory) -> Path:
    """The interpreter of a fresh environment with the wheel, and nothing of the checkout.

    What the wheel depends on comes from the environment of the tests.
    """
    folder = tmp_path_factory.mktemp("installed")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder), cwd=CHECKOUT)
    [wheel] = folder.glob("esource-*.whl")
    venv.create(folder / "venv", with_pip=False, symlinks=True)
    [site_packages] = (folder / "venv" / "lib").glob("python*/site-packages")
    zipfile.ZipFile(wheel).extractall(site_packages)  # all that installing pure Python means
    import sqlalchemy

    (site_packages / "dependencies.pth").write_text(f"{Path(sqlalchemy.__file__).parents[1]}\n")
    return folder / "venv" / "bin" / "python"
