"""The code blocks of a page. Each runs, shows what the one before it printed, or says in a comment before it why it does not run:

    <!-- not run: it needs a GPU -->

A block that the server or the command refuses, on purpose, has `<!-- refused -->` before it."""

import dataclasses
import re

# How a block of a language runs, in the page's shell.
COMMANDS = {
    "sh": ". {file}",
    "console": ". {file}",
    "python": "python3 {file}",
    "ts": "node {file}",
    "toml": "kith config --config {file} >/dev/null",
}
OUTPUTS = ("json", "text")
# Shown only: other programs read them.
SHOWN = ("yaml", "ini", "nginx", "rust")

FENCE = re.compile(r"^(?P<indent> *)```(?P<language>[a-z]*)\n(?P<text>.*?)^ *```$", re.S | re.M)
COMMENT = re.compile(r"<!-- (?P<word>not run|refused)(?:: (?P<reason>[^>]+?))? -->\n+ *$")


@dataclasses.dataclass
class Block:
    language: str
    text: str
    line: int
    # Why it does not run; None where it does.
    not_run: str | None
    refused: bool
    # Text that its output must be like.
    outputs: list

    @property
    def runs(self):
        return self.language in COMMANDS and self.not_run is None

    @property
    def command(self):
        return COMMANDS[self.language]

    @property
    def script(self):
        """What runs: of a console, the lines after its prompt."""
        if self.language != "console":
            return self.text
        return "".join(line.removeprefix("$ ") for line in self.text.splitlines(True) if line.startswith("$ "))


def blocks(text):
    """The blocks of a page; those that show outputs belong to the block before them."""
    found = []
    for match in FENCE.finditer(text):
        block = one(text, match)
        if block.language in OUTPUTS and block.not_run is None:
            if not found:
                raise ValueError(f"line {block.line}: there is no block whose output this is")
            found[-1].outputs.append(block.text)
        elif block.language in COMMANDS or block.not_run is not None:
            found.append(block)
        elif block.language not in SHOWN:
            raise ValueError(f"line {block.line}: a block of {block.language or 'no language'}: use one of {', '.join([*COMMANDS, *OUTPUTS, *SHOWN])}")
    return found


def one(text, match):
    indent = len(match["indent"])
    lines = [line[indent:] if line[:indent].isspace() else line for line in match["text"].splitlines(True)]
    comment = COMMENT.search(text, 0, match.start())
    word, reason = (comment["word"], comment["reason"]) if comment else (None, None)
    line = text.count("\n", 0, match.start()) + 1
    if word == "not run" and not reason:
        raise ValueError(f"line {line}: say why this does not run")
    block = Block(match["language"], "".join(lines), line, reason if word == "not run" else None, word == "refused", [])
    if block.language == "console":
        block.outputs = ["".join(line for line in lines if not line.startswith("$ "))]
    return block


def differences(shown, printed):
    """What a page shows as output and a run did not print: keys of JSON, or lines in which numbers and ids may differ and `…` is anything."""
    if '":' in shown:
        keys = re.findall(r'"(\w+)":', shown)
        return [f'"{key}"' for key in keys if f'"{key}":' not in re.sub(r'" *: *', '":', printed)]
    return [line for line in shown.splitlines() if line.strip() and not re.search(like(line), printed)]


def like(line):
    parts = re.split(r"(…|[0-9a-f]{8}[0-9a-f-]{8,}|\d[\d.,]*|\s+)", line.strip())
    return "".join(pattern(part) for part in parts)


def pattern(part):
    if part == "…":
        return ".*"
    if re.fullmatch(r"[0-9a-f]{8}[0-9a-f-]{8,}", part):
        return "[0-9a-f-]+"
    if re.match(r"\d", part):
        return r"\d[\d.,]*"
    return r"\s+" if part.isspace() else re.escape(part)
