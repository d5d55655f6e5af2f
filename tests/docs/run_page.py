"""Runs the blocks of a page, in order, in one shell, in a folder with a few images. Must have a network and processes of its own: the pages
write http://127.0.0.1:7700, and stop kith by its name. Usage: python3 run_page.py PAGE FOLDER (see run.sh, which sets the environment)."""

import os
import pathlib
import shutil
import subprocess
import sys

import page

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
EMOJI = ROOT / "examples" / "emoji"
# The images that the pages name, none of them in the example's list of pairs. The content decides the format, so that a PNG may have any name.
IMAGES = {
    "cup.png": "google/1f193.png",
    "mug.jpg": "twitter/1f193.png",
    "cup-front.jpg": "google/0023-fe0f-20e3.png",
    "cup-back.jpg": "twitter/0023-fe0f-20e3.png",
}
LINKS = ("config", "docs", "examples", "node_modules", "packaging")
# Seconds for a block.
LIMIT = 60


class Shell:
    """A shell in which blocks run one after another, so that later ones see variables of earlier ones."""

    def __init__(self, folder):
        self.folder = folder
        self.process = subprocess.Popen(["bash", "-eu", "-o", "pipefail"], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.number = 0

    def run(self, block):
        """Whether the block succeeded, and all it printed."""
        self.number += 1
        suffix = {"python": "py", "ts": "ts", "toml": "toml"}.get(block.language, "sh")
        state = pathlib.Path(os.environ["DOCS_STATE"])
        script = self.folder / f".block-{self.number}.{suffix}"
        output = state / f"output-{self.number}"
        script.write_text(block.script)
        run = block.command.format(file=f"./{script.name}")
        # Not in a subshell, which would lose the variables; a refused one is, so that the shell goes on.
        run = f"if ( {run} ); then false; fi" if block.refused else run
        self.process.stdin.write(f"{{ {run}\n}} >{output} 2>&1 </dev/null\necho done\n")
        self.process.stdin.flush()
        done = self.process.stdout.readline() == "done\n"
        return done, output.read_text() if output.exists() else ""


def prepare(folder):
    for name in LINKS:
        target = ROOT / "tests" / "clients" / name if name == "node_modules" else ROOT / name
        (folder / name).symlink_to(target)
    for name, source in IMAGES.items():
        shutil.copy(EMOJI / source, folder / name)
    (folder / "package.json").write_text('{"type": "module"}')
    (folder / ".curlrc").write_text("fail-with-body\nshow-error\n")


def run(path, folder):
    blocks = page.blocks(path.read_text())
    not_run = [block for block in blocks if block.not_run is not None]
    shell, outputs = Shell(folder), 0
    for block in filter(lambda block: block.runs, blocks):
        done, printed = shell.run(block)
        where = f"{path.relative_to(ROOT)}:{block.line}"
        if not done:
            wanted = "was not refused" if block.refused else "failed"
            sys.exit(f"{where}: this block {wanted}:\n{block.script}\nIt printed:\n{printed[-4000:]}")
        for shown in block.outputs:
            outputs += 1
            if missing := page.differences(shown, printed):
                sys.exit(f"{where}: the page shows what this block does not print: {missing}\nIt printed:\n{printed[-4000:]}")
    ran = sum(block.runs for block in blocks)
    if not blocks:
        return
    print(f"{path.relative_to(ROOT)}: {ran} ran, {outputs} outputs, {len(not_run)} not run" + "".join(f"\n    line {block.line}: {block.not_run}" for block in not_run))


def main():
    path, folder = (pathlib.Path(argument).resolve() for argument in sys.argv[1:])
    prepare(folder)
    run(path, folder)


if __name__ == "__main__":
    main()
