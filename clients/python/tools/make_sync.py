"""Makes the synchronous client, src/kith_client/_sync, from the asynchronous one. Usage: python tools/make_sync.py [FOLDER]"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import unasync

SOURCE = Path(__file__).parent.parent / "src/kith_client/_async"
# Besides what unasync knows; the classes lose their prefix.
NAMES = {
    "AsyncAliases": "Aliases",
    "AsyncBaseTransport": "BaseTransport",
    "AsyncCheckpoints": "Checkpoints",
    "AsyncClient": "Client",
    "AsyncEventStream": "EventStream",
    "AsyncImages": "Images",
    "AsyncKith": "Kith",
    "AsyncModels": "Models",
    "AsyncPairs": "Pairs",
    "AsyncTrainingControl": "TrainingControl",
    "AsyncTransport": "Transport",
    "_async_io": "_sync_io",
    "aclose": "close",
    "aclosing": "closing",
    "aiter_raw": "iter_raw",
    "aiter_sse": "iter_sse",
    "aread": "read",
}
HEAD = "# Made from _async by tools/make_sync.py: change that, and run it again.\n"


def main(folder: Path) -> None:
    files = sorted(str(path) for path in SOURCE.glob("*.py"))
    rule = unasync.Rule(fromdir=str(SOURCE), todir=str(folder), additional_replacements=NAMES)
    unasync.unasync_files(files, [rule])
    made = [folder / Path(file).name for file in files]
    for path in made:
        # Names in strings with other text, too: unasync replaces whole strings only.
        path.write_text(HEAD + path.read_text().replace("The asynchronous client. `_sync`", "The synchronous client. It"))
    commands = (["check", "--select", "I", "--fix"], ["format"])
    for command in commands:
        subprocess.run([sys.executable, "-m", "ruff", *command, "--quiet", *map(str, made)], check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else SOURCE.parent / "_sync")
