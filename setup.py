"""What pyproject.toml can't say: a wheel has files that are made from the program itself.

They are for the shells that complete words, and for man(1). pip puts them below the environment's
`share/`.
"""

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from setuptools import setup  # before distutils, which it brings

from distutils.command.install_data import install_data  # isort: skip


class InstallData(install_data):
    """Make the files at the moment when they are packed."""

    def run(self) -> None:
        """Make and pack them."""
        with TemporaryDirectory() as folder:
            subprocess.run([sys.executable, "scripts/make-shell-files", folder], check=True)
            made = [path for path in Path(folder).rglob("*") if path.is_file()]
            self.data_files = [
                (f"share/{path.parent.relative_to(folder)}", [str(path)]) for path in made
            ]
            super().run()


# Without any in this list, setuptools would not even ask InstallData.
setup(data_files=[("share", [])], cmdclass={"install_data": InstallData})
