"""What the runner reads from a page, and what it calls different. Also: every page is a chapter."""

import pathlib
import re
import unittest

import page

DOCS = pathlib.Path(__file__).resolve().parent.parent.parent / "docs"


class Pages(unittest.TestCase):
    def test_a_block_runs_unless_it_says_why_not(self):
        ran, skipped = page.blocks("```sh\na\n```\n\n<!-- not run: no GPU -->\n```sh\nb\n```\n")
        self.assertEqual((ran.runs, ran.text), (True, "a\n"))
        self.assertEqual((skipped.runs, skipped.not_run), (False, "no GPU"))

    def test_a_reason_is_needed(self):
        with self.assertRaises(ValueError):
            page.blocks("<!-- not run -->\n```sh\nb\n```\n")

    def test_a_block_says_its_language(self):
        with self.assertRaises(ValueError):
            page.blocks("```\na\n```\n")

    def test_a_comment_is_of_the_next_block_only(self):
        skipped, ran = page.blocks("<!-- not run: no GPU -->\n```sh\na\n```\n```sh\nb\n```\n")
        self.assertEqual((skipped.runs, ran.runs), (False, True))

    def test_an_output_belongs_to_the_block_before(self):
        (block,) = page.blocks('```sh\na\n```\n```json\n{"id": "…"}\n```\n')
        self.assertEqual(block.outputs, ['{"id": "…"}\n'])

    def test_a_console_has_commands_and_their_output(self):
        (block,) = page.blocks("```console\n$ a\n1 b\n```\n")
        self.assertEqual((block.script, block.outputs), ("a\n", ["1 b\n"]))

    def test_a_block_in_a_list_loses_its_indent(self):
        (block,) = page.blocks("1. x\n\n   ```sh\n   a\n     b\n   ```\n")
        self.assertEqual(block.text, "a\n  b\n")

    def test_a_key_that_is_not_printed_is_a_difference(self):
        self.assertEqual(page.differences('{"id": "…", "gone": 1}', '{"id":"x","more":2}'), ['"gone"'])

    def test_numbers_and_ids_may_differ_in_a_line_and_words_may_not(self):
        self.assertEqual(page.differences("3 of 4 at 01a2111d-5eb0-748a-aec6-a713e910f739: …", "40 of 41 at 01a2111d-5eb0-748a-aec6-a713e910f000: x"), [])
        self.assertEqual(page.differences("3 of 4", "3 from 4"), ["3 of 4"])

    def test_no_page_links_to_what_the_book_does_not_have(self):
        self.assertEqual([path.name for path in DOCS.glob("*.md") if "](../" in path.read_text()], [])

    def test_every_page_is_a_chapter(self):
        chapters = set(re.findall(r"\(([^)]+\.md)\)", (DOCS / "SUMMARY.md").read_text()))
        self.assertEqual(chapters, {path.name for path in DOCS.glob("*.md")} - {"SUMMARY.md"})
