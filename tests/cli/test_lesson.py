"""The command `lesson`, with a page of its own."""

from pathlib import Path

from tests.cli.session import Session
from txcontain.cli import lesson

PAGE = """\
# 1. Glass

## Exercise

Make a file `a` with your name. Check:

```console check pids
# cat a; echo $((40 + 2))
> echo b
me
1
b
```

<details><summary>Solution</summary>

```console
# echo me > a
```

</details>
"""


class LessonTests(Session):
    """Exercises: what they are, and whether they are solved."""

    def setUp(self) -> None:
        super().setUp()
        self.page = Path(self.mktemp())
        self.page.write_text(PAGE)
        self.patch(lesson, "pages", lambda: [self.page])

    def test_shown(self) -> None:
        """The lessons, an exercise with its check, and a solution are shown as they are written."""
        self.assertEqual(self.run_command("lesson"), 0)
        self.assertEqual(self.out, "1. Glass\n")
        self.assertEqual(self.run_command("lesson", "exercise", "1"), 0)
        self.assertIn("\nMake a file `a` with your name. Check:\n\n```console check", self.out)
        self.assertEqual(self.run_command("lesson", "solution", "1"), 0)
        self.assertTrue(self.out.endswith("```console\n# echo me > a\n```\n"))

    def check(self, wrote: str) -> int:
        """The exit status of a check in which the shell has written this."""
        self.patch(lesson, "run", lambda command: wrote if "\n> " not in command else "")
        return self.run_command("lesson", "check", "1")

    def test_check(self) -> None:
        """It is solved if the check writes what the page says, but for what is masked."""
        self.assertEqual(self.check("me\n42\nb\n"), 0)
        self.assertEqual(self.out, "Lesson 1 is solved.\n")
        self.assertEqual(self.check("cat: a: No such file or directory\n42\nb\n"), 1)
        self.assertIn("This should write:\n\n# cat a; echo $((40 + 2))\n> echo b\nme\n", self.out)
        self.assertIn("It writes:\n\ncat: a: No such", self.out)
        self.assertTrue(self.out.endswith("Lesson 1 is not solved yet.\n"))

    def test_run(self) -> None:
        """A command is run by a shell, with what it complains of; not for long."""
        self.assertEqual(lesson.run("echo a; echo b >&2; (exit 3)"), "a\nb\n")
        self.patch(lesson, "WITHIN", 0.01)
        self.page.write_text(PAGE.replace("cat a", "sleep 10"))
        self.assertEqual(self.run_command("lesson", "check", "1"), 1)
        self.assertIn("It has not ended within 0.01 s: sleep 10; echo", self.err)

    def test_no_such_lesson(self) -> None:
        """One that there is not is refused; so are all if they were not installed."""
        self.assertEqual(self.run_command("lesson", "check", "2"), 1)
        self.assertIn("There is no lesson 2: they are 1 to 1.", self.err)
        self.patch(lesson, "pages", list)
        self.assertEqual(self.run_command("lesson"), 1)
        self.assertIn("The lessons are not installed: they are in docs/lessons/", self.err)
