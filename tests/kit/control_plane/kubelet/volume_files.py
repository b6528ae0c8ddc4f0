"""Files of a volume, replaced all at once, as the real kubelet does it.

A volume folder holds a hidden folder with the files, a link `..data` to that, and for each file a link
`name -> ..data/name`. A change makes a new hidden folder, then renames a new link over `..data`. Readers
see the old set or the new set, and watchers of the folder see one rename.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ("replace_files",)


def replace_files(folder: Path, files: Mapping[str, bytes]) -> bool:
    """Make the volume hold `files` (relative path -> bytes); False when it does already."""
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / "..data"
    old = data.resolve() if data.is_symlink() else None
    if old is not None and _read(old) == files:
        return False
    new = Path(tempfile.mkdtemp(prefix="..", dir=folder))
    new.chmod(0o755)
    for name, content in files.items():
        (new / name).parent.mkdir(parents=True, exist_ok=True)
        (new / name).write_bytes(content)
    link = folder / "..data_tmp"
    link.symlink_to(new.name)
    link.replace(data)
    shown = {Path(name).parts[0] for name in files}
    for name in shown:
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"..data/{name}")
    for path in folder.iterdir():
        if not path.name.startswith("..") and path.name not in shown:
            path.unlink()
    if old is not None:
        shutil.rmtree(old)
    return True


def _read(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
